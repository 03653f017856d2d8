"""A stage that dies and is started again leaves the bytes of one that did not: whatever it does, and wherever it dies."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune import paths
from finetune.config.schema import Config
from finetune.training.steps import Steps
from stages import dpo, reference, train
from tests.conftest import ROOT, composed
from tests.tokens import write_formatted

COMMON = ["experiment=tiny", "resume.save_seconds=0", "train.num_train_epochs=2", "dpo.num_train_epochs=2", "train.learning_rate=0.005"]
STAGES = {"train": train, "reference": reference, "dpo": dpo}
CLASSES = {
    "plain": [],
    "dropout": ["train.lora_dropout=0.2", "dpo.lora_dropout=0.2"],
    "accumulation": [
        f"{stage}.{key}=2" for stage in ("train", "dpo") for key in ("per_device_train_batch_size", "gradient_accumulation_steps")
    ],
    "packing": ["train.packing=true", "train.max_length=64", "train.per_device_train_batch_size=2", "format.max_length=64"],
    "full": ["train=full", "dpo=full"],
    "qlora": ["train=qlora"],
    "8-bit optimizer": ["train.optim=adamw_8bit", "dpo.optim=adamw_8bit"],
    "checkpointing of activations": ["train.gradient_checkpointing=true", "dpo.gradient_checkpointing=true"],
    "a number of steps": ["train.max_steps=5", "dpo.max_steps=3", "train.num_train_epochs=1"],
}


class Death(BaseException):
    """Not an error: nothing may catch it."""


def dies_after(steps: int, patch: pytest.MonkeyPatch) -> None:
    """Have the training that follows end, as if killed, at the beginning of the step after this many."""

    def die(self: Steps, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == steps:
            raise Death

    patch.setattr(Steps, "on_step_begin", die, raising=False)


def outs() -> dict[str, str]:
    found = [path for folder in (paths.MODELS, paths.REFERENCE, paths.REPORTS) for path in folder.rglob("*") if path.is_file()]
    return {path.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(found)}


def undisturbed(cfg: Config) -> dict[str, str]:
    """The hashes of what all three write when nothing happens; it is removed again."""
    for stage in STAGES.values():
        stage.main(cfg)
    return taken_away()


def taken_away() -> dict[str, str]:
    """The hashes of all outs, which are removed."""
    found = outs()
    for path in found:
        Path(path).unlink()
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    write_formatted(paths.FORMATTED, records=20, pairs=12)
    yield tmp_path
    assert not list(tmp_path.glob(".resume/*/*")), "what was kept is removed when the outs are there"


@pytest.mark.parametrize("settings", CLASSES.values(), ids=CLASSES)
def test_a_training_killed_anywhere_ends_with_the_same_bytes(folder: Path, settings: list[str]) -> None:
    cfg = composed(*COMMON, *settings)
    expected = undisturbed(cfg)

    for name, stage in STAGES.items():
        for steps in {"train": (1, 3, 4), "dpo": (1, 2)}.get(name, ()):  # in an epoch's middle and at its end; the second one too
            with pytest.MonkeyPatch.context() as patch:
                dies_after(steps, patch)
                with pytest.raises(Death):
                    stage.main(cfg)
            assert not paths.metrics(name).exists()
            assert [path.name for path in Path(".resume", name).glob("*/step-*")], "it had got somewhere"
        stage.main(cfg)
    assert outs() == expected


def test_a_death_after_the_last_step_trains_no_step_more(folder: Path) -> None:
    """Where max_steps ends in an epoch's middle, transformers' loop would begin another step before it looks at the number."""
    cfg = composed(*COMMON, "train.max_steps=4", "dpo.max_steps=3", "train.lr_scheduler_type=constant", "dpo.lr_scheduler_type=constant")
    expected = undisturbed(cfg)

    def die(*_: Any) -> None:
        raise Death

    for name, stage in STAGES.items():
        if name != "reference":
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("finetune.models.adapters.save", die)
                with pytest.raises(Death):
                    stage.main(cfg)
        stage.main(cfg)
    assert outs() == expected


PROGRAM = """
import os, sys
from finetune.training.steps import Steps
from stages import train
from tests.conftest import composed
def die(self, args, state, *_, **__):
    if state.global_step == int(os.environ["DIES_AFTER"]):
        os._exit(9)
Steps.on_step_begin = die
train.main(composed(*sys.argv[1:]))
"""
SPOILS = """
import math, os, sys
from finetune.errors import TrainingError
from finetune.training.supervised import Supervised
from stages import train
from tests.conftest import composed
honest = Supervised.compute_loss
def spoilt(self, *args, **kwargs):
    wrong = self.state.global_step == 2 and os.environ["RANK"] == "1"
    return honest(self, *args, **kwargs) * (math.nan if wrong else 1)
Supervised.compute_loss = spoilt
try:
    train.main(composed(*sys.argv[1:]))
except TrainingError as error:
    open("rank" + os.environ["RANK"], "w").write(str(error))
"""


@pytest.mark.slow
def test_of_two_processes_each_finds_its_place_again(folder: Path) -> None:
    """Each draws its own dropout and reads its own half of the batches, in the second epoch's order too."""
    overrides = [*COMMON, "train.lora_dropout=0.2", "train.per_device_train_batch_size=2"]
    assert of_two(PROGRAM, overrides, DIES_AFTER="-1") == 0
    expected = taken_away()
    for steps in (2, 5, 7):  # of 5 an epoch
        assert of_two(PROGRAM, overrides, DIES_AFTER=str(steps)) != 0
    assert of_two(PROGRAM, overrides, DIES_AFTER="-1") == 0
    assert outs() == expected


@pytest.mark.slow
def test_a_loss_that_is_no_number_in_one_of_two_processes_stops_both(folder: Path) -> None:
    """Else the other waits for it in the sum of the gradients until it times out."""
    overrides = [*COMMON, "train.per_device_train_batch_size=2"]
    assert of_two(SPOILS, overrides) == 0
    said = [Path(f"rank{rank}").read_text() for rank in range(2)]
    assert said[0] == said[1]
    assert said[0].startswith("step 3: the loss is nan, expected a finite number")
    assert "the last good checkpoint is" in said[0]
    assert "/step-2. Its records: " in said[0]
    shutil.rmtree(".resume")


def of_two(program: str, overrides: list[str], **variables: str) -> int:
    """The exit status of two processes that train together."""
    Path("program.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "program.py"]
    return subprocess.run([sys.executable, *launcher, *overrides], env=environment, capture_output=True, check=False).returncode
