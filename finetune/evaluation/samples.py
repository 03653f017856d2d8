"""Answers side by side, for a person to read: the ones where the models differ first."""

from collections.abc import Mapping, Sequence
from itertools import islice, zip_longest
from typing import Any

from finetune.evaluation.judging import json_object

Row = dict[str, Any]


def side_by_side(answers: Mapping[str, Sequence[Row]], exact: Mapping[str, Sequence[float | None]], limit: int) -> list[Row]:
    """Rows of prompt, what was expected, and each model's answer with its verdict; at most `limit`, always the same for the same answers.

    Each kind of outcome (who was right, who was not) in each slice gives one row in turn, so that neither what went well nor what went
    wrong fills the file; what is taken is then sorted: differences between the last two models, other differences, agreement.
    """
    models = list(answers)
    samples = []
    for place, row in enumerate(answers[models[0]]):
        verdicts = {model: _verdict(answers[model][place], bool(exact[model][place])) for model in models}
        said = {model: answers[model][place]["answer"] for model in models}
        asked = {key: row[key] for key in ("slice", "prompt", "expected")}
        samples.append({**asked, **said, "verdicts": verdicts, "id": row["id"]})
    return in_turn(sorted(samples, key=lambda sample: (_kind(sample), str(sample["id"]))), limit)


def in_turn(samples: Sequence[Row], limit: int) -> list[Row]:
    """At most `limit` of the samples, in their order: the first of each kind of outcome in each slice, then the second of each, …."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, sample in enumerate(samples):
        groups.setdefault(_kind(sample), []).append(place)
    turns = (place for turn in zip_longest(*groups.values()) for place in turn if place is not None)
    return [samples[place] for place in sorted(islice(turns, limit))]


def _kind(sample: Row) -> tuple[Any, ...]:
    right = tuple(verdict == "right" for verdict in sample["verdicts"].values())
    return _rank(right), right, sample["slice"]


def _verdict(row: Row, right: bool) -> str:
    """What became of an answer, in a word or two."""
    if right:
        return "right"
    if not row["ended"]:
        return "cut"
    if json_object(row["expected"]) is not None and json_object(row["answer"]) is None:
        return "not JSON"
    return "wrong"


def _rank(right: Sequence[bool]) -> int:
    """What is worth reading first: 0 where the last step of tuning made a difference, 1 where an earlier one did, 2 elsewhere."""
    return 0 if right[-1] != right[-2] else 1 if len(set(right)) > 1 else 2
