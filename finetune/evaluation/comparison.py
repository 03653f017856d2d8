"""How sure a mean is, and what likelihoods come to."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.config.schema import Evaluate

BLOCK = 4_000_000  # numbers drawn at once: 32 MB

Row = Mapping[str, Any]


def interval(values: Sequence[float], settings: Evaluate, seed: int) -> tuple[float, float]:
    """Ends of the percentile bootstrap interval of the mean (Efron 1979): the middle `confidence` of the means of resamples.

    The same seed draws the same resamples, so intervals of two models on the same records move together. Where all values are equal
    the interval has no width: of 150 answers, all wrong, it doesn't say that one in a hundred might be right.
    """
    known = np.asarray(values, dtype=np.float64)
    draw = np.random.default_rng(seed)
    means: list[npt.NDArray[np.float64]] = []
    left, at_once = settings.resamples, max(1, BLOCK // len(known))
    while left > 0:
        means.append(known[draw.integers(len(known), size=(min(left, at_once), len(known)))].mean(axis=1))
        left -= at_once
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def with_interval(name: str, values: Sequence[float], settings: Evaluate, seed: int) -> dict[str, float]:
    """`{"margin": mean, "margin_low": …, "margin_high": …}`."""
    low, high = interval(values, settings, seed)
    return {name: float(np.mean(values)), f"{name}_low": low, f"{name}_high": high}


def validation(rows: Sequence[Row]) -> dict[str, float]:
    """Mean loss over all supervised tokens, its perplexity, and bits a byte of text, which compares models with different tokenizers."""
    logp, tokens, size = (math.fsum(row[key] for row in rows) for key in ("logp", "tokens", "bytes"))
    loss = -logp / tokens
    bits = {"bits_per_byte": -logp / math.log(2) / size} if size else {}
    return {"loss": loss, "perplexity": math.exp(loss), **bits}


def preference(rows: Sequence[Row], reference: Sequence[Row], beta: float, settings: Evaluate, seed: int) -> dict[str, float]:
    """Share of pairs whose chosen answer is the more likely one, without a reference; and the mean reward margin, with it.

    The reward of an answer is beta × how much more likely it is than under the reference (Rafailov et al. 2023, arXiv:2305.18290).
    """
    chosen, rejected, ref_chosen, ref_rejected = (
        np.array([row[side] for row in some], dtype=np.float64) for some in (rows, reference) for side in ("chosen", "rejected")
    )
    margins = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    return {
        "pairs": len(rows),
        **with_interval("accuracy", (chosen > rejected).astype(float).tolist(), settings, seed),
        **with_interval("margin", margins.tolist(), settings, seed),
    }
