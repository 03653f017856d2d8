"""Two parquet files compared column by column, and row by row where they part."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from finetune.proving.difference import Difference, both, shown
from finetune.proving.values import compare as compare_values

ROWS = 4096  # rows held at once


def compare(name: str, first: Path, second: Path) -> Difference | None:
    """The first row that parts, and its first column that does; None: all cells are the same."""
    with pq.ParquetFile(first) as one, pq.ParquetFile(second) as other:
        if not one.schema_arrow.equals(other.schema_arrow, check_metadata=True):
            return Difference(name, "columns", *both(_columns, one, other))
        met, parted, rows = None, 0, 0
        for row, (a, b) in enumerate(zip_longest(_rows(one), _rows(other))):
            rows = row + 1
            if a is None or b is None:
                found = Difference(name, f"row {row}", *both(lambda cells: None if cells is None else shown(cells), a, b))
            elif inside := compare_values(name, a, b):
                found = replace(inside, at=f"row {row}, column {inside.at}")
            else:
                continue
            parted, met = parted + 1, met or found
    return None if met is None else replace(met, parted=parted, of=rows, unit="rows", largest_at=None)


def _rows(file: pq.ParquetFile) -> Iterator[dict[str, Any]]:
    """One at a time: two files with the same rows may be cut into other batches."""
    for batch in file.iter_batches(ROWS):
        yield from batch.to_pylist()


def _columns(file: pq.ParquetFile) -> str:
    return shown(", ".join(f"{column.name}: {column.type}" for column in file.schema_arrow))
