"""Two values of JSON compared key by key, numbers bit for bit."""

from collections.abc import Iterator
from typing import Any

from finetune.proving.difference import Difference, Largest, both, shown

MISSING = object()


def compare(name: str, first: Any, second: Any) -> Difference | None:
    """The first key that parts, keys in sorted order, and the largest difference of two numbers; None: they are the same."""
    met, parted, of, largest = None, 0, 0, Largest()
    for place, a, b in _leaves("", first, second):
        of += 1
        if _same(a, b):
            continue
        parted += 1
        met = met or Difference(name, place or "the value", *both(lambda value: None if value is MISSING else shown(value), a, b))
        if _number(a) and _number(b):
            largest.see(abs(a - b), place)
    if met is None:
        return None
    return Difference(name, met.at, met.first, met.second, parted, of, "values", largest.value, largest.at)


def _leaves(place: str, a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from _leaves(f"{place}.{key}" if place else str(key), a.get(key, MISSING), b.get(key, MISSING))
    elif isinstance(a, list) and isinstance(b, list):
        for index in range(max(len(a), len(b))):
            yield from _leaves(f"{place}[{index}]", *(values[index] if index < len(values) else MISSING for values in (a, b)))
    else:
        yield place, a, b


def _same(a: Any, b: Any) -> bool:
    """Bit for bit: 1 and 1.0, 0.0 and -0.0 are two things, nan is itself."""
    return type(a) is type(b) and repr(a) == repr(b) if _number(a) or _number(b) else a is b or (type(a) is type(b) and bool(a == b))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
