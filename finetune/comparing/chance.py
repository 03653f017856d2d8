"""How much of a difference is chance: the spread of a score over runs that differ in their seed alone, and what it lets a difference be."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Verdict = Literal["within the spread of seeds", "beyond it", "no seeds ran"]
WITHIN: Final = "within the spread of seeds"
BEYOND: Final = "beyond it"
UNKNOWN: Final = "no seeds ran"
SURE = 0.95  # share of the differences of pure chance that are called within


@dataclass(frozen=True)
class Spread:
    """One score under several seeds."""

    values: Mapping[int, float]
    """Seed → the score; at least one."""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values.values())

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds; None for one seed."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = self.values.values()
        return {
            "seeds": {str(seed): value for seed, value in sorted(self.values.items())},
            "mean": self.mean,
            "standard_deviation": self.deviation,
            "lowest": min(values),
            "highest": max(values),
        }


@dataclass(frozen=True)
class Judgement:
    """What the seeds say of a difference."""

    verdict: Verdict
    change: float | None = None
    """Mean of b's seeds less mean of a's; None where no seeds ran."""
    allowed: float | None = None
    """What chance makes of it either way, in 95 of 100 cases."""
    deviation: float | None = None
    """Standard deviation over the seeds, of both sides together."""


def judge(a: Spread, b: Spread) -> Judgement:
    """Compare the means: beyond is what fewer than 5 of 100 pairs of runs would show that differ in their seeds alone.

    Student's t interval for two groups of one variance, which both estimate as far as they have several seeds; a group of one seed is a
    run like those of the other. The range over the seeds would be no measure: a fourth run lies outside that of three every second time.
    """
    freedom = len(a.values) + len(b.values) - 2
    if freedom < 1:
        return Judgement(UNKNOWN)
    squares = sum((len(one.values) - 1) * (one.deviation or 0.0) ** 2 for one in (a, b))
    deviation = math.sqrt(squares / freedom)
    change = b.mean - a.mean
    allowed = _quantile(freedom) * deviation * math.sqrt(1 / len(a.values) + 1 / len(b.values))
    return Judgement(WITHIN if abs(change) <= allowed else BEYOND, change, allowed, deviation)


def spreads(runs: Iterable[tuple[int, Mapping[str, float]]]) -> dict[str, Spread]:
    """Name of a score → its spread, from runs of different seeds; of two with one seed the first counts."""
    found: dict[str, dict[int, float]] = {}
    for seed, scores in runs:
        for name, value in scores.items():
            found.setdefault(name, {}).setdefault(seed, value)
    return {name: Spread(values) for name, values in found.items()}


def _quantile(freedom: int) -> float:
    from scipy.special import stdtrit  # 0.2 s, and only where seeds ran

    return float(stdtrit(freedom, 0.5 + SURE / 2))
