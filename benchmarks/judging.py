"""Verdicts on raw samples: benchmarks/asked.yaml says which, which statistic of them, and which bound.

OK        the result is of these files, and every bound holds
SHORT     a bound does not hold
STALE     files that decide the number have changed since it was measured
MISSING   no result, or a sample that is asked for is not in it
"""

import operator
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from benchmarks import record
from benchmarks.record import Samples

State = Literal["OK", "SHORT", "STALE", "MISSING"]
Statistic = Literal["median", "min", "max", "mean", "sum"]

STATISTICS: dict[Statistic, Callable[[Sequence[float]], float]] = {
    "median": statistics.median,
    "min": min,
    "max": max,
    "mean": statistics.fmean,
    "sum": sum,
}
DIGITS = 9  # numbers are compared after rounding, because 0.76 - 0.02 is not 0.74 in binary
COMPARISONS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "at_most": ("≤", operator.le),
    "at_least": ("≥", operator.ge),
    "above": (">", operator.gt),
}


class _Asked(BaseModel):
    """A part of asked.yaml: no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Quantity(_Asked):
    """A number made of raw samples: statistic × times + plus."""

    sample: str
    """Name of the raw samples in the result."""
    statistic: Statistic = "median"
    times: float = 1.0
    plus: float = 0.0

    def of(self, samples: Samples) -> float:
        """Compute it; KeyError when the result has no such samples."""
        return round(STATISTICS[self.statistic](samples[self.sample]) * self.times + self.plus, DIGITS)


class Bound(_Asked):
    """One number that an issue asks for."""

    what: str
    """What a person reads in the table."""
    sample: str
    statistic: Statistic | None = None
    """None: every raw sample must keep the bound, so the worst one is compared."""
    unit: str = ""
    at_most: float | Quantity | None = None
    at_least: float | Quantity | None = None
    above: float | Quantity | None = None

    @model_validator(mode="after")
    def _one_comparison(self) -> Self:
        if sum(getattr(self, name) is not None for name in COMPARISONS) != 1:
            raise ValueError(f"{self.what}: expected exactly one of {', '.join(COMPARISONS)}")
        return self


class Figure(_Asked):
    """What an issue asks of one figure."""

    issue: int
    asks: str
    measured_by: str | None = None
    """The figure whose result holds the samples, where one expensive run serves two; None: its own."""
    bounds: list[Bound]
    shown: list[str] = []
    """Samples without a bound that are reported as they are."""


@dataclass(frozen=True)
class Line:
    """A bound, or a sample that is only shown, with the number found; a number that is None is not in the result."""

    what: str
    unit: str
    found: float | None
    sign: str = ""
    bound: float | None = None
    holds: bool = True


@dataclass(frozen=True)
class Verdict:
    """The judgement of one figure; `changed` names the files that made it stale."""

    name: str
    asked: Figure
    state: State
    lines: list[Line] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def read_asked(file: Path) -> dict[str, Figure]:
    """The figures that issues ask for, by name."""
    return {name: Figure.model_validate(value) for name, value in yaml.safe_load(file.read_text(encoding="utf-8")).items()}


def judge(name: str, asked: Figure, root: Path) -> Verdict:
    """Compare the result that is there with what is asked, and with the files as they are now."""
    source = asked.measured_by or name
    found = record.read(source, root)
    if found is None:
        return Verdict(name, asked, "MISSING")
    samples: Samples = found["samples"]
    lines = [_line(bound, samples) for bound in asked.bounds] + [_shown(sample, samples) for sample in asked.shown]
    changed = record.differing(found["covers"], record.covers(source, root))
    state: State = "OK"
    if any(line.found is None for line in lines):
        state = "MISSING"
    elif changed:
        state = "STALE"
    elif not all(line.holds for line in lines):
        state = "SHORT"
    return Verdict(name, asked, state, lines, changed)


def _line(bound: Bound, samples: Samples) -> Line:
    """Hold one bound against the samples."""
    kind = next(name for name in COMPARISONS if getattr(bound, name) is not None)
    sign, holds = COMPARISONS[kind]
    limit: float | Quantity = getattr(bound, kind)
    worst: Statistic = "max" if kind == "at_most" else "min"
    try:
        found = round(STATISTICS[bound.statistic or worst](samples[bound.sample]), DIGITS)
        value = limit.of(samples) if isinstance(limit, Quantity) else limit
    except KeyError:
        return Line(bound.what, bound.unit, None, sign, holds=False)
    return Line(bound.what, bound.unit, found, sign, value, holds(found, value))


def _shown(sample: str, samples: Samples) -> Line:
    """A sample reported without a bound, by its median."""
    return Line(sample, "", statistics.median(samples[sample]) if sample in samples else None)
