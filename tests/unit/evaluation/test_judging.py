"""What counts as right is one definition: the same text, or the same JSON object; and what prose is compared by."""

import pytest

from finetune.evaluation.judging import asks_last, exact, intent, json_object, labels, longest_common, words

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


def test_words_have_no_case_and_no_punctuation() -> None:
    assert words("Bees see blue, don't THEY?") == ["bees", "see", "blue", "don", "t", "they"]


@pytest.mark.parametrize(
    ("first", "second", "length"), [("abcde", "ace", 3), ("ace", "abcde", 3), ("abc", "cba", 1), ("aab", "ab", 2), ("", "a", 0)]
)
def test_the_longest_common_subsequence_may_have_gaps_but_keeps_the_order(first: str, second: str, length: int) -> None:
    assert longest_common(first, second) == length


@pytest.mark.parametrize(
    ("text", "asks"),
    [("So it is 12. What is 5 × 3?\n", True), ('She asked: "Why?"', True), ("Why? Because.", False), ("What is it", False), ("", False)],
)
def test_a_text_asks_last_if_its_last_sentence_is_a_question(text: str, asks: bool) -> None:
    assert asks_last(text) is asks


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Claim: a\nEvidence: b\nLimits: c", ["Claim", "Evidence", "Limits"]),
        ("What is missing: a", ["What is missing"]),
        ("Claim:\nEvidence: b", ["Evidence"]),
        ("It has one claim: a", []),
        ("One two three four: a", []),
        ("See https://example.org", []),
    ],
)
def test_labels_start_a_line_and_have_text_after_them(text: str, found: list[str]) -> None:
    assert labels(text) == found
