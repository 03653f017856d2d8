"""Parquet and Arrow → rows, with the values that Arrow makes of them: times and bytes too, which JSON doesn't have."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from pyarrow import ipc
from pyarrow.parquet import ParquetFile

from finetune.data.rows import ROWS, SIZE, Chunk, Fault, File, Row, first_line, opened, quoted, refuse


def parquet(file: File) -> Iterator[Chunk]:
    """Cut a Parquet file; one row group is in memory at most."""
    with opened(file) as raw:
        table = ParquetFile(raw)
        yield from _batches(file, table.schema_arrow, table.iter_batches(batch_size=ROWS))


def arrow(file: File) -> Iterator[Chunk]:
    """Cut a file in Arrow's file format, which is Feather's too, or in that of its streams."""
    with opened(file) as raw:
        begins = raw.read(6)
        raw.seek(0)
        if begins == b"ARROW1":
            reader = ipc.open_file(raw)
            yield from _batches(file, reader.schema, (reader.get_batch(number) for number in range(reader.num_record_batches)))
        else:
            stream = ipc.open_stream(raw)
            yield from _batches(file, stream.schema, stream)


def _batches(file: File, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[Chunk]:
    if len(set(schema.names)) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        refuse(file.place, f"two columns are called {quoted(twice)}, expected each name once; rename one of them")
    first = 1
    for batch in batches:
        _check(batch)
        step = max(1, min(ROWS, batch.num_rows * SIZE // max(1, batch.nbytes)))
        for start in range(0, batch.num_rows, step):
            part = batch.slice(start, step)
            yield Chunk(file.place, first, "batch", _sent(part))
            first += part.num_rows


def _check(batch: pa.RecordBatch) -> None:
    """Look at all offsets and lengths: those of a damaged file would make Arrow read beyond its buffers, which kills the process."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        if not _is_text_fault(error):  # a text that is not UTF-8 is its row's fault alone
            raise


def _is_text_fault(error: Exception) -> bool:
    return isinstance(error, UnicodeDecodeError) or "utf8" in str(error).lower()


def _sent(batch: pa.RecordBatch) -> bytes:
    """The batch as a stream of its own: pickled, a slice would take the whole batch along."""
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def decode_batch(chunk: Chunk) -> Iterator[Row | Fault]:
    """Yield the rows of a batch.

    Raises:
        DataError: the file is damaged in a way that a text that is not UTF-8 had hidden.
    """
    with ipc.open_stream(chunk.payload) as stream:
        batch = stream.read_next_batch()
    values: list[Any] | None
    try:
        batch.validate(full=True)
        values = batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):  # text that is not UTF-8, a time that Python can't hold
        values = None
    if values is None:
        for number, row in enumerate((batch.slice(place, 1) for place in range(batch.num_rows)), chunk.first):
            yield _row(chunk.place, number, row)
    else:
        for number, value in enumerate(values, chunk.first):
            yield Row(number, value)


def _row(place: str, number: int, row: pa.RecordBatch) -> Row | Fault:
    """A row of a batch in which not all can be read; its fault has the fields that can be, as JSON."""
    value: dict[str, Any] = {}
    fault: tuple[str, str] | None = None
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            column.validate(full=True)
            (value[name],) = column.to_pylist()
        except pa.ArrowException as error:
            if not _is_text_fault(error):
                refuse(f"{place}:{number}", f"is damaged ({first_line(error)}), expected a whole file; copy it again", error)
            fault = "not UTF-8", f"{quoted(name)} is not UTF-8, expected UTF-8"
        except (ValueError, OverflowError):
            fault = "not readable", f"{quoted(name)} can't be read, expected text, numbers, or times of the years 1 to 9999"
    if fault is None:
        return Row(number, value)
    rule, message = fault
    return Fault(number, rule, f"{message}; write the file again", json.dumps(value, default=str).encode())
