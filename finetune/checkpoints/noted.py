"""When what a stage kept may go: not before DVC has noted the outs, which it reads and copies after the stage has ended.

If it dies there, or finds the disk full, it removes the outs and starts the stage again, which then has its last checkpoint still.
"""

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

from finetune import outputs, paths
from finetune.checkpoints import lock
from finetune.errors import FinetuneError, OutputError

DONE = "done.json"  # an out → its md5, by which dvc.lock shows that DVC has noted the outs of this very work


def finish(folder: Path, out: Path) -> None:
    """The outs are written: leave the folder to `sweep` if DVC is at work, and remove it if nobody will note anything."""
    if "DVC_STAGE" in os.environ:
        with suppress(OutputError), out.open("rb") as opened:
            md5 = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            outputs.write_json(folder / DONE, {out.as_posix(): md5})
            return
    shutil.rmtree(folder)


def sweep() -> None:
    """Remove what is kept of work whose outs DVC has noted; each stage does so as it starts."""
    marks = sorted((paths.home() / ".resume").glob(f"*/*/{DONE}"))
    noted = paths.LOCK.read_text(encoding="utf-8") if marks and paths.LOCK.is_file() else ""
    for mark in marks:
        with suppress(FinetuneError, OSError, ValueError):  # another process is at work there, or has removed it
            if any(md5 in noted for md5 in json.loads(mark.read_text(encoding="utf-8")).values()):
                with lock.held(mark.parent.with_suffix(".lock"), wait=False):
                    shutil.rmtree(mark.parent)
