"""Outputs that are whole or not there: written beside their place, flushed, then renamed.

A stage that dies, is interrupted or finds the disk full leaves nothing that DVC could take for a result.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import DataError, OutputError

FULL = "{}: the disk is full, so nothing of it was kept; make room and run the same command again"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)  # or a quota used up


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it takes the place of `path`, else it is removed.

    Raises:
        OutputError: the disk is full or may not be written.
    """
    part = _part(path)
    _clear(part)
    with _whole(path, part):
        part.mkdir(parents=True)
        yield part
        for file in sorted(part.rglob("*")):
            if file.is_file():
                file.chmod(part.stat().st_mode & 0o666)  # safetensors writes for its owner alone, whatever the umask
                sync(file)
        _clear(path)
        part.rename(path)


@contextmanager
def file(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to; on success the file takes the place of `path`, else it is removed.

    Raises:
        OutputError: the disk is full or may not be written.
    """
    part = _part(path)
    with _whole(path, part):
        part.parent.mkdir(parents=True, exist_ok=True)
        yield part
        sync(part)
        part.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends."""
    with file(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys: the same value gives the same bytes. NaN and infinity are refused (ValueError)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write one JSON object a line, keys in the order given; return how many."""
    count = 0
    with file(path) as part, part.open("w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def refuse_missing(*files: Path) -> None:
    """Raise one DataError that names every file of an earlier stage that is not there."""
    missing = [f"{file}: found no such file, expected what an earlier stage writes there" for file in files if not file.is_file()]
    if missing:
        raise DataError("a stage before this one has not run:", missing, "run `dvc repro`, which runs what is missing and then this stage")


def read_json(path: Path) -> Any:
    """Read a JSON file that a stage wrote.

    Raises:
        DataError: it is not there.
    """
    refuse_missing(path)
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a JSONL file that a stage wrote; files from users go through finetune.data.reading, which checks them.

    Raises:
        DataError: it is not there.
    """
    refuse_missing(path)
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@dataclass(frozen=True)
class Lines:
    """A stretch of a JSONL file, small enough to hold."""

    path: Path
    first: int
    """Number of its first line, from 1."""
    count: int
    start: int
    """Its first byte in the file."""
    size: int

    def __len__(self) -> int:
        return self.count

    def read(self) -> list[dict[str, Any]]:
        """Return the lines' values."""
        with self.path.open("rb") as opened:
            opened.seek(self.start)
            return [json.loads(line) for line in opened.read(self.size).splitlines()]


def divide(path: Path, size: int) -> list[Lines]:
    """Divide a JSONL file that a stage wrote into stretches of `size` lines, holding none of it.

    Raises:
        DataError: it is not there.
    """
    refuse_missing(path)
    found: list[Lines] = []
    start = end = first = count = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            first, count, end = first or number, count + 1, end + len(line)
            if count == size:
                found.append(Lines(path, first, count, start, end - start))
                start, first, count = end, 0, 0
    return [*found, Lines(path, first, count, start, end - start)] if count else found


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Within the block a full disk, or one that may not be written, is an OutputError that names `path`."""
    try:
        yield
    except Exception as error:
        if disk_is_full(error):
            raise OutputError(FULL.format(path)) from error
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise OutputError(
                f"{path}: may not be written ({error.strerror}); mend the permissions and run the same command again"
            ) from error
        raise


def disk_is_full(error: BaseException) -> bool:
    """Whether this is what writing to a full disk, or over a quota, raises."""
    if isinstance(error, OSError):
        return error.errno in FULL_DISK
    return any(f"(os error {number})" in str(error) for number in FULL_DISK)  # how safetensors says it, which writes from Rust


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


@contextmanager
def _whole(path: Path, part: Path) -> Iterator[None]:
    with explained(path):
        try:
            yield
        except BaseException:
            _clear(part)
            raise


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
