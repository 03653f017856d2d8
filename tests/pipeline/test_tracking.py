"""What MLflow has of real runs: of the workspace, of a temporary copy that is deleted, and of stages that were skipped."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline.conftest import TRACKED
from tests.processes import rows, until

pytestmark = pytest.mark.slow
STAGES = {
    "prepare",
    "format",
    "train",
    "reference",
    "dpo",
    "answer@base",
    "answer@train",
    "answer@dpo",
    "evaluate",
    "export",
    "report",
}


def query(folder: Path, text: str) -> list[Any]:
    return rows(folder / "mlflow.db", text)


def run_id(folder: Path, name: str) -> str:
    ((found,),) = query(folder, f"select run_uuid from runs where name = '{name}'")
    return str(found)


def stages(folder: Path, pipeline: str) -> dict[str, str]:
    """Stage → status of its run, of the pipeline of this name."""
    children = f"select run_uuid from tags where key = 'mlflow.parentRunId' and value = '{run_id(folder, pipeline)}'"
    return dict(query(folder, f"select name, status from runs where run_uuid in ({children})"))


def artifact(folder: Path, pipeline: str, name: str) -> Path:
    return folder / "mlartifacts" / run_id(folder, pipeline) / "artifacts" / name


def test_a_pipeline_is_one_run_with_one_for_each_stage_that_ran(tracked: Path) -> None:
    assert query(tracked, "select status from runs where name in ('first', 'second')") == [("FINISHED",)] * 2
    first, second = stages(tracked, "first"), stages(tracked, "second")
    for found in (first, second):
        found.pop("check", None)  # it runs where dvc.lock has it not, or has it for another conf/
    assert first == dict.fromkeys(STAGES, "FINISHED")
    assert second == dict.fromkeys({"dpo", "answer@dpo", "evaluate", "export", "report"}, "FINISHED")
    assert (tracked / ".tracking/sender.log").read_text() == ""


def test_settings_scores_and_data_can_be_searched(tracked: Path) -> None:
    second = run_id(tracked, "second")
    params = dict(query(tracked, f"select key, value from params where run_uuid = '{second}'"))
    assert (params["dpo.beta"], params["train.method"]) == ("0.3", "lora")
    scores = {key for (key,) in query(tracked, f"select key from metrics where run_uuid = '{second}'")}
    assert {"evaluate.dpo.seen.exact_match", "evaluate.base.preference.accuracy", "train.loss"} <= scores
    locked = yaml.safe_load((tracked / "dvc.lock").read_text())["stages"]["prepare"]["outs"]
    digests = dict(query(tracked, "select name, digest from datasets"))
    assert digests["prepared"] == next(out["md5"] for out in locked if out["path"] == "data/prepared")


def test_curves_have_every_step(tracked: Path) -> None:
    steps = json.loads((tracked / "reports/train.json").read_text())["steps"]
    train = run_id(tracked, "train")
    assert query(tracked, f"select value, step from metrics where run_uuid = '{train}' and key = 'loss' order by step") == [
        (step["loss"], step["step"]) for step in steps
    ]


def test_a_deleted_copy_left_its_report_in_mlflow(tracked: Path) -> None:
    page = artifact(tracked, "second", "report.md").read_text()
    assert "- dpo: made by this run" in page
    assert f"- train: made by run first (`{run_id(tracked, 'train')}`)" in page
    assert "dvc exp apply second" in page
    for name in ("figures/before_after.png", "samples.jsonl", "params.yaml", "dvc.lock"):
        assert artifact(tracked, "second", name).exists()
    assert "+  beta: 0.3" in artifact(tracked, "second", "uncommitted.diff").read_text()
    tags = dict(query(tracked, f"select key, value from tags where run_uuid = '{run_id(tracked, 'second')}'"))
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tracked, capture_output=True, text=True, check=True).stdout.strip()
    assert (tags["mlflow.source.git.commit"], tags["dvc.baseline"], tags["git.dirty"]) == (head, head, "true")
    assert tags["made_by.train"] == run_id(tracked, "train")


def test_a_pipeline_has_the_commit_of_its_experiment(tracked: Path) -> None:
    for name in ("first", "second"):
        asked = f"select value from tags where key = 'dvc.commit' and run_uuid = '{run_id(tracked, name)}'"
        until(lambda: bool(query(tracked, asked)))  # noqa: B023  # asked before the next turn
        commit = subprocess.run(["git", "rev-parse", query(tracked, asked)[0][0]], cwd=tracked, capture_output=True, text=True, check=True)
        shown = subprocess.run(["dvc", "exp", "list", "--sha-only"], cwd=tracked, capture_output=True, text=True, check=True).stdout
        assert commit.stdout.strip() in shown


def test_tracking_leaves_nothing_that_git_sees(tracked: Path) -> None:
    status = subprocess.run(["git", "status", "--porcelain"], cwd=tracked, capture_output=True, text=True, check=True).stdout
    assert {line.split()[-1] for line in status.splitlines()} <= {"params.yaml", "dvc.lock"}


def test_runs_of_a_killed_dvc_are_closed_at_the_next_start(tracked: Path) -> None:
    before = len(query(tracked, "select * from runs"))
    command = ["dvc", "exp", "run", *TRACKED, "-S", "seed=99", "--name", "killed"]
    process = subprocess.Popen(command, cwd=tracked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    until(lambda: bool(query(tracked, "select * from runs where status = 'RUNNING' and name = 'train'")))
    os.killpg(process.pid, 9)
    process.wait()
    assert len(query(tracked, "select * from runs")) > before
    time.sleep(1)
    until(lambda: not query(tracked, "select * from runs where status = 'RUNNING'"))
    assert query(tracked, "select status from runs where name = 'killed'") == [("KILLED",)]
