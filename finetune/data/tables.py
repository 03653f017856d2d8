"""Tables of token ids as parquet: the same rows give the same bytes."""

from collections.abc import Iterable, Mapping
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
    count = 0
    group: list[Mapping[str, Any]] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, schema, compression="zstd", version="2.6", store_schema=False) as writer:
        for row in rows:
            group.append(row)
            count += 1
            if len(group) == ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                group = []
        if group or not count:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
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
