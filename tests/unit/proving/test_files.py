"""The files of two outs: which part, where, and what is said of those that can't be read."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.proving import files
from finetune.proving.difference import Difference


def compared(folder: Path, name: str, first: bytes, second: bytes) -> Difference | None:
    """Two files under names as DVC's cache has them, which tell nothing of what they are."""
    for which, content in (("aa", first), ("bb", second)):
        (folder / which).write_bytes(content)
    found = files.compare("out", {name: folder / "aa"}, {name: folder / "bb"})
    return found[0] if found else None


def jsonl(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(folder: Path, **columns: Any) -> bytes:
    pq.write_table(pa.table(columns), folder / "t")
    return (folder / "t").read_bytes()


def test_the_same_bytes_are_no_difference(tmp_path: Path) -> None:
    assert compared(tmp_path, "a.json", b"{", b"{") is None


def test_files_that_only_one_has_are_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    found = files.compare("out", {"a": tmp_path / "x", "b": tmp_path / "x"}, {"b": tmp_path / "x", "c": tmp_path / "x"})
    assert found == [Difference("out/a", "the file", "there", None), Difference("out/c", "the file", None, "there")]


def test_an_out_that_is_a_file_has_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"r": 1}')
    (tmp_path / "b").write_text('{"r": 2}')
    (found,) = files.compare("reports/train.json", {"": tmp_path / "a"}, {"": tmp_path / "b"})
    assert (found.file, found.at) == ("reports/train.json", "r")


def test_of_json_lines_the_first_line_that_parts_is_told_with_its_key(tmp_path: Path) -> None:
    first = jsonl({"id": 1, "text": "a"}, {"id": 2, "score": 0.25, "text": "b"}, {"id": 3, "text": "c"})
    second = jsonl({"id": 1, "text": "a"}, {"id": 2, "score": 0.5, "text": "b"}, {"id": 4, "text": "c"})
    found = compared(tmp_path, "a.jsonl", first, second)
    assert found == Difference("out/a.jsonl", "line 2, score", "0.25", "0.5", 2, 3, "lines", 0.25, "score")


def test_a_line_more_is_told(tmp_path: Path) -> None:
    found = compared(tmp_path, "a.jsonl", jsonl({"id": 1}), jsonl({"id": 1}, {"id": 2}))
    assert found == Difference("out/a.jsonl", "line 2", None, '{"id": 2}', 1, 2, "lines")


def test_keys_in_another_order_are_told_as_the_line(tmp_path: Path) -> None:
    found = compared(tmp_path, "a.jsonl", b'{"a": 1, "b": 2}\n', b'{"b": 2, "a": 1}\n')
    assert found is not None
    assert (found.at, found.first, found.second) == ("line 1", '{"a": 1, "b": 2}', '{"b": 2, "a": 1}')


def test_of_a_table_the_row_and_column_are_told(tmp_path: Path) -> None:
    ids = [[1, 2], [3, 4, 5], [6]]
    first = parquet(tmp_path, id=["a", "b", "c"], input_ids=ids)
    second = parquet(tmp_path, id=["a", "b", "c"], input_ids=[[1, 2], [3, 4, 9], [7]])
    found = compared(tmp_path, "a.parquet", first, second)
    assert found == Difference("out/a.parquet", "row 1, column input_ids[2]", "5", "9", 2, 3, "rows", 4, None)


def test_of_a_table_another_column_and_more_rows_are_told(tmp_path: Path) -> None:
    first = parquet(tmp_path, a=[1, 2])
    renamed = compared(tmp_path, "a.parquet", first, parquet(tmp_path, b=[1, 2]))
    assert renamed is not None
    assert (renamed.at, renamed.first, renamed.second) == ("columns", "a: int64", "b: int64")
    longer = compared(tmp_path, "a.parquet", first, parquet(tmp_path, a=[1, 2, 3]))
    assert longer is not None
    assert (longer.at, longer.parted, longer.of) == ("row 2", 1, 3)


def test_of_a_text_the_line_is_told(tmp_path: Path) -> None:
    found = compared(tmp_path, "README.md", b"# a\nmade at ten\n", b"# a\nmade at nine\n")
    assert found == Difference("out/README.md", "line 2", "made at ten", "made at nine", 1, 2, "lines")


@pytest.mark.parametrize("name", ["a.png", "a.safetensors", "a.json", "a.parquet", "a.jsonl"])
def test_of_what_can_not_be_read_the_first_byte_that_parts_is_told(tmp_path: Path, name: str) -> None:
    found = compared(tmp_path, name, b"\xff\x00\x01", b"\xff\x00\x02")
    assert found == Difference(f"out/{name}", "byte 2", "0x01", "0x02")


def test_of_a_file_that_was_cut_off_the_end_is_told(tmp_path: Path) -> None:
    assert compared(tmp_path, "a.bin", b"abc", b"ab") == Difference("out/a.bin", "byte 2", "0x63", None)


def test_bytes_are_compared_beyond_the_first_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", 4)
    found = compared(tmp_path, "a.bin", b"0123456789", b"012345678x")
    assert found is not None
    assert found.at == "byte 9"


def test_contents_that_say_the_same_in_other_bytes_part_at_a_byte(tmp_path: Path) -> None:
    found = compared(tmp_path, "a.json", b'{"a": 1}', b'{"a":  1}')
    assert found is not None
    assert found.at == "byte 6"
