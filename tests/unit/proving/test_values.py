"""Values of JSON compared key by key."""

import math
from typing import Any

import pytest

from finetune.proving import values


def test_the_first_key_that_parts_is_told_and_how_many_do() -> None:
    first = {"a": 1.0, "b": {"c": [1, 2, 3]}, "d": "x"}
    second = {"a": 1.0, "b": {"c": [1, 5, 3]}, "d": "y"}
    found = values.compare("r.json", first, second)
    assert found is not None
    assert (found.at, found.first, found.second) == ("b.c[1]", "2", "5")
    assert (found.parted, found.of, found.unit, found.largest, found.largest_at) == (2, 5, "values", 3, "b.c[1]")


def test_a_change_in_the_last_bit_of_a_float_is_one() -> None:
    found = values.compare("r.json", {"loss": 0.1}, {"loss": math.nextafter(0.1, 1)})
    assert found is not None
    assert (found.first, found.second) == ("0.1", "0.10000000000000002")
    assert found.largest == math.nextafter(0.1, 1) - 0.1


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"a": 1}, {}, ("a", "1", None)),
        ({}, {"a": None}, ("a", None, "None")),
        ([1], [1, 2], ("[1]", None, "2")),
        ({"a": 1}, {"a": 1.0}, ("a", "1", "1.0")),
        ({"a": 0.0}, {"a": -0.0}, ("a", "0.0", "-0.0")),
        ({"a": True}, {"a": 1}, ("a", "True", "1")),
        ({"a": {}}, {"a": []}, ("a", "{}", "[]")),
        (1, 2, ("the value", "1", "2")),
    ],
)
def test_missing_keys_types_and_signs_part(first: Any, second: Any, told: tuple[str, str | None, str | None]) -> None:
    found = values.compare("r.json", first, second)
    assert found is not None
    assert (found.at, found.first, found.second) == told


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "x"], "b": {}}, math.nan, [], {"a": []}])
def test_the_same_value_does_not_part(value: Any) -> None:
    assert values.compare("r.json", value, value) is None


def test_nan_against_a_number_is_the_largest_difference() -> None:
    found = values.compare("r.json", {"a": 1.0, "b": math.nan, "c": 1.0}, {"a": 2.0, "b": 3.0, "c": 50.0})
    assert found is not None
    assert math.isnan(found.largest or 0)
    assert found.largest_at == "b"
