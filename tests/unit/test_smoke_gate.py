"""The gate after the smoke run says what fell short, and takes nothing that was not measured for good."""

from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from finetune import outputs, paths
from tools import smoke_gate

ASKED = {
    "at_least": {"evaluate.train.seen.exact_match": 0.2, "prepare.splits.sft.train": 160},
    "at_most": {"evaluate.base.seen.exact_match": 0},
    "peak_memory_gib": {"train": 6, "dpo": 6},
}


@pytest.fixture
def reports(workspace: Path) -> Path:
    outputs.write_json(paths.metrics("evaluate"), {"base": {"seen": {"exact_match": 0.0}}, "train": {"seen": {"exact_match": 0.19}}})
    return workspace


def test_scores_below_memory_above_and_what_is_missing_are_short(reports: Path) -> None:
    assert smoke_gate.judge(ASKED, {"train": 6.5}) == [
        "SHORT  evaluate.train.seen.exact_match: 0.19, at least 0.2 is asked",
        "SHORT  prepare.splits.sft.train: nothing was measured, at least 160 is asked",
        "OK     evaluate.base.seen.exact_match: 0, at most 0 is asked",
        "SHORT  peak memory of train, GiB: 6.5, at most 6 is asked",
        "SHORT  peak memory of dpo, GiB: nothing was measured, at most 6 is asked",
    ]


def test_a_run_that_fell_short_fails(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs.write_text(smoke_gate.FLOORS, yaml.safe_dump(ASKED))
    with pytest.raises(SystemExit, match="the smoke run fell short in 4 of 5:"):
        smoke_gate.main()
    assert "OK     evaluate.base.seen.exact_match" in capsys.readouterr().out


def test_peak_memory_is_read_by_stage(workspace: Path) -> None:
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    experiment = client.create_experiment("finetune", artifact_location=workspace.as_uri())
    run = client.create_run(experiment, run_name="train").info.run_id
    client.log_metric(run, "peak_memory_gib", 2.5)
    assert smoke_gate.memory(workspace / "mlflow.db") == {"train": 2.5}
    assert smoke_gate.memory(workspace / "is_not_there.db") == {}
