"""Results of single items, written as they come: what a stage that died need not do again."""

import errno
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Refuse = Callable[[OSError], None]
SYNC = 1.0  # seconds between two flushes to the disk: only a power cut loses what is not flushed, and each takes milliseconds


class Items(Protocol):
    """Where results of items are kept."""

    def each(self, items: Sequence[Item], work: Callable[[Item], Any]) -> Iterator[Any]:
        """Yield the result of each item, in their order."""
        ...


class Nowhere:
    """Keeps nothing."""

    def each(self, items: Sequence[Item], work: Callable[[Item], Any]) -> Iterator[Any]:
        """Yield the result of each item, in their order."""
        return map(work, items)


def nowhere(_: str) -> Items:
    """Where results are kept that nobody will ask for again."""
    return Nowhere()


class Journal:
    """A JSONL file: one line an item, in their order, each with its checksum; what follows a damaged line is done again."""

    def __init__(self, path: Path, not_written: Refuse) -> None:
        """not_written: what to do when a result can't be written; if it returns, the work goes on without."""
        self._path, self._not_written = path, not_written

    def each(self, items: Sequence[Item], work: Callable[[Item], Any]) -> Iterator[Any]:
        """Yield the result of each item, in their order: as it was noted, or from the work, whose results must be JSON's own values."""
        found, size = self._read()
        del found[len(items) :]
        if found:
            log.info("%s: %d of %d are there from before", self._path.stem, len(found), len(items))
        yield from found
        opened = self._open(size)
        synced = time.monotonic()
        try:
            for item in items[len(found) :]:
                result = work(item)
                if opened is not None:
                    try:
                        _write(opened, _line(result))
                        if time.monotonic() - synced > SYNC:
                            os.fsync(opened)
                            synced = time.monotonic()
                    except OSError as error:
                        os.close(opened)
                        opened = None
                        self._not_written(error)
                yield result
        finally:
            if opened is not None:
                os.close(opened)

    def _read(self) -> tuple[list[Any], int]:
        """The results up to the first damaged line, and how many bytes they take."""
        found: list[Any] = []
        size = 0
        if not self._path.is_file():
            return found, size
        with self._path.open("rb") as lines:
            for line in lines:
                checksum, _, text = line.partition(b" ")
                if not line.endswith(b"\n") or checksum != _checksum(text):
                    log.warning("%s: item %d is damaged and is done again, with those after it", self._path.name, len(found) + 1)
                    break
                found.append(json.loads(text))
                size += len(line)
        return found, size

    def _open(self, size: int) -> int | None:
        """The file, cut to its good part, to append to."""
        try:
            opened = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.ftruncate(opened, size)
        except OSError as error:
            self._not_written(error)
            return None
        return opened


def _write(opened: int, line: bytes) -> None:
    if os.write(opened, line) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _line(result: Any) -> bytes:
    text = json.dumps(result).encode() + b"\n"
    return _checksum(text) + b" " + text


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)
