"""The call that a request stands for: an intent of Home Assistant and its slots, written as one line of JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

Value = str | int | float
FIRST = ("name", "area", "floor", "domain")  # what a request is about comes first, then how much of what, by name


@dataclass(frozen=True)
class Call:
    """An intent and its slots, in the order in which they are written."""

    intent: str
    slots: tuple[tuple[str, Value], ...]

    def text(self) -> str:
        """`{"intent": "HassTurnOn", "name": "porch light", "area": "basement"}`"""
        return json.dumps({"intent": self.intent, **dict(self.slots)}, ensure_ascii=False)


def call(intent: str, slots: Mapping[str, Value]) -> Call:
    """Return the call with its slots in order, and numbers without a fraction as integers (hassil gives 30.0)."""
    ordered = sorted(slots.items(), key=lambda slot: (FIRST.index(slot[0]) if slot[0] in FIRST else len(FIRST), slot[0]))
    return Call(intent, tuple((name, _whole(value)) for name, value in ordered))


def _whole(value: Value) -> Value:
    return int(value) if isinstance(value, float) and value.is_integer() else value
