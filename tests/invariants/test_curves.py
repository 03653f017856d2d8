"""Settings that must not change what is learned: each class of them gives one loss curve and one model.

The tolerance is float32's: sums in another order differ in the last bits, and a few optimizer steps carry that on. Measured on the tiny
model: losses, which are about 6, within 1e-6 of each other, and weights within 1e-5 of the largest one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune import paths
from finetune.models import adapters
from stages import dpo, reference, train
from tests.conftest import ROOT, composed
from tests.tokens import write_formatted

LOSS, WEIGHT = 1e-5, 1e-4  # allowed distance of losses, and of weights relative to the largest
COMMON = [
    "experiment=tiny",
    "train.num_train_epochs=2",
    "train.learning_rate=0.005",
    "dpo.num_train_epochs=2",
    "dpo.learning_rate=0.005",
]

Curve = list[float]
Weights = dict[str, torch.Tensor]
Run = tuple[Curve, Curve, Weights]


def run(folder: Path, *overrides: str) -> Run:
    """Train, reference and dpo in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_formatted(paths.FORMATTED, records=24, pairs=16)
        cfg = composed(*COMMON, *overrides)
        for stage in (train, reference, dpo):
            stage.main(cfg)
        return result()


def result() -> Run:
    """Losses of train and dpo, and the final adapter, of the working directory."""
    return curve("train"), curve("dpo"), load_file(paths.DPO / adapters.WEIGHTS)


def curve(stage: str) -> Curve:
    return [step["loss"] for step in json.loads(paths.metrics(stage).read_text())["steps"]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What the others are compared with: micro-batch 8, one process."""
    return run(tmp_path_factory.mktemp("plain"))


def assert_one(ours: Run, theirs: Run) -> None:
    assert ours[0] == pytest.approx(theirs[0], abs=LOSS)
    assert ours[1] == pytest.approx(theirs[1], abs=LOSS)
    largest = max(float(weight.abs().max()) for weight in theirs[2].values())
    assert max(float((ours[2][name] - weight).abs().max()) for name, weight in theirs[2].items()) < WEIGHT * largest


CLASSES = {
    "micro-batch × accumulation": [
        "train.per_device_train_batch_size=2",
        "train.gradient_accumulation_steps=4",
        "dpo.per_device_train_batch_size=4",
        "dpo.gradient_accumulation_steps=2",
    ],
    "one record at a time": [
        "train.per_device_train_batch_size=1",
        "train.gradient_accumulation_steps=8",
        "dpo.per_device_train_batch_size=1",
        "dpo.gradient_accumulation_steps=8",
    ],
    "gradient checkpointing": ["train.gradient_checkpointing=true", "dpo.gradient_checkpointing=true"],
    "batch size of the reference": ["reference.batch_size=3"],
}


@pytest.mark.parametrize("overrides", CLASSES.values(), ids=CLASSES.keys())
def test_one_effective_batch_gives_one_curve_however_it_is_computed(plain: Run, tmp_path: Path, overrides: list[str]) -> None:
    assert len(plain[0]) == 6
    assert len(plain[1]) == 4
    assert_one(run(tmp_path, *overrides), plain)


def test_another_effective_batch_gives_another_curve(plain: Run, tmp_path: Path) -> None:
    other = run(tmp_path, "train.per_device_train_batch_size=4")
    assert len(other[0]) == 2 * len(plain[0])
    with pytest.raises(AssertionError):
        assert_one(other, plain)


PROGRAM = """
import sys
from stages import dpo, reference, train
from finetune.training import world
from tests.conftest import composed
stages = {"train": train, "reference": reference, "dpo": dpo}
for name in sys.argv[1].split(","):
    stages[name].main(composed(*sys.argv[2:]))
"""


def started(folder: Path, processes: int, stages: str, *overrides: str, hash_seed: str = "0") -> None:
    """Run stages in fresh processes, as torch's launcher starts them."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(program), stages, *COMMON, *overrides]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_learn_what_one_with_the_same_effective_batch_does_and_one_of_them_writes(
    plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_formatted(paths.FORMATTED, records=24, pairs=16)
    halved = ["train.per_device_train_batch_size=4", "dpo.per_device_train_batch_size=4"]
    started(tmp_path, 2, "train", *halved)
    started(tmp_path, 1, "reference")
    started(tmp_path, 2, "dpo", *halved)
    assert_one(result(), plain)
    for stage in ("train", "dpo"):
        assert json.loads(paths.metrics(stage).read_text())["world_size"] == 2
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
def test_fresh_processes_with_other_hash_seeds_write_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for hash_seed in ("1", "2"):
        folder = tmp_path / hash_seed
        write_formatted(folder / paths.FORMATTED)
        started(folder, 1, "train,reference,dpo", hash_seed=hash_seed)
        outs = [folder / name for name in (paths.TRAIN, paths.REFERENCE, paths.DPO, paths.REPORTS)]
        written.append({file.relative_to(folder): file.read_bytes() for out in outs for file in out.rglob("*") if file.is_file()})
    assert len(written[0]) == 3 + 1 + 3 + 3
    assert written[0] == written[1]
