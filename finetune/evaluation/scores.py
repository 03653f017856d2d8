"""Answers → scores, by the metric modules in metrics/, which the `evaluate` library loads without its hub."""

import atexit
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from finetune.config.schema import METRICS, Evaluate
from finetune.evaluation.comparison import with_interval
from finetune.evaluation.library import evaluate

LOADED = ("finetune/evaluation/metrics",)

Rows = Sequence[Mapping[str, Any]]
Judgements = dict[str, list[float | None]]


def judged(rows: Rows, settings: Evaluate) -> Judgements:
    """Metric → one number for each answer, None where the metric does not apply to what was expected."""
    answers, expected = [row["answer"] for row in rows], [row["expected"] for row in rows]
    return {name: _metric(name).compute(predictions=answers, references=expected)["each"] for name in settings.metrics}


def of_slice(rows: Rows, judgements: Judgements, name: str, settings: Evaluate, seed: int) -> dict[str, float]:
    """Numbers of records and of answers that were cut, and each metric with its interval; one that applies to no record is left out."""
    places = [place for place, row in enumerate(rows) if row["slice"] == name]
    cut = sum(not rows[place]["ended"] for place in places)
    scores: dict[str, float] = {"records": len(places), "cut": cut, "confidence": settings.confidence}
    for metric, judgement in judgements.items():
        counted = [value for place in places if (value := judgement[place]) is not None]
        if counted:
            scores |= with_interval(metric, counted, settings, seed)
    return scores


def slices(rows: Rows) -> list[str]:
    """Names of the slices, in the order in which the test set has them."""
    return list(dict.fromkeys(row["slice"] for row in rows))


def _metric(name: str) -> Any:
    """A metric as it is now.

    `evaluate` imports a copy of the module. Kept for this process alone, a copy is never stale after an edit, never half-written by a
    process that was stopped, and never in the way of a run beside this one.
    """
    folder = _scratch()
    evaluate.config.HF_MODULES_CACHE = folder / "modules"
    return evaluate.load(str(METRICS / name), cache_dir=str(folder / "data"), keep_in_memory=True)


@cache
def _scratch() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="metrics-")
    atexit.register(folder.cleanup)
    return Path(folder.name)
