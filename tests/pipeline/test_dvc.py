"""What people do with DVC: repro, exp run, queues, temporary copies; and what each change reruns."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from finetune.config.compose import write_params
from tests.processes import rows, sent, until

pytestmark = pytest.mark.slow
AFTER_TRAIN = {"train", "reference", "dpo", "answer@train", "answer@dpo", "evaluate", "export", "report"}
AFTER_DPO = {"dpo", "answer@dpo", "evaluate", "export", "report"}
EVERYTHING = {*AFTER_TRAIN, "prepare", "format", "answer@base"}
TINY = ("-S", "experiment=tiny", "-S", "tracking=off")


def dvc(*arguments: str, folder: Path, status: int = 0) -> str:
    """Run dvc as a user does, check its exit status, and return all that it printed."""
    done = subprocess.run([str(Path(sys.executable).parent / "dvc"), *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def ran(printed: str) -> set[str]:
    """Names of the stages that DVC ran, from what it printed."""
    return set(re.findall(r"Running stage '([^']+)'", printed))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, repository_at: "object") -> Path:
    """A repository in which the tiny pipeline ran once, by `dvc exp run`."""
    folder = repository_at(tmp_path_factory.mktemp("dvc") / "repository")  # type: ignore[operator]
    assert ran(dvc("exp", "run", *TINY, folder=folder)) | {"check"} == {*EVERYTHING, "check"}  # the committed lock may have check
    return Path(folder)


def test_a_second_repro_does_nothing(finished: Path) -> None:
    assert ran(dvc("repro", folder=finished)) == set()


def test_the_metrics_and_plots_are_there(finished: Path) -> None:
    metrics = json.loads(dvc("metrics", "show", "--json", folder=finished))[""]["data"]
    assert set(metrics) == {f"reports/{name}.json" for name in ("prepare", "format", "train", "reference", "dpo", "evaluate", "export")}
    assert dvc("plots", "show", "-o", "plots", folder=finished).count("index.html") == 1
    shutil.rmtree(finished / "plots")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("tracking.experiment=other", set()),
        ("export.max_shard_size=1MB", {"export", "report"}),
        ("evaluate.samples=3", {"evaluate", "report"}),  # reports/evaluate.json, which export reads, comes out as it was
        ("dpo.beta=0.3", AFTER_DPO),
        ("reference=on_policy", {"reference", *AFTER_DPO}),
        ("train.r=4", AFTER_TRAIN),
        ("seed=5", AFTER_TRAIN),  # the data and what base answers stay
        ("data.draw=5", EVERYTHING),
    ],
)
def test_a_change_reruns_what_it_changes_and_nothing_else(finished: Path, override: str, expected: set[str]) -> None:
    assert ran(dvc("exp", "run", *TINY, "-S", override, folder=finished)) == expected
    back = dvc("exp", "run", *TINY, folder=finished)  # to where the next override starts, from the run cache, of which MLflow must hear
    assert ran(back) == ({"report"} if expected else set())


def test_figures_that_are_gone_are_made_again(finished: Path) -> None:
    shutil.rmtree(finished / "reports/figures")
    assert ran(dvc("repro", folder=finished)) == {"report"}
    assert ran(dvc("repro", folder=finished)) == set()


def test_an_edit_of_conf_is_refused_by_repro_before_anything_runs(finished: Path) -> None:
    file = finished / "conf/train/lora.yaml"
    before = file.read_text()
    file.write_text(before + "# a word\n")
    printed = dvc("repro", folder=finished, status=255)
    assert ran(printed) == {"check"}
    assert "run `make params`" in printed
    file.write_text(before)


def test_a_refused_setting_stops_exp_run_before_anything_runs(finished: Path) -> None:
    printed = dvc("exp", "run", *TINY, "-S", "train.r=0", "-S", "train.rr=1", "-S", "train.learning_rate=-1", folder=finished, status=255)
    assert ran(printed) == set()
    for line in ("train.r: found 0", "train.rr: unknown key; did you mean train.r?", "train.learning_rate: found -1"):
        assert line in printed


def test_a_queue_of_three_with_two_workers_is_three_experiments_and_three_runs_in_mlflow(finished: Path) -> None:
    dvc("exp", "run", "--queue", "-S", "experiment=tiny", "-S", "train.r=2,4,8", folder=finished)
    dvc("exp", "run", "--run-all", "-j", "2", folder=finished)
    shown = json.loads(dvc("exp", "show", "--json", folder=finished))
    ranks = {
        revision["data"]["params"]["params.yaml"]["data"]["train"]["r"]
        for row in shown
        for experiment in row.get("experiments") or []
        for revision in experiment["revs"]
        if revision["data"] and "train" in revision["data"]["params"]["params.yaml"]["data"]
    }
    assert {2, 4, 8} <= ranks
    until(lambda: sent(finished))
    told = "select value, status from params join runs using (run_uuid) where key = 'train.r'"
    assert sorted(rows(finished / "mlflow.db", told)) == [("2", "FINISHED"), ("4", "FINISHED"), ("8", "FINISHED")]


def test_a_temporary_run_leaves_the_workspace_alone(finished: Path) -> None:
    before = (finished / "params.yaml").read_bytes(), (finished / "dvc.lock").read_bytes()
    printed = dvc("exp", "run", "--temp", *TINY, "-S", "dpo.beta=0.7", folder=finished)
    assert "Ran experiment" in printed
    assert ((finished / "params.yaml").read_bytes(), (finished / "dvc.lock").read_bytes()) == before


def test_other_methods_by_name(finished: Path) -> None:
    dvc("exp", "run", *TINY, "-S", "train=qlora", folder=finished)
    assert json.loads((finished / "models/train/tuned.json").read_text())["method"] == "qlora"


@pytest.mark.parametrize("name", ["business", "content", "education", "research"])
def test_each_use_case_goes_from_its_own_records_to_its_own_scores(finished: Path, name: str) -> None:
    tiny = ["model=tiny", "format.max_length=2048", "train.num_train_epochs=1", "dpo.num_train_epochs=1", "answer.max_new_tokens=8"]
    dvc("exp", "run", *(word for setting in (f"experiment={name}", *tiny, "tracking=off") for word in ("-S", setting)), folder=finished)
    metrics = yaml.safe_load((finished / "params.yaml").read_text())["evaluate"]["metrics"]
    scores = json.loads((finished / "reports/evaluate.json").read_text())
    assert all(metrics and set(metrics) <= set(scores[model]["all"]) for model in ("base", "train", "dpo"))


def test_two_processes_train(finished: Path) -> None:
    dvc("exp", "run", *TINY, "-S", "launch=distributed", "-S", "launch.processes=2", folder=finished)
    for stage in ("train", "dpo"):
        assert json.loads((finished / f"reports/{stage}.json").read_text())["world_size"] == 2


def test_the_committed_lock_belongs_to_what_is_committed(repository: Path) -> None:
    printed = dvc("repro", "--allow-missing", "--dry", folder=repository)
    assert ran(printed) == set(), printed


def test_params_yaml_is_what_conf_composes_to(repository: Path) -> None:
    committed = (repository / "params.yaml").read_bytes()
    write_params(root=repository)
    assert (repository / "params.yaml").read_bytes() == committed
    assert yaml.safe_load(committed)["model"]["name"] == "smollm2_135m"
