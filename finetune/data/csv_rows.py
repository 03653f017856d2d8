"""CSV and TSV → rows of text, as the header names their fields."""

import csv
import io
from collections.abc import Iterable, Iterator

from finetune.data.rows import LIMIT, ROWS, SIZE, Chunk, Fault, File, Row, not_utf_8, quoted, refuse, whole_lines


def records(file: File, delimiter: str) -> Iterator[Chunk]:
    """Cut a file into the fields of its records: a line says nothing, as a quoted text may go over several."""
    csv.field_size_limit(LIMIT)  # of the process; its own 128 kB are shorter than some answers
    consumed: list[str] = []  # the lines of the row that is being read
    reader = csv.reader(_kept(_text_lines(file), consumed), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    first, rows, size = 1, list[list[str] | tuple[str, str]](), 0
    while True:
        consumed.clear()
        row: list[str] | tuple[str, str]
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            row = (str(error), "".join(consumed))
        if not row:
            continue
        if header is None:
            header = _header(file, row)
            continue
        rows.append(row)
        size += sum(map(len, consumed))
        if size >= SIZE or len(rows) == ROWS:
            yield Chunk(file.place, first, "fields", (header, rows))
            first, rows, size = first + len(rows), [], 0
    if rows:
        yield Chunk(file.place, first, "fields", (header, rows))


def _text_lines(file: File) -> Iterator[str]:
    """Yield lines with their ends; a byte that is not UTF-8 becomes half of a surrogate pair, so that it stays in its row."""
    for block in whole_lines(file):
        yield from io.StringIO(block.decode(errors="surrogateescape"), newline="")


def _kept(lines: Iterable[str], consumed: list[str]) -> Iterator[str]:
    for line in lines:
        consumed.append(line)
        yield line


def _header(file: File, row: list[str] | tuple[str, str]) -> list[str]:
    if isinstance(row, tuple):
        refuse(file.place, f"the header is not CSV ({row[0]}), expected the names of the fields; mend the first line")
    if not all(name.strip() for name in row):
        place = next(place for place, name in enumerate(row, 1) if not name.strip())
        refuse(file.place, f"field {place} of the header has no name, expected a name for each; name it")
    if len(set(row)) < len(row):
        twice = next(name for name in row if row.count(name) > 1)
        refuse(file.place, f"the header names {quoted(twice)} twice, expected each name once; rename one of them")
    if not _is_text(row):
        refuse(file.place, "the header is not UTF-8, expected UTF-8; convert the file to UTF-8")
    return row


def _is_text(fields: list[str]) -> bool:
    joined = "".join(fields)
    if joined.isascii():
        return True
    try:
        joined.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode_fields(chunk: Chunk) -> Iterator[Row | Fault]:
    """Yield each record with the header's names."""
    header, rows = chunk.payload
    for number, row in enumerate(rows, chunk.first):
        if isinstance(row, tuple):
            error, text = row
            message = f"not CSV ({error}), expected fields of which those with a quotation mark are quoted; mend the row"
            yield Fault(number, "not CSV", message, text.encode(errors="surrogateescape"))
        elif not _is_text(row):
            raw = ",".join(row).encode(errors="surrogateescape")
            try:
                raw.decode()
            except UnicodeDecodeError as error:
                yield not_utf_8(number, error)
        elif len(row) != len(header):
            message = (
                f"found {len(row)} field{'s' * (len(row) != 1)}, expected the header's {len(header)} ({', '.join(header)}); mend the row"
            )
            yield Fault(number, "field count", message, ",".join(row).encode())
        else:
            yield Row(number, dict(zip(header, row, strict=True)))
