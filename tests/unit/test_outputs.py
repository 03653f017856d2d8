"""An output is whole or not there."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from finetune import outputs
from finetune.errors import DataError, OutputError
from tests.conftest import full_disk

Writing = Callable[[Path], AbstractContextManager[Path]]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    (target / "old").mkdir(parents=True)
    with outputs.folder(target) as part:
        (part / "new").write_text("new")
        assert (target / "old").is_dir()
    assert sorted(p.name for p in target.iterdir()) == ["new"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_weights_are_as_readable_as_any_file(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with outputs.folder(tmp_path / "out") as part:
            save_file({"a": torch.zeros(1)}, part / "a.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "out" / "a.safetensors").stat().st_mode & 0o777 == mode


def half(path: Path, error: BaseException, writing: Writing) -> None:
    """Begin an output, then fail."""
    with writing(path) as part:
        (part / "inside" if part.is_dir() else part).write_text("ha")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no")])
@pytest.mark.parametrize("writing", [outputs.folder, outputs.file])
def test_nothing_half_written_is_left(tmp_path: Path, error: BaseException, writing: Writing) -> None:
    with pytest.raises(type(error)):
        half(tmp_path / "out", error, writing)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_in_words_and_leaves_nothing(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(OutputError, match=r"out\.json: the disk is full.*run the same command again"):
        outputs.write_json(tmp_path / "out.json", {"a": 1})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("said", ["No space left on device (os error 28)", "Disk quota exceeded (os error 122)"])
def test_a_full_disk_under_safetensors_is_said_in_the_same_words(tmp_path: Path, said: str) -> None:
    with pytest.raises(OutputError, match="the disk is full"):
        half(tmp_path / "out", SafetensorError(f"Error while serializing: I/O error: {said}"), outputs.folder)
    assert list(tmp_path.iterdir()) == []


def test_json_has_one_form_and_no_nan(tmp_path: Path) -> None:
    outputs.write_json(tmp_path / "a.json", {"b": 1, "a": [0.1, "é"]})
    outputs.write_json(tmp_path / "b.json", {"a": [0.1, "é"], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert outputs.read_json(tmp_path / "a.json") == {"a": [0.1, "é"], "b": 1}
    with pytest.raises(ValueError, match="Out of range"):
        outputs.write_json(tmp_path / "nan.json", float("nan"))


def test_jsonl_keeps_order_and_counts(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"z": 1, "a": "x\ny"}, {"b": None}]
    assert outputs.write_jsonl(tmp_path / "rows.jsonl", iter(rows)) == 2
    assert outputs.read_jsonl(tmp_path / "rows.jsonl") == rows
    assert (tmp_path / "rows.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_file_is_read_in_stretches(tmp_path: Path, size: int) -> None:
    path, rows = tmp_path / "rows.jsonl", [{"text": f"\u2028 ü \r\n {number}"} for number in range(7)]
    outputs.write_jsonl(path, rows)
    stretches = outputs.divide(path, size)
    assert [row for stretch in stretches for row in stretch.read()] == rows
    assert [stretch.first for stretch in stretches] == list(range(1, 8, size))
    assert max(map(len, stretches)) == min(size, 7)


def test_an_empty_file_has_no_stretches_and_a_missing_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    assert outputs.divide(tmp_path / "empty.jsonl", 3) == []
    with pytest.raises(DataError, match="found no such file"):
        outputs.divide(tmp_path / "none.jsonl", 3)
