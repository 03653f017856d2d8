"""Near misses: which rules apply to which request, and that none of them is right."""

from random import Random

import pytest

from finetune.data.home import home
from finetune.data.near_misses import near_misses
from finetune.data.templates import Language, load, sentences

HOME = home({"kitchen": {"light": ["lamp", "spot"]}, "bath": {"fan": ["vent"], "cover": ["blind"]}}, ["attic floor", "ground floor"])


@pytest.fixture(scope="module")
def language() -> Language:
    return load("en")


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("turn on [the] {name} in [the] {area}", {"another area", "another device", "another intent", "slot dropped"}),
        ("turn off [the] {floor} lights", {"another floor", "another intent", "slot dropped"}),
        ("timer for {timer_hours:hours} hour[s]", {"another intent", "number off", "slot dropped"}),
        ("is [the] {name} {cover_states:state}", {"another device", "another intent", "another value", "slot dropped"}),
        ("pause [the|my] timer", {"another intent"}),
        ("nevermind", set()),
    ],
)
def test_the_rules_that_apply_follow_from_the_slots(language: Language, text: str, rules: set[str]) -> None:
    template = next(template for template in language.templates if template.text == text)
    for number, spoken in enumerate(sentences(language, template, HOME, Random(1))):
        wrong = near_misses(spoken, language, HOME, Random(number))
        assert wrong.keys() == rules
        assert spoken.call not in wrong.values()


def test_a_lamp_is_taken_for_a_lamp(language: Language) -> None:
    template = next(
        template for template in language.templates if template.text == "(set|change) [the] {name} brightness to {brightness}[ percent]"
    )
    spoken = next(sentences(language, template, HOME, Random(1)))
    assert dict(near_misses(spoken, language, HOME, Random(1))["another device"].slots)["name"] in {"lamp", "spot"}


def test_a_number_that_is_off_keeps_its_range_and_sign(language: Language) -> None:
    template = next(template for template in language.templates if template.text.startswith("turn down [the] volume"))
    for number, spoken in enumerate(sentences(language, template, HOME, Random(1))):
        step = dict(near_misses(spoken, language, HOME, Random(number))["number off"].slots)["volume_step"]
        assert isinstance(step, int)
        assert -100 <= step <= 0
