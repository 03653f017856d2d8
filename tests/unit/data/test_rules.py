"""Rules for one record: each has a name, and a record that breaks it leaves with that name."""

from collections.abc import Callable
from typing import Any

import pytest

from finetune.config.data import Files, Quality
from finetune.data import rules

Compose = Callable[..., Any]


@pytest.fixture(scope="module")
def quality(compose: Compose) -> Quality:
    data = compose("data=files").data
    assert isinstance(data, Files)
    return data.quality


def judge(quality: Quality, question: str, answer: str, **settings: object) -> rules.Verdict:
    return rules.judge([question, answer], [1], quality.model_copy(update=settings))


BROKEN = [
    ("Ring?", "a bell\x07", rules.CONTROL),
    ("zero\x00", "fine", rules.CONTROL),
    ("Dear {{name}},", "fine", rules.PLACEHOLDER),
    ("Dear you,", "Hello {{ user.first_name }}!", rules.PLACEHOLDER),
    ("Where?", "in a cafÃ© near the crÃªperie", rules.MOJIBAKE),
    ("What?", "lost \ufffd\ufffd for ever", rules.MOJIBAKE),
    ("Again?", " ".join(["again and again"] * 20), rules.REPEATED),
    ("Line?", "=" * 60, rules.REPEATED),
    ("Long?", "x y " * 20_000, rules.LONG),
]


@pytest.mark.parametrize(("question", "answer", "rule"), BROKEN)
def test_a_broken_rule_is_named(quality: Quality, question: str, answer: str, rule: str) -> None:
    assert judge(quality, question, answer).rule == rule


@pytest.mark.parametrize(
    "answer",
    [
        "Yes.",
        "naïve café, 日本語, Ωμέγα, “quoted” – and more…",
        "a {brace} and f{x}",
        "tab\tand\nline",
        "no no no, three times no",
        "😀 👩‍👩‍👧",
    ],
)
def test_good_text_passes_unchanged(quality: Quality, answer: str) -> None:
    verdict = judge(quality, "What?", answer)
    assert verdict == rules.Verdict(("What?", answer))


def test_rules_that_are_off_are_off(quality: Quality) -> None:
    assert judge(quality, "Dear {{name}},", "fine", placeholders="keep").rule is None
    assert judge(quality, "Where?", "cafÃ©", mojibake="keep").rule is None
    assert judge(quality, "Again?", "again and again " * 20, max_repetition=None).rule is None


def test_mojibake_is_repaired_on_demand_and_said(quality: Quality) -> None:
    verdict = judge(quality, "Where?", "in a cafÃ© near here", mojibake="repair")
    assert (verdict.rule, verdict.changed, verdict.texts[1]) == (None, ("mojibake repaired",), "in a café near here")


def test_only_answers_are_measured_as_answers(quality: Quality) -> None:
    assert judge(quality, "?", "Yes.", min_answer_characters=5).rule == rules.SHORT
    assert judge(quality, "?", "Yes, of course.", min_answer_characters=5).rule is None
    assert judge(quality, "again and again " * 20, "Yes.").rule is None


@pytest.mark.parametrize(
    ("choice", "rule", "changed", "text"),
    [
        ("count", None, (), "write to ann@example.org"),
        ("mask", None, ("personal data masked",), "write to [mail address]"),
        ("drop", rules.PERSONAL, (), "write to ann@example.org"),
    ],
)
def test_personal_data_is_counted_masked_or_dropped(
    quality: Quality, choice: str, rule: str | None, changed: tuple[str, ...], text: str
) -> None:
    verdict = judge(quality, "How?", "write to ann@example.org", personal=choice)
    assert (verdict.rule, verdict.changed, verdict.texts[1], verdict.personal) == (rule, changed, text, ("mail address",))


def test_every_change_of_a_record_is_said(quality: Quality) -> None:
    verdict = judge(quality, "Where?", "in a cafÃ©, ask ann@example.org", mojibake="repair", personal="mask")
    assert verdict.changed == (rules.REPAIRED, rules.MASKED)
    assert verdict.texts[1] == "in a café, ask [mail address]"


def test_a_longer_answer_with_more_different_words_is_worth_more() -> None:
    assert (
        0 == rules.worth("") < rules.worth("yes yes yes yes") < rules.worth("yes, it is") < rules.worth(" ".join(map(str, range(40)))) < 1
    )
