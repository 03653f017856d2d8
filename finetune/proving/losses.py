"""The steps of a training, of the first run and of the second, compared number by number."""

from dataclasses import dataclass
from typing import Any

from finetune.proving import values
from finetune.proving.difference import Largest

TRAININGS = ("train", "dpo")


@dataclass(frozen=True)
class Losses:
    """How far two trainings went the same way."""

    steps: int
    """Of the second."""
    first_steps: int | None
    """Of the first; None: its report can't be had."""
    parted_at: int | None = None
    """The first step with a number that is not the same; None: there is none."""
    number: str | None = None
    """Which number that is: the loss, or another one where the losses are the same."""
    first: str | None = None
    second: str | None = None
    largest_loss: float | None = None
    """The largest difference of the loss of one step, over all steps."""

    @property
    def same(self) -> bool:
        """Whether every number of every step is the same, bit for bit."""
        return self.first_steps == self.steps and self.parted_at is None


def compare(first: dict[str, Any] | None, second: dict[str, Any]) -> Losses:
    """Compare two reports of a training stage; their floats are at full precision."""
    after = second["steps"]
    if first is None:
        return Losses(len(after), None)
    before = first["steps"]
    largest = Largest()
    for a, b in zip(before, after, strict=False):
        largest.see(abs(a["loss"] - b["loss"]), "")
    for a, b in zip(before, after, strict=False):
        found = values.compare("", {"loss": a["loss"]}, {"loss": b["loss"]}) or values.compare("", a, b)
        if found is not None:
            return Losses(len(after), len(before), b["step"], found.at, found.first, found.second, largest.value)
    if len(before) != len(after):
        short = min(len(before), len(after))
        step = max(before, after, key=len)[short]["step"]
        first_there, second_there = ("there" if short < len(rows) else None for rows in (before, after))
        return Losses(len(after), len(before), step, "step", first_there, second_there, largest.value)
    return Losses(len(after), len(before))
