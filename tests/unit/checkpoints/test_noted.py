"""What a stage kept outlives the stage until dvc.lock has its outs: dvc may still die, or find the disk full."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune import outputs, paths
from finetune.checkpoints import kept, lock, noted
from finetune.config.stage import cut
from finetune.errors import OutputError
from tests.conftest import composed

INPUT, OUT = Path("data.jsonl"), Path("out.json")


@pytest.fixture
def done(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`done()`: the folder of a training that a stage of dvc's has ended, its checkpoint still in it; `done("seed=18")`: of another."""
    monkeypatch.setenv("DVC_STAGE", "train")
    monkeypatch.setenv("DVC_ROOT", str(workspace))
    INPUT.write_text("records")

    def end(*overrides: str) -> Path:
        cfg = cut(composed("experiment=tiny", *overrides), ("seed", "threads", "model", "train"))
        with kept.work("train", cfg, [INPUT], OUT) as found:
            found.save(7, lambda folder: (folder / "weights").touch())
            OUT.write_text("result")
        assert found.folder is not None
        return found.folder

    return end


def note() -> None:
    paths.LOCK.write_text(f"md5: {hashlib.md5(OUT.read_bytes()).hexdigest()}\n")


def test_it_stays_until_dvc_has_noted_the_outs(done: Callable[[], Path]) -> None:
    folder = done()
    noted.sweep()
    paths.LOCK.write_text("md5: of another run\n")
    noted.sweep()
    assert (folder / "step-7").is_dir()
    note()
    noted.sweep()
    assert not folder.parent.exists()


def test_the_same_outs_in_an_older_lock_are_those_of_the_same_work_done_before(done: Callable[[], Path]) -> None:
    OUT.write_text("result")
    note()
    os.utime(paths.LOCK, ns=(0, 0))
    folder = done()
    noted.sweep()
    assert (folder / "step-7").is_dir(), "DVC may still die before it notes them again"
    note()
    noted.sweep()
    assert not folder.exists()


def test_of_temporary_copies_that_are_gone_one_stays(workspace: Path, monkeypatch: pytest.MonkeyPatch, done: Callable[..., Path]) -> None:
    found = []
    for number in range(3):
        copy = workspace / ".dvc" / "tmp" / f"copy{number}"
        shutil.copytree(workspace, copy, ignore=shutil.ignore_patterns(".*"))
        monkeypatch.chdir(copy)
        found.append(done(f"seed={number}"))
        noted.sweep()
        assert found[-1].is_dir(), "its dvc.lock is to come"
        monkeypatch.chdir(workspace)
        shutil.rmtree(copy)
    noted.sweep()
    assert [folder.is_dir() for folder in found] == [False, False, True]


def test_a_disk_that_takes_no_mark_removes_nothing(
    done: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, _: object) -> None:
        raise OutputError(f"{path}: the disk is full")

    monkeypatch.setattr(outputs, "write_json", full)
    folder = done()
    noted.sweep()
    assert (folder / "step-7").is_dir()
    assert f"{folder} stays until you remove it: {folder / noted.DONE}: the disk is full" in caplog.text


def test_who_does_the_same_work_again_goes_on_from_it_and_has_it_for_itself(done: Callable[[], Path]) -> None:
    folder = done()
    note()
    cfg = cut(composed("experiment=tiny"), ("seed", "threads", "model", "train"))
    seen = []

    def die() -> None:
        with kept.work("train", cfg, [INPUT], OUT) as again:
            seen.append(again.newest())
            noted.sweep()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die()
    noted.sweep()
    assert seen == [folder / "step-7"]
    assert (folder / "step-7").is_dir(), "this time it did not end"


def test_a_folder_in_which_another_process_is_at_work_is_left_alone(done: Callable[[], Path]) -> None:
    folder = done()
    note()
    with lock.held(folder.with_suffix(".lock")):
        noted.sweep()
        assert (folder / "step-7").is_dir()
    noted.sweep()
    assert not folder.exists()


def test_a_damaged_mark_removes_nothing(done: Callable[[], Path]) -> None:
    folder = done()
    note()
    (folder / noted.DONE).write_text("{")
    noted.sweep()
    assert (folder / "step-7").is_dir()


def test_a_stage_that_was_started_by_hand_leaves_nothing(done: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE")
    assert not done().exists()


def test_a_stage_that_failed_before_it_kept_anything_leaves_nothing(workspace: Path) -> None:
    INPUT.write_text("records")
    with pytest.raises(ValueError, match="mine"), kept.work("train", composed("experiment=tiny"), [INPUT], OUT):
        raise ValueError("mine")
    assert not list(Path(".resume").rglob("*"))
