"""Rows of files and the chunks that they come in, and the bytes of a file: what the readers of all formats share."""

import codecs
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

import pyarrow as pa

from finetune.errors import DataError

SIZE = 1 << 20  # bytes in a chunk, about: a worker is busy for 50 ms, and ten of them in flight are no memory
ROWS = 2_000  # at most in a chunk of a format whose rows are counted
LIMIT = 1 << 26  # characters in one row: a quotation mark that is never closed, or a file of one line, must not fill the memory
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class File:
    """A file, and what messages and chunks call it: never a path that only one machine has."""

    path: Path
    place: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that are not decoded yet; it is small and can be sent to another process."""

    place: str  # the file, as messages name it
    first: int  # the number of its first row
    kind: Literal["lines", "array", "fields", "batch", "values"]
    payload: Any  # lines: bytes; array: texts; fields: the header and lists of texts; batch: an Arrow stream; values: what was read
    last: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A row that could be read: whatever it holds, an object as a rule."""

    number: int
    value: Any


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that could not be read: the rule it broke, what is said of it after its place, and its bytes.

    The bytes are, of CSV, its fields joined; of a table, the fields that can be read, as JSON.
    """

    number: int
    rule: str
    message: str
    raw: bytes


def refuse(place: str, problem: str, cause: BaseException | None = None) -> NoReturn:
    """Raise the DataError that says of a place what is wrong with it."""
    raise DataError("the records can't be used:", [f"{place}: {problem}"]) from cause


def first_line(error: BaseException) -> str:
    """What an error says; its class, if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def quoted(name: str) -> str:
    """A name as messages show it, which can always be printed."""
    return json.dumps(name, ensure_ascii=False).encode(errors="backslashreplace").decode()


def not_utf_8(number: int, error: UnicodeDecodeError) -> Fault:
    """The fault of a row whose bytes are no text."""
    found = f"byte {error.start + 1} is 0x{error.object[error.start]:02x}"
    return Fault(number, "not UTF-8", f"{found}, expected UTF-8; convert the file to UTF-8", error.object)


@contextmanager
def opened(file: File) -> Iterator[BinaryIO]:
    """Open a file; whatever the system says against it, now or while it is read, comes out as what to do."""
    try:
        with file.path.open("rb") as raw:
            yield raw
    except FileNotFoundError as error:
        refuse(file.place, "no such file, expected records; put it there, or name another in data.sources", error)
    except IsADirectoryError as error:
        refuse(file.place, "is a folder, expected a file; name its files in data.sources", error)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        refuse(file.place, f"is not what its suffix says ({first_line(error).lower()}); copy the file again, or rename it", error)
    except OSError as error:
        if error.errno is None:  # Arrow's own, not the system's
            refuse(file.place, f"is damaged or cut off ({first_line(error).lower()}), expected a whole file; copy it again", error)
        refuse(
            file.place, f"can't be read ({(error.strerror or str(error)).lower()}), expected a file of yours; see who may read it", error
        )


def blocks(file: File) -> Iterator[bytes]:
    """Yield the bytes of a file of text, decompressed, 1 MB at a time, without the mark that some editors put before UTF-8."""
    compression = COMPRESSIONS.get(file.path.suffix.lower())
    with opened(file) as raw:
        stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), compression) if compression else raw
        block = stream.read(SIZE)
        if not block:
            refuse(file.place, "is empty, expected records; copy the file again, or drop it from data.sources")
        if block.startswith(UTF_16):
            refuse(file.place, "is UTF-16, expected UTF-8; convert the file to UTF-8")
        block = block.removeprefix(codecs.BOM_UTF8)
        while block:
            yield block
            block = stream.read(SIZE)


def whole_lines(file: File) -> Iterator[bytes]:
    """Yield blocks of whole lines; only the last can lack the newline at its end."""
    parts: list[bytes] = []
    size = 0
    for block in blocks(file):
        cut = block.rfind(b"\n") + 1
        if cut:
            yield b"".join([*parts, block[:cut]])
            parts, size = [], 0
        parts.append(block[cut:])
        size += len(block) - cut
        if size > LIMIT:
            refuse(file.place, f"a line is longer than {LIMIT >> 20} MB, expected a record a line; break the file into lines")
    if size:
        yield b"".join(parts)
