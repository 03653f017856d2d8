"""Samples show every kind of outcome, differences first, and are the same for the same answers."""

import random
from typing import Any

from finetune.evaluation.samples import side_by_side

MODELS = ("base", "train", "dpo")
KINDS = {(False, True, True): 60, (False, False, True): 3, (False, True, False): 2, (False, False, False): 20, (True, True, True): 5}


def answers(
    slices: tuple[str, ...] = ("seen",), ended: bool = True
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[float | None]]]:
    said: dict[str, list[dict[str, Any]]] = {model: [] for model in MODELS}
    exact: dict[str, list[float | None]] = {model: [] for model in MODELS}
    for kind, count in KINDS.items():
        for number in range(count):
            row = {"id": f"{kind}{number:03}", "slice": slices[number % len(slices)], "prompt": f"do {number}", "expected": '{"a": 1}'}
            for model, right in zip(MODELS, kind, strict=True):
                said[model].append({**row, "answer": '{"a": 1}' if right else '{"a": 2}', "ended": ended})
                exact[model].append(float(right))
    return said, exact


def outcomes(samples: list[dict[str, Any]]) -> list[tuple[bool, ...]]:
    return [tuple(verdict == "right" for verdict in sample["verdicts"].values()) for sample in samples]


def test_differences_of_the_last_step_come_first_then_others_then_agreement() -> None:
    found = outcomes(side_by_side(*answers(), limit=40))
    ranks = [0 if one[1] != one[2] else 1 if len(set(one)) > 1 else 2 for one in found]
    assert ranks == sorted(ranks)
    assert ranks.count(0) == 5, "all there are"


def test_every_outcome_and_every_slice_is_shown_even_in_few() -> None:
    samples = side_by_side(*answers(("seen", "new_home")), limit=10)
    assert len(samples) == 10
    assert set(outcomes(samples)) == set(KINDS)
    assert {sample["slice"] for sample in samples} == {"seen", "new_home"}


def test_the_order_of_the_answers_does_not_matter() -> None:
    said, exact = answers()
    places = list(range(len(said["base"])))
    random.Random(3).shuffle(places)
    shuffled = {model: [rows[place] for place in places] for model, rows in said.items()}
    judged = {model: [values[place] for place in places] for model, values in exact.items()}
    assert side_by_side(shuffled, judged, 30) == side_by_side(said, exact, 30)


def test_a_row_reads_from_left_to_right() -> None:
    sample = side_by_side(*answers(), limit=1)[0]
    assert list(sample) == ["slice", "prompt", "expected", "base", "train", "dpo", "verdicts", "id"]


def test_a_limit_above_the_number_of_answers_shows_all() -> None:
    assert len(side_by_side(*answers(), limit=1000)) == sum(KINDS.values())


def test_verdicts_say_what_went_wrong() -> None:
    row = {"id": "1", "slice": "seen", "prompt": "p", "expected": '{"a": 1}'}
    said = {
        "base": [{**row, "answer": "Sure! Here", "ended": False}],
        "train": [{**row, "answer": "<a>1</a>", "ended": True}],
        "dpo": [{**row, "answer": '{"a": 2}', "ended": True}],
    }
    (sample,) = side_by_side(said, {model: [0.0] for model in MODELS}, 1)
    assert sample["verdicts"] == {"base": "cut", "train": "not JSON", "dpo": "wrong"}
