"""The slices of the test set: which there are, and in which order people read them."""

from collections.abc import Mapping
from typing import Any


def scored(evaluated: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Slices that any model of reports/evaluate.json was scored on, `seen` first."""
    parts = [part for scores in evaluated.values() for part in scores.items()]
    found = {name for name, score in parts if isinstance(score, Mapping) and "exact_match" in score}
    return sorted(found, key=lambda name: (name != "seen", name))
