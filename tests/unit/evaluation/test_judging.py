"""What counts as right is one definition: the same text, or the same JSON object."""

import pytest

from finetune.evaluation.judging import exact, intent, json_object

CALL = '{"intent": "HassTurnOn", "name": "porch light"}'


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (CALL, True),
        (f"\n {CALL} ", True),
        ('{"name":"porch light","intent":"HassTurnOn"}', True),
        (CALL.replace("porch", "Porch"), False),
        (CALL + CALL, False),
        (f"```json\n{CALL}\n```", False),
        (f"<b>{CALL}</b>", False),
        (CALL[:-1], False),
        ('{"intent": "HassTurnOff", "intent": "HassTurnOn", "name": "porch light"}', False),
        ("", False),
    ],
)
def test_json_is_compared_as_json_and_nothing_may_stand_around_it(answer: str, right: bool) -> None:
    assert exact(answer, CALL) is right


@pytest.mark.parametrize(("answer", "right"), [("Paris", True), (" Paris\n", True), ("paris", False), ("Paris.", False)])
def test_other_text_is_compared_as_text(answer: str, right: bool) -> None:
    assert exact(answer, "Paris ") is right


@pytest.mark.parametrize(("answer", "right"), [('{"n": 30}', True), ('{"n": 30.0}', False), ('{"n": "30"}', False), ('{"n": true}', False)])
def test_values_are_of_one_type(answer: str, right: bool) -> None:
    assert exact(answer, '{"n": 30}') is right
    assert not exact('{"n": true}', '{"n": 1}')


@pytest.mark.parametrize(
    "text", ["[1]", "3", "null", '{"a": NaN}', '{"a": 1, "a": 1}', "{", '{"a":' * 100_000, '{"a": ' + "9" * 5000 + "}", ""]
)
def test_what_is_no_json_object_is_none(text: str) -> None:
    assert json_object(text) is None


@pytest.mark.parametrize(
    ("text", "found"), [(CALL, "HassTurnOn"), ('{"intent": 3}', None), ('{"name": "x"}', None), ("HassTurnOn", None), ('["intent"]', None)]
)
def test_the_intent_is_a_text_field_of_the_call(text: str, found: str | None) -> None:
    assert intent(text) == found
