"""Items are done once, whatever becomes of the process or of the file."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from finetune.checkpoints.journal import Journal

ITEMS = [1.5, 2.5, 3.5, 4.5]


class Full(Exception):
    """What the journal is told to raise when the disk is full."""


def stop(error: OSError) -> None:
    raise Full from error


def done(path: Path, fail_at: float | None = None, full: Callable[[OSError], None] = stop) -> tuple[list[Any], list[float]]:
    """The results, and the items that were worked on, until the work of one fails."""
    worked = []

    def work(item: float) -> list[float]:
        if item == fail_at:
            raise KeyboardInterrupt
        worked.append(item)
        return [item / 3, -item]

    results: list[Any] = []
    with suppress(KeyboardInterrupt):
        results.extend(Journal(path, full).each(ITEMS, work))
    return results, worked


def test_what_was_done_before_a_death_is_not_done_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "answers.jsonl"
    undisturbed = done(tmp_path / "other.jsonl")[0]
    assert done(path, fail_at=3.5) == (undisturbed[:2], [1.5, 2.5])
    with caplog.at_level("INFO"):
        assert done(path) == (undisturbed, [3.5, 4.5]), "the very numbers, after JSON too"
    assert "answers: 2 of 4 are there from before" in caplog.text
    assert done(path) == (undisturbed, [])


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_line_and_those_after_it_are_done_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "answers.jsonl"
    undisturbed = done(path)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2][:-4] if damage == "cut" else lines[2].replace(b"3.5", b"3.6")
    path.write_bytes(b"".join(lines))
    assert done(path) == (undisturbed, [3.5, 4.5])
    assert "answers.jsonl: item 3 is damaged and is done again, with those after it" in caplog.text
    assert done(path) == (undisturbed, [])


def test_a_full_disk_stops_or_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "answers.jsonl"
    undisturbed = done(tmp_path / "other.jsonl")[0]
    done(path, fail_at=2.5)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(Full):
            done(path)
        assert done(path, full=lambda _: None) == (undisturbed, [2.5, 3.5, 4.5])
    assert done(path) == (undisturbed, [2.5, 3.5, 4.5])


def test_a_disk_that_takes_a_part_of_a_line_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda opened, line: write(opened, line[:5]))
    with pytest.raises(Full):
        done(tmp_path / "answers.jsonl")
