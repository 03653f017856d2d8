"""The steps of two trainings compared."""

import math
from typing import Any

from finetune.proving import losses


def report(*values: float, **others: Any) -> dict[str, Any]:
    return {"steps": [{"step": number, "loss": value, "grad_norm": 1.0, **others} for number, value in enumerate(values, 1)]}


def test_the_same_numbers_are_the_same() -> None:
    found = losses.compare(report(0.5, 0.25), report(0.5, 0.25))
    assert found.same
    assert (found.steps, found.first_steps) == (2, 2)


def test_the_first_step_that_parts_is_told_with_the_largest_difference_of_all() -> None:
    found = losses.compare(report(0.5, 0.25, 0.125), report(0.5, math.nextafter(0.25, 1), 0.25))
    assert not found.same
    assert (found.parted_at, found.number, found.first, found.second) == (2, "loss", "0.25", "0.25000000000000006")
    assert found.largest_loss == 0.125


def test_another_number_than_the_loss_parts_too() -> None:
    found = losses.compare(report(0.5), report(0.5, grad_norm=2.0))
    assert (found.same, found.parted_at, found.number) == (False, 1, "grad_norm")


def test_a_loss_that_parts_is_told_before_other_numbers_of_its_step() -> None:
    assert losses.compare(report(0.5), report(0.6, accuracy=1.0)).number == "loss"


def test_a_step_more_parts() -> None:
    found = losses.compare(report(0.5), report(0.5, 0.25))
    assert (found.same, found.parted_at, found.first, found.second) == (False, 2, None, "there")


def test_without_the_first_report_nothing_is_claimed() -> None:
    found = losses.compare(None, report(0.5))
    assert (found.same, found.steps, found.first_steps, found.parted_at) == (False, 1, None, None)
