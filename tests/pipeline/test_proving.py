"""`finetune prove` of the real stages: the verdict, the first step and tensor that part, the exit status, and what MLflow has of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.pipeline.test_dvc import TINY, dvc
from tests.processes import rows, sent, until

pytestmark = pytest.mark.slow
WEIGHTS = "models/train/adapter_model.safetensors"
SEEDED = "seed_everything(cfg.seed, strict=True)"
UNSEEDED = f"cfg = cfg.model_copy(update={{'seed': hash('order') % 1000}})\n    {SEEDED}"


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def proved(folder: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, certificate, and what a user sees."""
    command = [sys.executable, "-m", "finetune", "prove", "--json", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, repository_at: Callable[[Path], Path]) -> Path:
    """A repository after `dvc exp run`: the experiment's params.yaml and dvc.lock lie in the folder, uncommitted."""
    folder = repository_at(tmp_path_factory.mktemp("proving") / "repository")
    dvc("exp", "run", "--name", "small", *TINY, folder=folder)
    return folder


@pytest.fixture
def committed(finished: Path, tmp_path: Path) -> Path:
    """A copy of it in which the experiment is committed."""
    folder = shutil.copytree(finished, tmp_path / "repository", symlinks=True)
    git(folder, "commit", "-qam", "small")
    return folder


def test_the_whole_pipeline_comes_out_the_same_after_an_experiment(finished: Path) -> None:
    status, certificate, told = proved(finished)
    assert (status, certificate["verdict"]) == (0, "same"), told
    assert certificate["experiment"] == {"name": "small", "baseline": git(finished, "rev-parse", "HEAD")}
    assert certificate["whole_pipeline"]
    outs = [hashes for stage in certificate["stages"].values() for hashes in stage["outs"].values()]
    assert len(outs) >= 23
    assert all(out["first"] == out["second"] for out in outs)
    assert {name: (steps["same"], steps["steps"] > 0) for name, steps in certificate["steps"].items()} == {
        "train": (True, True),
        "dpo": (True, True),
    }
    assert {line.split()[-1] for line in git(finished, "status", "--porcelain").splitlines()} == {"params.yaml", "dvc.lock"}
    assert (finished / "reports/certificate.md").read_text().startswith("# The same bytes again")


def test_weights_that_part_by_one_ulp_are_found_named_and_measured(committed: Path) -> None:
    tensors = load_file(committed / WEIGHTS)
    name = max(tensors)
    before = tensors[name][0, 0].clone()
    tensors[name][0, 0] = torch.nextafter(before, torch.tensor(torch.inf))
    save_file(tensors, committed / WEIGHTS, {"format": "pt"})
    dvc("commit", "--force", "train", folder=committed)
    git(committed, "commit", "-qam", "tampered")

    status, certificate, told = proved(committed, "train")
    assert (status, certificate["verdict"]) == (1, "differs"), told
    assert certificate["first_difference"] == {"stage": "train", "outs": ["models/train"], "third_time": "as the second"}
    (difference,) = certificate["stages"]["train"]["differences"]
    assert (difference["file"], difference["at"]) == (WEIGHTS, f"tensor {name} at [0, 0]")
    assert difference["largest"] == (tensors[name][0, 0].double() - before.double()).item() > 0
    assert (difference["parted"], difference["of"]) == (1, len(tensors))
    assert certificate["steps"]["train"]["same"]
    assert f"{WEIGHTS}: tensor {name} at [0, 0]" in told
    assert "exact on this machine" in told


def test_a_stage_that_is_not_exact_is_found_at_its_first_step(committed: Path) -> None:
    recipe = committed / "stages/train.py"
    assert SEEDED in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(SEEDED, UNSEEDED))
    dvc("repro", "--single-item", "train", folder=committed)
    git(committed, "commit", "-qam", "not exact")

    status, certificate, told = proved(committed, "train")
    assert (status, certificate["first_difference"]["third_time"]) == (1, "unlike both"), told
    assert certificate["first_difference"]["outs"] == ["models/train", "reports/train.json"]
    steps = certificate["steps"]["train"]
    assert steps["parted_at"] == 1
    assert steps["number"] in ("loss", "grad_norm")  # the same records may come first, and the initial adapter changes no loss
    assert steps["first"] != steps["second"]
    assert steps["largest_loss"] > 0
    first = next(difference for difference in certificate["stages"]["train"]["differences"] if difference["file"] == WEIGHTS)
    assert first["at"].startswith("tensor ")
    assert "it is not exact on this very machine" in told
    assert "PYTHONHASHSEED" in told


def test_a_proof_is_in_mlflow_with_the_runs_that_it_is_of(tracked: Path) -> None:
    status, certificate, told = proved(tracked, "dpo", "--rev", "second")
    assert status == 0, told
    assert certificate["experiment"]["name"] == "second"
    until(lambda: sent(tracked))
    noted = "select runs.name, key, value from tags join runs using (run_uuid) where key like 'proof%' order by 1, 2"
    (dpo, *others) = rows(tracked / "mlflow.db", noted)
    assert dpo == ("dpo", "proof", "same")
    assert {row[1:] for row in others} == {("proof", "same"), ("proof.dpo", "same")}
    assert ("second", "proof.dpo", "same") in others
    ((run,),) = rows(tracked / "mlflow.db", "select run_uuid from runs where name like 'prove-%'")
    kept = tracked / "mlartifacts" / run / "artifacts"
    assert json.loads((kept / "certificate.json").read_text()) == certificate
    assert (kept / "certificate.md").exists()
    makers = certificate["machine"]["first_made_by"]
    assert makers["dpo"]["pipeline"] == "second"


@pytest.mark.parametrize(("sign", "left"), [(signal.SIGINT, []), (signal.SIGTERM, []), (signal.SIGHUP, []), (signal.SIGKILL, ["a clone"])])
def test_an_end_in_the_middle_leaves_nothing_running_and_at_most_a_clone_for_the_next_start(
    finished: Path, sign: signal.Signals, left: list[str]
) -> None:
    place = finished / ".cache/prove"
    process = subprocess.Popen(
        [sys.executable, "-m", "finetune", "prove"], cwd=finished, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        until(lambda: any(place.glob("*/*/data/prepared")))  # format has begun
        time.sleep(1)
        os.kill(process.pid, sign)
        assert process.stderr is not None
        told = process.stderr.read()
    if sign == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        assert "interrupted; the clone is removed" in told
    assert ["a clone" for path in place.iterdir() if path.is_dir()] == left
    until(lambda: not _at_work(place))
    if left:
        status, _, told = proved(finished, "prepare")
        assert status == 0, told
    assert not [path for path in place.iterdir() if path.is_dir()]


def _at_work(place: Path) -> bool:
    """Whether a process still works in a clone."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cwd").readlink().is_relative_to(place):
                return True
        except OSError:
            continue
    return False
