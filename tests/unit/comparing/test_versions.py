"""Finding a run by any of its names, and what is said of one that can't be trusted as it lies there."""

import shutil

import pytest

from finetune.comparing.repository import Repository
from finetune.comparing.tracked import Tracked
from finetune.comparing.versions import find
from finetune.errors import SetupError
from tests.unit.comparing.conftest import MODULE, Runs


def test_a_run_is_found_as_workspace_revision_and_experiment(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    commit = runs.experiment("beta", 0.8, r=8)
    runs.write(0.9, r=4)
    scores = {name: find(name, repository, untracked) for name in ("workspace", "main", "HEAD", commit[:10], "beta")}
    assert {name: one.measured["evaluate"]["evaluate.seen.exact_match"] for name, one in scores.items()} == {
        "workspace": 0.9,
        "main": 0.7,
        "HEAD": 0.7,
        commit[:10]: 0.8,
        "beta": 0.8,
    }
    assert scores["beta"].title == f"experiment {commit[:7]}"
    assert scores["beta"].params["train.r"] == 8
    assert all(one.notes == [] for one in scores.values())


def test_curves_are_no_scores(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    assert find("main", repository, untracked).measured["train"] == {"train.validation_loss": pytest.approx(0.3)}


def test_one_name_for_two_experiments_is_refused_with_both(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    first = runs.experiment("beta", 0.8)
    runs.commit(0.7, r=8)
    second = runs.experiment("beta", 0.9)
    with pytest.raises(SetupError, match="found 2 experiments of that name, expected one") as refused:
        find("beta", repository, untracked)
    assert set(refused.value.problems) == {first[:7], second[:7]}


def test_an_unknown_name_is_refused_with_what_there_is(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    runs.experiment("beta", 0.8)
    with pytest.raises(SetupError) as refused:
        find("bta", repository, untracked)
    assert str(refused.value).startswith("bta: found no such run, expected one of:\n")
    assert "an experiment: beta" in str(refused.value)
    assert "a run in MLflow: tracking is off" in str(refused.value)


@pytest.mark.parametrize("name", ["-q", "--all", "main:dvc.lock", ""])
def test_a_name_is_never_an_option_of_git_nor_a_file(runs: Runs, repository: Repository, untracked: Tracked, name: str) -> None:
    with pytest.raises(SetupError, match="found no such run"):
        find(name, repository, untracked)


def test_a_commit_without_settings_is_refused(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    runs.git("rm", "-q", "params.yaml")
    runs.git("commit", "-q", "-m", "none")
    with pytest.raises(SetupError, match=r"HEAD: found no params\.yaml in commit"):
        find("HEAD", repository, untracked)


def test_settings_and_code_that_were_not_run_are_told(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    file = runs.root / "params.yaml"
    file.write_text(file.read_text().replace("r: 16", "r: 8"))
    (runs.root / MODULE).write_text("changed = True\n")
    settings, code = find("workspace", repository, untracked).notes
    assert settings.startswith("train of params.yaml ran with other values; the scores are of those")
    assert code.startswith(f"{MODULE} changed after it ran")


def test_what_dvc_lock_keeps_of_a_stage_that_dvc_yaml_has_no_more_is_no_part_of_it(
    runs: Runs, repository: Repository, untracked: Tracked
) -> None:
    stages = ("prepare", "train", "evaluate", "export")
    (runs.root / "dvc.yaml").write_text("stages:\n" + "".join(f"  {stage}: {{}}\n" for stage in stages))
    assert {"train", "evaluate"} <= find("workspace", repository, untracked).measured.keys()
    (runs.root / "dvc.yaml").write_text("stages:\n" + "".join(f"  {stage}: {{}}\n" for stage in stages[:2]))
    (runs.root / MODULE).write_text("train = 1\n")
    version = find("workspace", repository, untracked)
    assert (list(version.lock.entries), list(version.measured)) == (["prepare", "train"], ["prepare", "train"])
    (runs.root / "dvc.yaml").write_text("<<<<<<< HEAD\n")
    assert len(find("workspace", repository, untracked).lock.entries) == 4


def test_a_stage_that_was_left_behind_is_told_and_has_no_scores(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    runs.train_alone()
    version = find("workspace", repository, untracked)
    assert "evaluate" not in version.measured
    assert [note for note in version.notes if note.startswith("evaluate did not run after what was made anew before")]


def test_scores_that_the_cache_lost_are_told(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    shutil.rmtree(runs.root / ".dvc/cache")
    version = find("main", repository, untracked)
    assert version.measured == {}
    assert version.notes == [
        "the scores of prepare, train, evaluate are not in DVC's cache: `dvc fetch --all-commits`, or `dvc exp pull` for an experiment"
    ]


def test_scores_in_the_working_tree_are_taken_if_they_are_those_of_the_lock(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    runs.write(0.8, cached=False)
    content = b'{"seen": {"exact_match": 0.8, "exact_match_low": 0.7000000000000001, "exact_match_high": 0.9, "records": 150}}'
    (runs.root / "reports").mkdir()
    (runs.root / "reports/evaluate.json").write_bytes(content)
    assert find("workspace", repository, untracked).measured["evaluate"]["evaluate.seen.exact_match"] == 0.8
    (runs.root / "reports/evaluate.json").write_bytes(content + b" ")
    assert "evaluate" not in find("workspace", repository, untracked).measured


def test_without_results_there_is_nothing_but_settings(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    (runs.root / "dvc.lock").unlink()
    version = find("workspace", repository, untracked)
    assert version.params["train.r"] == 16
    assert (version.measured, version.notes) == ({}, ["has no dvc.lock with results; `dvc repro` makes them"])
