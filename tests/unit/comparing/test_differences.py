"""What differs between two runs, from the settings to the scores, and what the seeds say of each score."""

import json
from dataclasses import replace
from typing import Any

import pytest

from finetune.comparing import differences
from finetune.comparing.chance import BEYOND, UNKNOWN, WITHIN
from finetune.comparing.differences import Differences, Score
from finetune.comparing.repository import Repository
from finetune.comparing.tracked import Tracked
from finetune.comparing.versions import find
from finetune.fingerprint import Fingerprint
from tests.unit.comparing.conftest import MODULE, Runs

EXACT = "evaluate.seen.exact_match"
HERE = Fingerprint("AMD EPYC 7713", "AVX2", None, None, "glibc 2.36", "3.11.7", {"torch": "2.13.0"}, None)
THERE = replace(HERE, cpu="Intel Xeon 8480C", instructions="AVX512")


class Knowing(Tracked):
    """A MLflow that knows in which environments the stages of both were made."""

    def __init__(self, *made: dict[str, Fingerprint]) -> None:
        self._made = made

    @property
    def trouble(self) -> str | None:
        return None

    def ask(self, lock_texts: Any) -> Any:
        return self

    def answer(self) -> tuple[list[dict[str, Fingerprint]], None]:
        return list(self._made), None


def compared(repository: Repository, tracked: Tracked, a: str = "main", b: str = "workspace") -> Differences:
    return differences.compare(find(a, repository, tracked), find(b, repository, tracked), repository, tracked)


def score(found: Differences, name: str = EXACT) -> Score:
    return next(one for one in found.scores if one.name == name)


def test_a_run_differs_in_nothing_from_itself(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    found = compared(repository, untracked)
    assert (found.params, found.data, found.counts, found.code, found.packages, found.scores) == ({}, {}, {}, [], {}, [])
    assert found.equal == 3  # two scores, and the records; the ends of an interval are no scores of their own


def test_settings_data_counts_and_scores_that_differ_are_all_there(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    runs.write(0.80, r=8, raw="other records")
    found = compared(repository, untracked)
    assert found.params == {"train.r": (16, 8)}
    assert set(found.data) == {
        "data/raw",
        "data/prepared",
        "models/train",
        "models/export",
        *(f"reports/{name}.json" for name in ("prepare", "train", "evaluate")),
    }
    assert found.counts == {"prepare.kept": (7.0, 13.0)}
    assert (score(found).a, score(found).b) == (0.7, 0.8)
    assert score(found).interval_b == pytest.approx((0.7, 0.9))


def test_changed_code_is_told_with_the_stages_that_read_it(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    runs.write(0.70, code="changed = True\n")
    (module,) = compared(repository, untracked).code
    assert (module.path, module.what, module.stages) == (MODULE, "changed", ("prepare", "train", "evaluate", "export"))


def test_code_that_one_stage_alone_ran_is_told_with_that_stage_and_as_changed_since(
    runs: Runs, repository: Repository, untracked: Tracked
) -> None:
    runs.commit(0.70, code="old = True\n")
    runs.alone("export", "new = True\n")
    found = compared(repository, untracked)
    assert [(module.path, module.stages) for module in found.code] == [(MODULE, ("export",))]
    assert found.b.notes == [f"{MODULE} changed after it ran; the scores are of what ran: `dvc repro` brings both together"]


def test_one_seed_in_two_environments_is_not_called_the_chance_of_seeds(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    runs.experiment("elsewhere", 0.71)
    judged = score(compared(repository, untracked, b="elsewhere")).judgement
    assert judged is not None
    assert judged.verdict == UNKNOWN
    for seed, exact in ((18, 0.72), (19, 0.68), (20, 0.71), (21, 0.69)):
        runs.experiment(f"seed-{seed}", exact, seed=seed)
    judged = score(compared(repository, untracked, b="elsewhere")).judgement
    assert judged is not None
    assert judged.verdict == WITHIN
    assert judged.change == pytest.approx(0.01), "from the mean of the seeds"


def test_changed_packages_are_told_by_their_versions(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    runs.write(0.70, packages="torch==2.12.0\npeft==0.21.2\n")
    assert compared(repository, untracked).packages == {"requirements.lock": {"peft": (None, "0.21.2"), "torch": ("2.13.0", "2.12.0")}}


def test_a_lock_of_packages_that_is_not_the_one_that_ran_is_told_by_its_hash_alone(
    runs: Runs, repository: Repository, untracked: Tracked
) -> None:
    runs.write(0.70, packages="torch==2.12.0\n")
    (runs.root / "requirements.lock").write_text("torch==2.11.0\n")
    (pair,) = compared(repository, untracked).packages["requirements.lock"].values()
    assert pair[0] != pair[1]


def test_without_seeds_no_difference_is_called_a_gain(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    runs.experiment("other", 0.9, r=4)
    runs.write(0.80, r=8)
    judged = score(compared(repository, untracked)).judgement
    assert judged is not None
    assert (judged.verdict, judged.allowed) == (UNKNOWN, None)


@pytest.mark.parametrize(("gained", "verdict"), [(0.72, WITHIN), (0.90, BEYOND)])
def test_seeds_of_one_side_tell_noise_from_gain(
    runs: Runs, repository: Repository, untracked: Tracked, gained: float, verdict: str
) -> None:
    for seed, exact in ((18, 0.72), (19, 0.68), (20, 0.71), (21, 0.69)):
        runs.experiment(f"seed-{seed}", exact, seed=seed, merged=False)  # what export does is behind no score of evaluate
    runs.experiment("no-seed", 0.1, seed=22, code="changed = True\n")
    runs.write(gained, r=8)
    found = score(compared(repository, untracked))
    assert found.spread_a is not None
    assert found.spread_a.values == {17: 0.70, 18: 0.72, 19: 0.68, 20: 0.71, 21: 0.69}
    assert found.spread_b is not None
    assert found.spread_b.values == {17: gained}
    assert found.judgement is not None
    assert found.judgement.verdict == verdict


def test_seeds_of_the_other_side_and_committed_ones_count_too(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    for seed in (18, 19, 20):
        runs.commit(0.8 + seed / 1000, r=8, seed=seed)
    runs.write(0.82, r=8)
    found = score(compared(repository, untracked, a="HEAD~3"))
    assert found.spread_a is not None
    assert found.spread_b is not None
    assert (set(found.spread_a.values), set(found.spread_b.values)) == ({17}, {17, 18, 19, 20})
    assert found.judgement is not None
    assert found.judgement.verdict == BEYOND


def test_runs_that_differ_in_the_seed_alone_differ_by_chance(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    runs.experiment("far", 0.99, seed=18)
    found = compared(repository, untracked, b="far")
    assert found.only_seed
    judged = score(found).judgement
    assert judged is not None
    assert judged.verdict == WITHIN
    assert not compared(repository, untracked).only_seed


def test_a_seed_whose_scores_are_lost_is_left_out(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    runs.experiment("lost", 0.75, seed=18, cached=False)
    runs.write(0.80, r=8)
    found = score(compared(repository, untracked))
    assert found.spread_a is not None
    assert set(found.spread_a.values) == {17}


def test_environments_are_the_same_only_where_both_are_known(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    both: dict[str, Any] = {"train": HERE}
    assert compared(repository, untracked).same_environment is None
    assert compared(repository, untracked).trouble == "tracking is off"
    assert compared(repository, Knowing(both, {})).same_environment is None
    assert compared(repository, Knowing(both, both)).same_environment is True
    differing = compared(repository, Knowing(both, {"train": THERE}))
    assert differing.same_environment is False
    assert list(differing.fingerprints) == HERE.differences(THERE)


def test_all_of_it_is_json(runs: Runs, repository: Repository, untracked: Tracked) -> None:
    runs.experiment("seed-18", 0.74, seed=18)
    runs.write(0.80, r=8, packages="torch==2.12.0\n", code="changed = True\n")
    found = json.loads(json.dumps(compared(repository, untracked).as_dict(), allow_nan=False))
    assert found["params"] == {"train.r": {"a": 16, "b": 8}}
    assert found["b"]["title"] == "the workspace"
    assert found["code"][0]["path"] == MODULE
    assert found["environment"] == {
        "same": None,
        "differences": [],
        "a": {},
        "b": {},
        "packages": {"requirements.lock": {"torch": {"a": "2.13.0", "b": "2.12.0"}}},
        "unknown_because": "tracking is off",
    }
    exact = found["metrics"][EXACT]
    assert exact["difference"] == pytest.approx(0.1)
    assert exact["seeds_a"]["seeds"] == {"17": 0.7, "18": 0.74}
    assert exact["verdict"] == WITHIN
