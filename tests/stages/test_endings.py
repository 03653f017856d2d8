"""A stage that is told to end in the middle of its work keeps what it did, and leaves nothing half-written."""

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune import ending, paths
from finetune.ending import Terminated
from finetune.errors import OutputError
from finetune.training.steps import Steps
from stages import answer, dpo, reference, train
from tests.conftest import composed, full_disk

OUTS = {
    "train": (paths.TRAIN, paths.metrics("train")),
    "reference": (paths.REFERENCE, paths.metrics("reference")),
    "dpo": (paths.DPO, paths.metrics("dpo")),
    "answer": (paths.ANSWERS / "dpo.jsonl", paths.LIKELIHOODS / "dpo.jsonl"),
}
STAGES = {"train": train, "reference": reference, "dpo": dpo, "answer": answer}
COMMON = ["experiment=tiny", "train.num_train_epochs=2", "dpo.num_train_epochs=2", "answer.which=dpo", "answer.batch_size=2"]


def bytes_of(stage: str) -> dict[str, str]:
    found = [file for out in OUTS[stage] for file in ([out] if out.is_file() else sorted(out.rglob("*")))]
    return {file.as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in found}


def clear(stage: str) -> None:
    for file in bytes_of(stage):
        Path(file).unlink()


def at(times: int, do: Callable[[], None]) -> Callable[..., Any]:
    """Stand in for a function that does its work, and this before the call of that number."""

    def wrap(honest: Callable[..., Any]) -> Callable[..., Any]:
        calls = []

        def called(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            if len(calls) == times:
                do()
            return honest(*args, **kwargs)

        return called

    return wrap


MOMENTS = {
    "train": (Steps, "on_step_end"),
    "dpo": (Steps, "on_step_end"),
    "reference": ("finetune.models.scoring", "_batch"),
    "answer": ("finetune.evaluation.generation", "_continued"),
}


def patched(stage: str, patch: pytest.MonkeyPatch, wrap: Callable[..., Any]) -> None:
    owner, name = MOMENTS[stage]
    module = __import__(owner, fromlist=[name]) if isinstance(owner, str) else owner
    patch.setattr(module, name, wrap(getattr(module, name)))


@pytest.mark.parametrize("stage", STAGES)
def test_sigterm_keeps_the_work_and_the_same_command_ends_with_the_same_bytes(
    tiny_copy: Path, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = composed(*COMMON, "reference.batch_size=4")
    for before in ("train", "reference", "dpo")[: list(STAGES).index(stage)]:
        STAGES[before].main(cfg)
    STAGES[stage].main(cfg)
    undisturbed = bytes_of(stage)
    clear(stage)

    with pytest.MonkeyPatch.context() as patch, ending.heeded():
        patched(stage, patch, at(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        with pytest.raises(Terminated, match="SIGTERM"):
            STAGES[stage].main(cfg)
    assert bytes_of(stage) == {}
    (folder,) = (path.resolve() for path in Path(".resume").glob(f"{stage}*/*"))
    if stage in ("train", "dpo"):
        assert [path.name for path in folder.iterdir()] == ["step-3"], "the step that it was at was ended and kept"

    with caplog.at_level("INFO"):
        STAGES[stage].main(cfg)
    assert bytes_of(stage) == undisturbed
    if stage in ("train", "dpo"):
        assert f"going on from {folder}/step-3" in caplog.text
        assert f": {'9' if stage == 'train' else '1'} steps" in caplog.text, "what is left"
    else:
        assert "are there from before" in caplog.text


@pytest.mark.parametrize("disk_full", ["continue", "stop"])
def test_a_disk_that_fills_up_while_training(tiny_copy: Path, disk_full: str, caplog: pytest.LogCaptureFixture) -> None:
    cfg = composed(*COMMON, "resume.save_seconds=0", f"resume.disk_full={disk_full}")
    train.main(cfg)
    undisturbed = bytes_of("train")
    clear("train")

    honest = Steps.on_step_end

    def fills_up(self: Steps, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step == 3:
            full.__enter__()
        if state.global_step == 6:
            full.__exit__(None, None, None)
        honest(self, args, state, control, **others)

    full = full_disk()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steps, "on_step_end", fills_up)
        if disk_full == "continue":
            train.main(cfg)
            assert caplog.text.count("because the disk is full; the last one, step-2, stays, and the stage goes on") == 3
        else:
            with pytest.raises(OutputError, match="the last one, step-2, stays"):
                train.main(cfg)
            full.__exit__(None, None, None)
            assert bytes_of("train") == {}
    if disk_full == "stop":
        train.main(cfg)
    assert bytes_of("train") == undisturbed


def test_a_damaged_checkpoint_is_left_for_the_one_before(tiny_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    cfg = composed(*COMMON, "resume.save_seconds=0")
    train.main(cfg)
    undisturbed = bytes_of("train")
    clear("train")

    def die() -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patched("train", patch, at(6, die))
        with pytest.raises(KeyboardInterrupt):
            train.main(cfg)
    (newest,) = Path(".resume/train").glob("*/step-5/tensors.safetensors")
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1
    newest.write_bytes(content)
    with caplog.at_level("INFO"):
        train.main(cfg)
    assert "step-5 is damaged and is skipped: tensors.safetensors has sha256" in caplog.text
    assert "/step-4" in caplog.text
    assert bytes_of("train") == undisturbed
