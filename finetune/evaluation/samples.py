"""Answers side by side, for a person to read: the ones where the models differ first."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from finetune.evaluation.judging import json_object

Row = dict[str, Any]


def side_by_side(answers: Mapping[str, Sequence[Row]], exact: Mapping[str, Sequence[float | None]], limit: int) -> list[Row]:
    """Rows of prompt, what was expected, and each model's answer with its verdict; at most `limit`, always the same for the same answers.

    Each kind of outcome (who was right, who was not) in each slice gives one row in turn, so that neither what went well nor what went
    wrong fills the file; what is taken is then sorted: differences between the last two models, other differences, agreement.
    """
    models = list(answers)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for place, row in enumerate(answers[models[0]]):
        verdicts = {model: _verdict(answers[model][place], bool(exact[model][place])) for model in models}
        said = {model: answers[model][place]["answer"] for model in models}
        asked = {key: row[key] for key in ("slice", "prompt", "expected")}
        sample = {**asked, **said, "verdicts": verdicts, "id": row["id"]}
        right = tuple(verdict == "right" for verdict in verdicts.values())
        groups.setdefault((_rank(right), right, row["slice"]), []).append(sample)
    in_order = {key: sorted(groups[key], key=lambda sample: str(sample["id"])) for key in sorted(groups)}
    taken = {sample["id"] for _, sample in zip(range(limit), _in_turn(in_order.values()), strict=False)}
    return [sample for samples in in_order.values() for sample in samples if sample["id"] in taken]


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


def _in_turn(groups: Iterable[Iterable[Row]]) -> Iterator[Row]:
    """One of each group, then a second of each, until all are empty."""
    for turn in zip_longest(*groups):
        yield from (sample for sample in turn if sample is not None)
