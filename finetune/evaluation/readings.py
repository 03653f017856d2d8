"""What the models said, read for comparing them: answers and likelihoods that are of the same records, in the same order."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune import outputs, paths
from finetune.errors import DataError

MODELS = ("base", "train", "dpo")
KINDS = ("validation", "preference", "validation_4bit")

Rows = list[dict[str, Any]]


def answers() -> dict[str, Rows]:
    """Model → its answers.

    Raises:
        DataError: a file is missing, empty or cut off, or the models were not asked the same.
    """
    found = {model: _read(paths.ANSWERS / f"{model}.jsonl", model) for model in MODELS}
    _same_records(found, paths.ANSWERS, ("id", "slice", "prompt", "expected"))
    return found


def likelihoods() -> dict[str, dict[str, Rows]]:
    """Model → kind → its rows.

    Raises:
        DataError: as for answers.
    """
    found: dict[str, dict[str, Rows]] = {}
    for model in MODELS:
        path = paths.LIKELIHOODS / f"{model}.jsonl"
        rows = _read(path, model)
        found[model] = {kind: [row for row in rows if row["kind"] == kind] for kind in KINDS}
        if missing := [kind for kind in ("validation", "preference") if not found[model][kind]]:
            raise DataError("likelihoods are missing:", [f"{path}: found no row of kind {missing[0]}"], _again(model))
    for kind, keys in (("validation", ("id", "slice", "tokens", "bytes")), ("preference", ("id", "slice"))):
        _same_records({model: kinds[kind] for model, kinds in found.items()}, paths.LIKELIHOODS, keys)
    return found


def _read(path: Path, model: str) -> Rows:
    if not path.is_file():
        raise DataError("a model was not asked:", [f"{path}: found no such file"], _again(model))
    try:
        rows = outputs.read_jsonl(path)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError("a file can't be read:", [f"{path}: found a line that is not JSON ({error})"], _again(model)) from None
    if not rows:
        raise DataError("a file is empty:", [f"{path}: found no line"], _again(model))
    return rows


def _same_records(by_model: Mapping[str, Rows], folder: Path, keys: Sequence[str]) -> None:
    """Refuse rows that differ between the models in anything but what the model said."""
    asked = {model: [tuple(row[key] for key in keys) for row in rows] for model, rows in by_model.items()}
    first, *others = MODELS
    for other in others:
        if asked[other] != asked[first]:
            both = [folder / f"{model}.jsonl" for model in (first, other)]
            problems = [*_lone(both[0], both[1], asked[first], asked[other]), *_lone(both[1], both[0], asked[other], asked[first])]
            otherwise = f"{both[1]}: found the records of {both[0]} in another order or with other texts"
            raise DataError(f"{first} and {other} were not asked the same:", problems or [otherwise], _again(other))


def _lone(path: Path, than: Path, here: Sequence[tuple[Any, ...]], there: Sequence[tuple[Any, ...]]) -> list[str]:
    """A line on records that only one of two files has; none if there are none."""
    ids = sorted({row[0] for row in here} - {row[0] for row in there})
    return [f"{path}: found {len(ids):,} record{'s' * (len(ids) != 1)} that {than} has not, {ids[0]} for one"] if ids else []


def _again(model: str) -> str:
    return f"run `dvc repro`, or `python -m stages.answer answer.which={model}` and the same command again"
