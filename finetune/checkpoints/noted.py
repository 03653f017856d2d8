"""When what a stage kept may go: not before DVC has noted the outs, which it reads and copies after the stage has ended.

If it dies there, or finds the disk full, it removes the outs and starts the stage again, which then has its last checkpoint still.
"""

import json
import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

from finetune import outputs, paths
from finetune.checkpoints import lock
from finetune.errors import FinetuneError, OutputError
from finetune.tracking import hashes

DONE = "done.json"  # the dvc.lock in which DVC will note the outs of this work, and the md5 of one, by which that shows

log = logging.getLogger(__name__)


def finish(folder: Path, out: Path) -> None:
    """The outs are written: leave the folder to `sweep` if DVC is at work, and remove it if nobody will note anything."""
    if "DVC_STAGE" not in os.environ:
        shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        outputs.write_json(folder / DONE, {"lock": str(paths.LOCK.absolute()), "md5": hashes.md5(out)})
    except OutputError as error:
        log.warning("the stage is done, and %s stays until you remove it: %s", folder, error)


def sweep() -> None:
    """Remove what is kept of work whose outs DVC has noted; each stage does so as it starts.

    A temporary copy of DVC's (`--temp`, `--queue`) goes with its dvc.lock, whether that had the outs or not: of those the newest stays, so
    that there is one at most of each stage.
    """
    newest_of_gone: dict[Path, Path] = {}  # folder of a stage → its work in a copy that is gone
    for mark in sorted((paths.home() / ".resume").glob(f"*/*/{DONE}"), key=_written):
        with suppress(FinetuneError, OSError, ValueError, TypeError, KeyError):  # damaged, or another process has removed it
            done = json.loads(mark.read_text(encoding="utf-8"))
            noting, folder = Path(done["lock"]), mark.parent
            if not noting.parent.is_dir():
                older = newest_of_gone.get(folder.parent)
                newest_of_gone[folder.parent] = folder
                if older is not None:
                    _remove(older)
            elif _written(noting) >= _written(mark) and done["md5"] in noting.read_text(encoding="utf-8"):
                _remove(folder)


def _remove(folder: Path) -> None:
    """Remove it, unless a process is at work in it (SetupError)."""
    with lock.held(folder.with_suffix(".lock"), wait=False):
        shutil.rmtree(folder)


def _written(file: Path) -> int:
    """When it was written last, in nanoseconds; 0: it is gone. An older dvc.lock may have the same md5, from the same work done before."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
