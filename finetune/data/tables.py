"""Tables of token ids as parquet: the same rows give the same bytes."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finetune.outputs import refuse_missing

ROW_GROUP = 4096  # rows in memory at once, and rows that a reader gets at once

IDS = pa.list_(pa.int32())
SFT = pa.schema([("id", pa.string()), ("slice", pa.string()), ("input_ids", IDS), ("labels", IDS)])
PREFERENCE = pa.schema([("id", pa.string()), ("slice", pa.string()), ("prompt_ids", IDS), ("chosen_ids", IDS), ("rejected_ids", IDS)])


def write(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write the rows and return how many; nothing but rows, schema and pyarrow's version decides the bytes."""
    return write_batches(path, schema, _tables(rows, schema))


def write_batches(path: Path, schema: pa.Schema, batches: Iterable[pa.Table]) -> int:
    """Write tables one after the other and return how many rows they have; how these are divided among them changes no byte."""
    count = 0
    waiting: list[pa.Table] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, schema, compression="zstd", version="2.6", store_schema=False) as writer:
        for batch in batches:
            waiting.append(batch)
            count += len(batch)
            while sum(map(len, waiting)) >= ROW_GROUP:
                whole = pa.concat_tables(waiting)
                writer.write_table(whole.slice(0, ROW_GROUP).combine_chunks())
                waiting = [whole.slice(ROW_GROUP)]
        if any(map(len, waiting)) or not count:
            writer.write_table(pa.concat_tables([schema.empty_table(), *waiting]).combine_chunks())
    return count


def table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a table, or some columns of it.

    Raises:
        DataError: it is not there.
    """
    refuse_missing(path)
    return pq.read_table(path, columns=columns)


def read(path: Path) -> list[dict[str, Any]]:
    """Read all rows of a table. Raises DataError as above."""
    return table(path).to_pylist()  # type: ignore[no-any-return]


def _tables(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    left = iter(rows)
    while group := list(islice(left, ROW_GROUP)):
        yield pa.Table.from_pylist(group, schema=schema)
