"""Why two runs may have parted, likeliest first."""

from dataclasses import replace

import pytest

from finetune.proving import causes
from finetune.proving.certificate import Again, Certificate, Made, Origin
from finetune.proving.subject import Subject
from tests.unit.proving.conftest import COMMIT, LOCKED

CLEAN = Subject(COMMIT, LOCKED)
KNOWN = {"train": Origin("r1", "first", "0123", ())}


@pytest.fixture
def train(parted: Certificate) -> Made:
    return parted.parting[0]


def test_other_inputs_come_before_everything(train: Made) -> None:
    second = replace(train.second, deps={**train.second.deps, "data/raw": "77"}, params={"seed": 5}, command="python3 -m stages.other")
    found = causes.likely(replace(train, second=second), CLEAN, ["torch 1 is installed, the lock says 2"], KNOWN, None)
    assert found[:4] == [
        "train read other files than dvc.lock records: data/raw",
        "train had other settings than dvc.lock records: seed",
        "train was started as `python3 -m stages.other`, dvc.lock records `python3 -m stages.train`",
        "this environment is not that of the commit's lock: torch 1 is installed, the lock says 2",
    ]


def test_another_machine_is_told_with_what_differs(train: Made) -> None:
    origin = Origin("r1", "first", "0123", tuple(f"field {number}: a → b" for number in range(8)))
    found = causes.likely(train, CLEAN, [], {"train": origin}, "as the second")
    assert found[0].startswith("the recorded train was made in another environment: field 0: a → b; ")
    assert found[0].endswith("field 5: a → b, and 2 more")
    assert found[1].startswith("made a third time here, train came out as the second time: it is exact on this machine")
    assert len(found) == 2


@pytest.mark.parametrize(
    ("origins", "why"),
    [
        (None, "tracking is off, or MLflow could not be asked"),
        ({"train": None}, "MLflow has no run that made it"),
        ({"train": Origin("r1", "first", None, ())}, "its run in MLflow, r1, has no fingerprint"),
    ],
)
def test_a_machine_that_is_not_known_is_suspected_after_what_was_found(
    train: Made, origins: dict[str, Origin | None] | None, why: str
) -> None:
    unknown = f"the machine that made the recorded train is not known ({why}): another processor, GPU or library may be all of it"
    assert causes.likely(train, CLEAN, [], origins, "as the second")[1:] == [unknown]
    assert causes.likely(train, CLEAN, [], origins, "unlike both")[1] == unknown
    assert causes.likely(train, CLEAN, [], origins, None)[0] == unknown


@pytest.mark.parametrize("again", ["as the first", "unlike both"])
def test_a_stage_that_is_not_exact_here_is_told_with_what_its_kind_can_do(train: Made, again: Again) -> None:
    found = causes.likely(train, CLEAN, [], KNOWN, again)
    assert found[0] == f"made a third time here, train came out {again}: it is not exact on this very machine"
    assert found[1].startswith("what train can do: on a GPU: kernels that add in no fixed order")
    assert len(found) == 1 + len(causes.HABITS["train"])


def test_a_stage_that_is_not_exact_here_comes_before_another_machine(train: Made) -> None:
    found = causes.likely(train, CLEAN, [], {"train": Origin("r1", "first", "0123", ("cpu: a → b",))}, "unlike both")
    assert found[0].endswith("it is not exact on this very machine")
    assert found[1] == "the recorded train was made in another environment: cpu: a → b"


def test_what_is_not_committed_is_suspected_before_what_can_only_be_supposed(train: Made) -> None:
    found = causes.likely(train, Subject(COMMIT, LOCKED, False, patch=b"diff"), [], KNOWN, None)
    assert found[0].startswith("the dvc.lock that was proved is not committed")
    assert found[1].startswith("uncommitted changes were taken along")
    assert found[2].startswith("what train can do: ")


def test_each_stage_with_outs_is_known_for_something_and_so_are_the_models_of_answer(train: Made) -> None:
    assert set(causes.HABITS) == {"prepare", "format", "train", "reference", "dpo", "answer", "evaluate", "export", "report"}
    answer = Made(replace(train.first, name="answer@base"), replace(train.second, name="answer@base"))
    assert "a near tie then falls to another token" in causes.likely(answer, CLEAN, [], {}, None)[-1]
