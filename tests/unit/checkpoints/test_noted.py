"""What a stage kept outlives the stage until dvc.lock has its outs: dvc may still die, or find the disk full."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune import paths
from finetune.checkpoints import kept, lock, noted
from finetune.config.stage import cut
from tests.conftest import composed

INPUT, OUT = Path("data.jsonl"), Path("out.json")


@pytest.fixture
def done(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """`done()`: the folder of a training that a stage of dvc's has ended; its checkpoint is still in it."""
    monkeypatch.setenv("DVC_STAGE", "train")
    monkeypatch.setenv("DVC_ROOT", str(workspace))
    INPUT.write_text("records")
    cfg = cut(composed("experiment=tiny"), ("seed", "threads", "model", "train"))

    def end() -> Path:
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
