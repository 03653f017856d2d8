"""`finetune diff` on runs that were run: what MLflow, DVC and git say of them fits together, and seeds are found."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.test_dvc import dvc
from tests.processes import rows, sent, until

pytestmark = pytest.mark.slow


def diff(*names: str, folder: Path) -> Any:
    """What `finetune diff --json` prints."""
    command = [sys.executable, "-m", "finetune", "diff", "--json", *names]
    return json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)


def test_two_experiments_differ_in_what_was_set_and_in_what_follows(tracked: Path) -> None:
    found = diff("first", "second", folder=tracked)
    assert found["a"]["notes"] == found["b"]["notes"] == []
    assert found["params"] == {"dpo.beta": {"a": 1.0, "b": 0.3}}
    assert found["code"] == []
    assert "models/dpo" in found["data"]["hashes"]
    assert "models/train" not in found["data"]["hashes"]
    assert found["environment"]["same"] is True
    assert found["environment"]["packages"] == {}
    assert set(found["environment"]["a"]) >= {"train", "dpo"}
    assert {score["verdict"] for score in found["metrics"].values()} == {"no seeds ran"}


def test_a_run_of_mlflow_is_the_experiment_that_it_became(tracked: Path) -> None:
    ((run,),) = rows(tracked / "mlflow.db", "select run_uuid from runs where name = 'second'")
    of_run, of_experiment = (diff("first", name, folder=tracked) for name in (run, "second"))
    assert of_run["b"].pop("title").startswith("MLflow's run second, commit ")
    assert of_run["b"]["commit"] == of_experiment["b"]["commit"]
    assert of_run["metrics"] == of_experiment["metrics"]


def test_seeds_that_ran_in_the_queue_are_the_measure_of_a_difference(tracked: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tracked, tmp_path / "repository", symlinks=True)
    dvc("exp", "run", "--queue", "-S", "experiment=[tiny,seeds]", "-S", "seed=18,19", folder=folder)
    dvc("exp", "run", "--run-all", folder=folder)
    until(lambda: sent(folder))
    found = diff("first", "second", folder=folder)
    score = found["metrics"]["evaluate.dpo.preference.margin"]
    assert set(score["seeds_a"]["seeds"]) == {"17", "18", "19"}
    assert set(score["seeds_b"]["seeds"]) == {"17"}
    assert score["verdict"] in ("within the spread of seeds", "beyond it")
    assert diff("first", "first", folder=folder)["metrics"] == {}
