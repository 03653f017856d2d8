"""How much of a difference is chance: a t interval that is right as often as it says."""

import numpy as np
import pytest
from scipy import stats

from finetune.comparing.chance import BEYOND, UNKNOWN, WITHIN, Spread, judge, spreads


def spread(*values: float) -> Spread:
    return Spread(dict(enumerate(values)))


def test_one_run_of_each_says_nothing_about_chance() -> None:
    judged = judge(spread(0.7), spread(0.9))
    assert (judged.verdict, judged.change, judged.allowed, judged.deviation) == (UNKNOWN, None, None, None)


def test_what_chance_allows_is_the_textbooks_interval_for_two_groups() -> None:
    a, b = [0.70, 0.72, 0.69, 0.71], [0.73, 0.75, 0.74]
    judged = judge(spread(*a), spread(*b))
    interval = stats.ttest_ind(b, a, equal_var=True).confidence_interval(0.95)
    assert judged.change == pytest.approx(np.mean(b) - np.mean(a))
    assert judged.allowed == pytest.approx((interval.high - interval.low) / 2)
    assert judged.verdict == BEYOND


def test_a_single_run_is_judged_by_the_seeds_of_the_other_side() -> None:
    seeds = spread(0.70, 0.72, 0.69, 0.71)
    assert judge(seeds, spread(0.73)).verdict == WITHIN
    assert judge(seeds, spread(0.80)).verdict == BEYOND
    assert judge(spread(0.80), seeds).verdict == BEYOND


def test_two_seeds_can_show_next_to_nothing() -> None:
    assert judge(spread(0.70, 0.72), spread(0.90)).verdict == WITHIN


def test_a_score_that_no_seed_moves_lets_nothing_be_chance() -> None:
    judged = judge(spread(1.0, 1.0, 1.0), spread(0.98))
    assert (judged.verdict, judged.allowed) == (BEYOND, 0.0)


@pytest.mark.parametrize(("a", "b"), [(3, 1), (5, 1), (4, 4)])
def test_of_a_hundred_pairs_that_differ_by_chance_five_are_called_beyond(a: int, b: int) -> None:
    draws = np.random.default_rng(7).normal(0.7, 0.03, size=(4000, a + b))
    called = [judge(spread(*row[:a]), spread(*row[a:])).verdict == BEYOND for row in draws]
    assert 0.04 < np.mean(called) < 0.06


def test_runs_are_gathered_by_score_and_the_first_of_one_seed_counts() -> None:
    found = spreads([(17, {"loss": 1.0, "margin": 3.0}), (18, {"loss": 2.0}), (17, {"loss": 9.0})])
    assert found["loss"].values == {17: 1.0, 18: 2.0}
    assert found["margin"].deviation is None
    assert found["loss"].as_dict() == {
        "seeds": {"17": 1.0, "18": 2.0},
        "mean": 1.5,
        "standard_deviation": pytest.approx(0.7071, abs=1e-4),
        "lowest": 1.0,
        "highest": 2.0,
    }
