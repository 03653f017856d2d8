"""Sentences of templates: every way through, rooms that fit their devices, and no sentence twice."""

from random import Random

import pytest

from finetune.data.home import Home, home
from finetune.data.templates import Language, Template, load, sentences, unusable

HOME = home({"kitchen": {"light": ["lamp"]}, "bath": {"cover": ["blind"], "fan": ["vent"]}}, ["attic floor"])


@pytest.fixture(scope="module")
def language() -> Language:
    return load("en")


def template(language: Language, text: str) -> Template:
    return next(template for template in language.templates if template.text == text)


def said(language: Language, text: str, place: Home = HOME) -> set[str]:
    return {spoken.text for spoken in sentences(language, template(language, text), place, Random(0))}


def test_optional_words_and_alternatives_are_all_said(language: Language) -> None:
    assert said(language, "pause [the|my] timer") == {"pause timer", "pause the timer", "pause my timer"}


def test_words_in_any_order_are_said_in_both(language: Language) -> None:
    spoken = said(language, "turn (the volume;(up|down)) to {volume:volume_level}[([ ]%)| percent]")
    assert any(sentence.startswith("turn the volume up to") for sentence in spoken)
    assert any(sentence.startswith("turn down the volume to") for sentence in spoken)


def test_a_device_is_named_with_the_room_that_it_is_in(language: Language) -> None:
    spoken = said(language, "turn on [the] {name} in [the] {area}")
    assert {sentence.replace("the ", "") for sentence in spoken} == {"turn on lamp in kitchen", "turn on vent in bath"}


def test_only_devices_of_the_required_domain_are_named(language: Language) -> None:
    assert said(language, "close [the] {name}") == {"close blind", "close the blind"}


def test_fixed_slots_of_a_template_are_in_the_call(language: Language) -> None:
    (spoken,) = sentences(language, template(language, "lights off"), HOME, Random(0))
    assert spoken.call.text() == '{"intent": "HassTurnOff", "domain": "light"}'


@pytest.mark.parametrize(
    ("text", "reason"),
    [("unlock [the] {name}", "no device of the domain"), ("turn off [the] {floor} lights", "no floor"), ("nevermind", None)],
)
def test_a_template_that_the_home_can_not_fill_is_left_out_with_its_reason(language: Language, text: str, reason: str | None) -> None:
    assert unusable(language, template(language, text), home({"kitchen": {"light": ["lamp"]}})) == reason


def test_a_template_with_free_text_is_left_out(language: Language) -> None:
    timer = template(language, "pause [the|my] timer")
    open_ended = Language(language.intents, (timer,))
    sentence = type(timer.sentence)(expression=_parsed("remind me to {message}"))
    assert unusable(open_ended, Template("X", 0, "remind me", sentence, timer.data), HOME) == "free text"


def _parsed(text: str):  # type: ignore[no-untyped-def]  # hassil's own type
    from hassil import parse_sentence

    return parse_sentence(text).expression
