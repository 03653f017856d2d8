"""Settings and scores as flat tables: `dpo.seen.exact_match` → number."""

import json
from collections.abc import Iterator, Mapping
from typing import Any


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key → whatever is no mapping."""
    return dict(_walk(values, prefix))


def scores(content: bytes, stage: str) -> dict[str, float]:
    """`evaluate.dpo.seen.exact_match` → number, of a metrics file; curves, which are lists, are left out, as DVC and MLflow do."""
    found = flat(json.loads(content), f"{stage}.")
    return {key: float(value) for key, value in found.items() if isinstance(value, int | float) and not isinstance(value, bool)}


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key → both values, where they are not the same; None stands for a key that one hasn't."""
    return {key: (a.get(key), b.get(key)) for key in sorted({*a, *b}) if a.get(key) != b.get(key) or (key in a) != (key in b)}


def _walk(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _walk(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
