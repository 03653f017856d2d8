"""What a run had to say, as lines in a folder: written by the stage, read by the sender, removed when MLflow has it all.

.tracking/spool/<run>/events.jsonl     one event a line, the first is `start`; flushed line by line, so a killed stage loses none
                      artifacts/<n>/   copies of files, because the originals may change or vanish
                      sent.json        the sender's: how far it got
                      trouble          the sender's: why it got no further
                      answer.json      the sender's: what a stage asked for (`ask`)
"""

import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.tracking.process import Process

log = logging.getLogger(__name__)
Event = dict[str, Any]


def folder(home: Path) -> Path:
    """Where the spools of a repository are."""
    return home / ".tracking" / "spool"


def now() -> int:
    """Milliseconds since 1970, MLflow's unit."""
    return time.time_ns() // 1_000_000


class Writer:
    """A stage's side. Nothing here raises or waits: a stage must not fail because its tracking does."""

    def __init__(self, home: Path, stage: str, header: Mapping[str, Any]) -> None:
        self._file: int | None = None
        self._artifacts = 0
        self.path = folder(home) / f"{now()}-{stage}-{os.getpid()}"  # sorts by time: stages are sent in their order
        try:
            part = self.path.with_name(f".{self.path.name}")
            part.mkdir(parents=True)
            self._file = os.open(part / "events.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self.add("start", **header)
            if self._file is not None:
                part.rename(self.path)  # the sender sees a spool with its header or none
        except OSError as error:
            self._give_up(error)

    def add(self, kind: str, **fields: Any) -> None:
        """Append one event; one write call, so that lines of several threads don't mix."""
        if self._file is None:
            return
        try:
            line = json.dumps({"event": kind, "at": now(), **fields}, default=str) + "\n"
            encoded = line.encode()
            if os.write(self._file, encoded) < len(encoded):  # the disk took a part: a cut line must stay the last
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except (OSError, ValueError, TypeError) as error:
            self._give_up(error)

    def keep(self, name: str, fill: Callable[[Path], object], **fields: Any) -> None:
        """Have a file or folder of this name written beside the events, then say so."""
        if self._file is None:
            return
        self._artifacts += 1
        kept = Path("artifacts") / str(self._artifacts) / name
        try:
            (self.path / kept).parent.mkdir(parents=True)
            fill(self.path / kept)
        except FileNotFoundError as error:
            log.warning("%s is not there, so MLflow will not have it (%s)", name, error.strerror)
        except OSError as error:
            self._give_up(error)
        else:
            self.add("artifact", path=kept.as_posix(), **fields)

    def close(self) -> None:
        """No more events."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _give_up(self, error: Exception) -> None:
        log.warning("tracking stopped (%s); the stage goes on, and MLflow will have of it what came before", error)
        self.close()


@dataclass
class Sent:
    """How far the sender got with a spool; saved after each step, so that a killed sender repeats one step at most."""

    offset: int = 0
    run: str | None = None
    parent: str | None = None
    ended: bool = False


class Spool:
    """The sender's side of one spool."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._events = path / "events.jsonl"
        with self._events.open("rb") as lines:
            self.header: Event = json.loads(lines.readline())
        self.process = Process(**self.header["process"])
        self.sent = Sent()
        if (path / "sent.json").exists():
            self.sent = Sent(**json.loads((path / "sent.json").read_text()))

    def unsent(self) -> list[tuple[Event, int]]:
        """Whole lines that were not sent yet, each with the offset behind it. A line cut off by the death of its writer is left out."""
        with self._events.open("rb") as lines:
            lines.seek(self.sent.offset)
            found = []
            offset = self.sent.offset
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                offset += len(line)
                try:
                    found.append((json.loads(line), offset))
                except ValueError:
                    log.warning("%s: a line before byte %d is damaged and is left out", self.path.name, offset)
            return found

    def last_change(self) -> int:
        """When the stage last wrote, in milliseconds."""
        return int(self._events.stat().st_mtime * 1000)

    def save(self) -> None:
        """Note how far the sender got."""
        write(self.path / "sent.json", json.dumps(vars(self.sent)))

    def trouble(self, sentence: str | None) -> None:
        """Leave word why nothing is sent, or take it back."""
        if sentence is None:
            (self.path / "trouble").unlink(missing_ok=True)
        else:
            write(self.path / "trouble", sentence)

    def remove(self) -> None:
        """Everything was sent. `sent.json` goes last: a sender killed here finds nothing left to send, instead of everything."""
        shutil.rmtree(self.path / "artifacts", ignore_errors=True)
        self._events.unlink()
        shutil.rmtree(self.path)


def waiting(home: Path) -> list[Path]:
    """Folders of the spools that are not wholly sent, oldest first."""
    try:
        return sorted(path for path in folder(home).iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []


def write(path: Path, text: str) -> None:
    """Replace a small file whole."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
