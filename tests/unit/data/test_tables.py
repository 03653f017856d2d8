"""Parquet tables: the same rows give the same bytes, in row groups, empty ones too."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.data import tables
from finetune.errors import DataError

ROWS = [{"id": str(number), "slice": "all", "input_ids": [1, number], "labels": [-100, number]} for number in range(10)]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    tables.write(tmp_path / "one.parquet", tables.SFT, ROWS)
    tables.write(tmp_path / "other.parquet", tables.SFT, iter(ROWS))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "other.parquet").read_bytes()


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    assert tables.write(tmp_path / "table.parquet", tables.SFT, ROWS) == 10
    assert tables.read(tmp_path / "table.parquet") == ROWS


def test_many_rows_are_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP", 4)
    tables.write(tmp_path / "table.parquet", tables.SFT, ROWS)
    assert pq.ParquetFile(tmp_path / "table.parquet").num_row_groups == 3
    assert tables.read(tmp_path / "table.parquet") == ROWS


@pytest.mark.parametrize("sizes", [(10,), (4, 4, 2), (1, 0, 8, 1), (3, 7)])
def test_how_rows_are_divided_among_tables_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP", 4)
    tables.write(tmp_path / "rows.parquet", tables.SFT, ROWS)
    rows = iter(ROWS)
    batches = [pa.Table.from_pylist([next(rows) for _ in range(size)], schema=tables.SFT) for size in sizes]
    assert tables.write_batches(tmp_path / "batches.parquet", tables.SFT, batches) == 10
    assert (tmp_path / "batches.parquet").read_bytes() == (tmp_path / "rows.parquet").read_bytes()


def test_no_rows_give_an_empty_table_with_its_columns(tmp_path: Path) -> None:
    assert tables.write(tmp_path / "table.parquet", tables.PREFERENCE, []) == 0
    assert pq.read_schema(tmp_path / "table.parquet").names == tables.PREFERENCE.names


def test_a_table_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"table\.parquet: found no such file, expected what .*\nrun `dvc repro`"):
        tables.read(tmp_path / "table.parquet")
