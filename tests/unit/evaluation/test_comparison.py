"""Intervals hold what they promise, and likelihoods are summed before they are divided."""

import math

import numpy as np
import pytest

from finetune.config.schema import Evaluate
from finetune.evaluation import comparison


def settings(confidence: float = 0.95, resamples: int = 1000) -> Evaluate:
    return Evaluate(metrics=["exact_match"], confidence=confidence, resamples=resamples, samples=1, gates={})


def test_an_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    draw = np.random.default_rng(5)
    samples = (draw.random((400, 150)) < 0.7).astype(float)
    ends = [comparison.interval(sample.tolist(), settings(0.9, 400), seed) for seed, sample in enumerate(samples)]
    covered = np.mean([low <= 0.7 <= high for low, high in ends])
    assert 0.86 < covered < 0.94  # 0.9, give or take 2.7 standard errors


def test_an_interval_is_that_of_the_normal_distribution_where_there_are_many_records() -> None:
    values = np.random.default_rng(1).normal(3, 2, 4000)
    low, high = comparison.interval(values.tolist(), settings(resamples=4000), seed=0)
    half = 1.96 * values.std() / math.sqrt(4000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.006)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(2).random(50).tolist()
    assert comparison.interval(values, settings(), 7) == comparison.interval(values, settings(), 7)
    assert comparison.interval(values, settings(), 7) != comparison.interval(values, settings(), 8)


def test_drawing_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).random(50).tolist()
    whole = comparison.interval(values, settings(), 7)
    monkeypatch.setattr(comparison, "BLOCK", 333)
    assert comparison.interval(values, settings(), 7) == whole


def test_one_record_and_equal_records_give_an_interval_without_width() -> None:
    assert comparison.interval([0.25], settings(), 1) == (0.25, 0.25)
    assert comparison.with_interval("exact", [0.0] * 9, settings(), 1) == {"exact": 0.0, "exact_low": 0.0, "exact_high": 0.0}


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    values = np.random.default_rng(4).random(80).tolist()
    (low, high), (lower, higher) = (comparison.interval(values, settings(confidence), 1) for confidence in (0.8, 0.99))
    assert lower < low < high < higher


def test_a_loss_is_the_mean_over_tokens_and_not_over_records() -> None:
    rows = [{"logp": -3.0, "tokens": 1, "bytes": 4}, {"logp": -1.0, "tokens": 3, "bytes": 12}]
    found = comparison.validation(rows)
    assert found == pytest.approx({"loss": 1.0, "perplexity": math.e, "bits_per_byte": 4 / math.log(2) / 16})


def test_without_text_there_are_no_bits_a_byte() -> None:
    assert set(comparison.validation([{"logp": -1.0, "tokens": 1, "bytes": 0}])) == {"loss", "perplexity"}


def test_margins_are_against_the_reference_and_accuracy_is_without_it() -> None:
    reference = [{"chosen": -4.0, "rejected": -2.0}, {"chosen": -1.0, "rejected": -1.0}]
    rows = [{"chosen": -3.0, "rejected": -4.0}, {"chosen": -2.0, "rejected": -2.0}]
    found = comparison.preference(rows, reference, 0.1, settings(), seed=1)
    assert found["pairs"] == 2
    assert found["accuracy"] == 0.5, "a tie is not a preference"
    assert found["margin"] == pytest.approx(0.1 * (((-3 + 4) - (-4 + 2)) + ((-2 + 1) - (-2 + 1))) / 2)
    assert found["margin_low"] <= found["margin"] <= found["margin_high"]


def test_the_margin_of_the_reference_itself_is_zero() -> None:
    rows = [{"chosen": -3.3, "rejected": -4.7}, {"chosen": -2.1, "rejected": -2.6}]
    found = comparison.preference(rows, rows, 0.1, settings(), seed=1)
    assert (found["margin"], found["margin_low"], found["margin_high"]) == (0, 0, 0)
