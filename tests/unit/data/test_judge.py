"""The judge objects to labels that are wrong, and to sentences that can be understood in two ways."""

import pytest

from finetune.data.calls import call
from finetune.data.home import home
from finetune.data.judge import Judge
from finetune.data.templates import Language, Spoken, load

HOME = home({"kitchen": {"light": ["lamp", "kitchen lights"]}, "bath": {"cover": ["blind"]}}, ["attic floor"])


@pytest.fixture(scope="module")
def language() -> Language:
    return load("en")


def objection(language: Language, sentence: str, intent: str, **slots: str | int) -> str | None:
    judge = Judge(language, [HOME])
    spoken = Spoken(sentence, call(intent, slots), language.templates[0])
    return judge.objection(spoken, judge.readings(sentence))


def test_the_right_label_passes(language: Language) -> None:
    assert objection(language, "turn on the lamp in the kitchen", "HassTurnOn", name="lamp", area="kitchen") is None


def test_the_order_of_slots_does_not_matter(language: Language) -> None:
    assert objection(language, "turn on the lamp in the kitchen", "HassTurnOn", area="kitchen", name="lamp") is None


@pytest.mark.parametrize(
    ("intent", "slots"),
    [
        ("HassTurnOff", {"name": "lamp"}),
        ("HassTurnOn", {"name": "blind"}),
        ("HassTurnOn", {}),
        ("HassTurnOn", {"name": "lamp", "area": "bath"}),
    ],
)
def test_a_wrong_label_does_not_pass(language: Language, intent: str, slots: dict[str, str]) -> None:
    assert objection(language, "turn on the lamp", intent, **slots) == "recognised as another call"


def test_a_sentence_of_no_template_does_not_pass(language: Language) -> None:
    assert objection(language, "sing me a song", "HassTurnOn", name="lamp") == "not recognised"


def test_a_name_that_sounds_like_a_room_is_ambiguous(language: Language) -> None:
    assert objection(language, "turn on the kitchen lights", "HassTurnOn", name="kitchen lights") == "ambiguous"


def test_the_room_of_the_speaker_is_no_part_of_the_call(language: Language) -> None:
    readings = Judge(language, [HOME]).readings("lights on")
    assert [reading.call for reading in readings] == [call("HassTurnOn", {"domain": "light"})]
    assert readings[0].template == "HassTurnOn: lights on"


def test_numbers_are_whole_and_signed(language: Language) -> None:
    (reading, *_) = Judge(language, [HOME]).readings("turn down the volume by 30%")
    assert reading.call.text() == '{"intent": "HassSetVolumeRelative", "volume_step": -30}'
