"""The folder of one piece of work: its checkpoints, each whole or not there, and what it has of single items."""

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from finetune import paths
from finetune.checkpoints import noted
from finetune.checkpoints.journal import Items, Journal, Nowhere
from finetune.checkpoints.key import key
from finetune.checkpoints.lock import held
from finetune.config.schema import Config, Resume
from finetune.errors import OutputError
from finetune.outputs import disk_is_full, explained, sha256, sync
from finetune.training import world

COMPLETE = "complete.json"  # written last: file → sha256
STEP = re.compile(r"step-(\d+)")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """What is kept of one piece of work; folder None: nothing is."""

    folder: Path | None
    settings: Resume

    def newest(self) -> Path | None:
        """Return the newest checkpoint whose files are what was written; damaged ones are removed, each with a line."""
        for checkpoint in reversed(self._checkpoints()):
            damage = _damage(checkpoint)
            if damage is None:
                return checkpoint
            log.warning("the checkpoint %s is damaged and is skipped: %s", checkpoint, damage)
            shutil.rmtree(checkpoint)
        return None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Have a checkpoint written into a folder that appears when it is whole; older ones than the newest `save_total_limit` go.

        Everything is on the disk before the folder gets its name, so that a power cut leaves it whole or not there.

        Raises:
            OutputError: it can't be written; a full disk only where resume.disk_full says stop.
        """
        if self.folder is None or (self.folder / f"step-{step}").is_dir():
            return
        part, checkpoint = self.folder / f".step-{step}.part", self.folder / f"step-{step}"
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            write(part)
            _complete(part)
            part.rename(checkpoint)
            sync(self.folder)
        except Exception as error:
            shutil.rmtree(part, ignore_errors=True)
            if not isinstance(error, OSError) and not disk_is_full(error):
                raise
            self._not_written(error)
            return
        for old in self._checkpoints()[: -self.settings.save_total_limit]:
            shutil.rmtree(old)

    def has(self, name: str) -> bool:
        """Whether there are results of items under this name already."""
        return self.folder is not None and (self.folder / f"{name}.jsonl").is_file()

    def items(self, name: str) -> Items:
        """Return where the results of items are kept, under a name of their own."""
        return Nowhere() if self.folder is None else Journal(self.folder / f"{name}.jsonl", self._not_written)

    def _checkpoints(self) -> list[Path]:
        """The checkpoints, the oldest first."""
        if self.folder is None or not self.folder.is_dir():
            return []
        found = ((STEP.fullmatch(path.name), path) for path in self.folder.iterdir())
        return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]

    def _not_written(self, error: Exception) -> None:
        """It could not be written: go on without if the disk is full, or stop; whatever was kept before stays."""
        last = self._checkpoints()[-1:]
        before = f"the last one, {last[0].name}, stays" if last else "there is none before it"
        full = disk_is_full(error)
        if self.settings.disk_full == "stop" or not full:
            mend = "Make room, or set resume.disk_full=continue," if full else "Mend that"
            raise OutputError(
                f"{self.folder}: a checkpoint could not be written ({error}); {before}. {mend} and run the same command again"
            ) from error
        log.warning("%s: a checkpoint could not be written, because the disk is full; %s, and the stage goes on", self.folder, before)


@contextmanager
def work(name: str, cfg: Config, inputs: Sequence[Path], out: Path) -> Iterator[Kept]:
    """Hold the folder of this piece of work while it is done; after the block it goes once DVC noted the outs, and stays when that raises.

    A process that does the very same work elsewhere, in a temporary copy of DVC's, is waited for.

    name: of the stage, as DVC addresses it. inputs: files and folders that it reads. out: a file that it has written at the end.

    Raises:
        OutputError: the disk is full, or may not be written.
    """
    if cfg.resume.save_seconds is None:
        yield Kept(None, cfg.resume)
        return
    above = paths.home() / ".resume" / name
    folder = above / key(cfg, inputs)
    kept = Kept(folder, cfg.resume)
    if not world.main_process():  # which only reads, what the main process has found whole
        yield kept
        return
    with held(folder.with_suffix(".lock")):
        with explained(folder):
            folder.mkdir(exist_ok=True)
        (folder / noted.DONE).unlink(missing_ok=True)
        for part in folder.glob(".step-*.part"):
            shutil.rmtree(part)
        others = [path for path in above.iterdir() if path.is_dir() and path != folder]
        if others:
            runs = f"{len(others)} unfinished run{'s' * (len(others) > 1)}"
            log.info("%s with other settings, data, code or packages: kept in %s", runs, above)
        try:
            yield kept
        except BaseException:
            with suppress(OSError):  # there is something in it
                folder.rmdir()
            raise
        noted.finish(folder, out)


def _complete(part: Path) -> None:
    """Bring all files of a folder to the disk, then the list of their hashes."""
    hashes = {}
    for file in sorted(part.iterdir()):
        hashes[file.name] = sha256(file)
        sync(file)
    (part / COMPLETE).write_text(json.dumps(hashes, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    sync(part / COMPLETE)
    sync(part)


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None if its files are those that were written.

    Raises:
        OutputError: it can't be read, which says nothing of what is in it.
    """
    try:
        hashes = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
        for name, expected in hashes.items():
            found = sha256(checkpoint / name)
            if found != expected:
                return f"{name} has sha256 {found[:12]}…, expected {expected[:12]}…"
    except (FileNotFoundError, ValueError, AttributeError) as error:
        return f"{error}"
    except OSError as error:
        raise OutputError(f"{checkpoint}: can't be read ({error}); mend that or remove it, and run the same command again") from error
    return None
