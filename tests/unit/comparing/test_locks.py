"""What dvc.lock says of a run: the seed behind a result, what else went into it, and whether it still belongs to the rest."""

from typing import Any

import pytest

from finetune.comparing.locks import Lock
from tests.unit.comparing.conftest import MODULE, Runs


@pytest.fixture
def lock(runs: Runs) -> "Any":
    """`lock(score, …)` → the dvc.lock of such a run."""

    def of(**given: Any) -> Lock:
        runs.write(0.7, **given)
        return Lock.of((runs.root / "dvc.lock").read_text())

    return of


def test_the_seed_of_a_result_is_that_of_all_stages_behind_it(lock: Any) -> None:
    found = lock(seed=18)
    assert (found.seed("export"), found.seed("evaluate"), found.seed("prepare")) == (18, 18, None)
    found.entries["evaluate"].params["seed"] = 19
    assert found.seed("evaluate") is None


def test_everything_that_goes_into_a_result_tells_it_apart_but_the_seed(lock: Any) -> None:
    one = lock().but_for_seed("evaluate")
    assert lock(seed=18).but_for_seed("evaluate") == one
    assert lock(merged=False).but_for_seed("evaluate") == one  # export is not behind it
    assert lock(merged=False).but_for_seed("export") != lock().but_for_seed("export")
    others = [lock(r=8), lock(code="pass\n"), lock(raw="other records"), lock(packages="torch==2.11.0\n")]
    assert len({one, *(other.but_for_seed("evaluate") for other in others)}) == 5


def test_a_result_is_outdated_when_a_stage_behind_it_ran_again_without_it(lock: Any, runs: Runs) -> None:
    assert not lock().outdated("evaluate")
    runs.train_alone()
    found = Lock.of((runs.root / "dvc.lock").read_text())
    assert found.outdated("evaluate")
    assert not found.outdated("prepare")


def test_inputs_are_what_no_stage_wrote(lock: Any) -> None:
    found = lock()
    assert set(found.inputs) == {"data/raw", MODULE, "requirements.lock"}
    assert list(found.readers(MODULE)) == ["prepare", "train", "evaluate", "export"]
    assert (found.writer("models/train"), found.writer("data/raw")) == ("train", None)


def test_reading_a_part_of_an_out_or_the_folder_around_it_is_reading_it() -> None:
    entry = "cmd: x, deps: [{{path: {}, md5: a}}], outs: [{{path: {}, md5: b}}]"
    text = "\n".join(
        [
            "stages:",
            f"  format: {{{entry.format('raw', 'data/formatted/sft')}}}",
            f"  answer: {{{entry.format('data/formatted/sft/test.parquet', 'answers')}}}",
            f"  export: {{{entry.format('data/formatted', 'export')}}}",
        ]
    )
    found = Lock.of(text)
    assert found.behind("answer") == ["answer", "format"]
    assert found.behind("export") == ["export", "format"]
    assert set(found.inputs) == {"raw"}


def test_small_numbers_are_numbers_and_hashes_that_look_like_them_are_not() -> None:
    """DVC writes YAML 1.2, where 2e-05 is a number; a hash may begin like one."""
    text = "stages: {train: {cmd: x, params: {params.yaml: {rate: 2e-05}}, outs: [{path: m, md5: 5e6cf8a5674c5e46297fbaa6619bb980}]}}"
    found = Lock.of(text).entries["train"]
    assert found.params["rate"] == 2e-5
    assert found.outs["m"] == "5e6cf8a5674c5e46297fbaa6619bb980"
