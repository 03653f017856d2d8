"""What people read of the differences of two runs."""

import io

import pytest
from rich.console import Console

from finetune.comparing import tables
from finetune.comparing.repository import Repository
from finetune.comparing.tracked import Tracked
from finetune.fingerprint import Fingerprint
from tests.unit.comparing.conftest import Runs
from tests.unit.comparing.test_differences import HERE, THERE, Knowing, compared


def shown(repository: Repository, tracked: Tracked, b: str = "workspace") -> list[str]:
    """Lines, their columns one blank apart."""
    text = io.StringIO()
    tables.show(compared(repository, tracked, b=b), Console(file=text, highlight=False))
    assert max(map(len, text.getvalue().splitlines())) <= tables.WIDTH
    return [" ".join(line.split()) for line in text.getvalue().splitlines()]


def test_what_is_the_same_takes_a_line_a_section(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    lines = [line for line in shown(repository, untracked) if line]
    assert lines[:2] == [f"A main (commit {runs.git('rev-parse', 'HEAD')[:7]}), seed 17", "B workspace (the workspace), seed 17"]
    assert lines[2:] == [
        "params: the same",
        "data, models and reports: the same bytes",
        "code: the same, of every stage",
        "environment: processors and drivers are not known (tracking is off), so hashes may differ by them alone",
        "the locks of packages are the same",
        "metrics: all 3 are the same",
    ]


def test_a_score_stands_beside_the_spread_of_its_seeds(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    for seed, exact in ((18, 0.72), (19, 0.68)):
        runs.experiment(f"seed-{seed}", exact, seed=seed)
    runs.write(0.90, r=8, raw="other records", packages="torch==2.12.0\n", code="changed = True\n")
    lines = shown(repository, untracked)
    assert "train.r 16 8" in lines
    assert "prepare.kept 7 13" in lines
    assert "finetune/training/order.py changed all stages" in lines
    assert "torch 2.13.0 2.12.0" in lines
    row = "evaluate.seen.exact_match 0.7 (0.6 to 0.8) 0.9 (0.8 to 1) +0.2 0.02 (3, 1) +0.2 ± 0.099 beyond it"
    assert row in lines
    assert "1 more are the same." in lines


def test_without_seeds_it_says_so_and_where_to_read_on(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    runs.write(0.90, r=8)
    lines = shown(repository, untracked)
    assert "evaluate.seen.exact_match 0.7 (0.6 to 0.8) 0.9 (0.8 to 1) +0.2 no seeds ran" in lines
    assert lines[-1] == "no seeds ran: what chance alone makes of it is not known; docs/comparing.md says how to find out."


def test_two_seeds_of_one_run_are_called_that(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    runs.experiment("again", 0.90, seed=18)
    lines = shown(repository, untracked, b="again")
    assert "What went into their scores differs in the seed alone: the differences of scores are chance." in lines
    assert "evaluate.seen.exact_match 0.7 (0.6 to 0.8) 0.9 (0.8 to 1) +0.2 0.14 (2, 2) within it" in lines


def test_what_must_be_known_before_stands_under_the_name(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    (runs.root / "params.yaml").write_text((runs.root / "params.yaml").read_text().replace("r: 16", "r: 8"))
    lines = shown(repository, untracked)
    assert lines[lines.index("B workspace (the workspace), seed 17") + 1].startswith("train of params.yaml ran with other values")


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (HERE, f"environment: the same, {HERE.id}"),
        (THERE, "environment: not the same, so hashes can't be compared, scores can"),
    ],
)
def test_environments_that_are_known_are_told(runs: Runs, repository: Repository, other: Fingerprint, line: str) -> None:
    lines = shown(repository, Knowing({"train": HERE}, {"train": other}))
    assert line in lines
    assert ("cpu: AMD EPYC 7713 → Intel Xeon 8480C" in lines) == (other is THERE)


def test_a_setting_that_is_not_there_is_told_from_one_that_is_null(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    with (runs.root / "params.yaml").open("a") as params:
        params.write("limit: null\nsamples: []\n")
    lines = shown(repository, untracked)
    assert "limit none null" in lines
    assert "samples none" in lines
