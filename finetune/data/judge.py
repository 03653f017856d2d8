"""Home Assistant's own recogniser as a judge of labels: how a sentence is understood, by code that did not make the label."""

from collections.abc import Iterable
from dataclasses import dataclass

from hassil import recognize_all
from hassil.recognize import RecognizeResult

from finetune.data.calls import Call, call
from finetune.data.home import Home, slot_lists
from finetune.data.templates import Language, Spoken

HERE = "\0here"  # the room that the speaker is in, which Home Assistant knows and the sentence does not say


@dataclass(frozen=True)
class Reading:
    """One way to understand a sentence, and the template that allows it."""

    call: Call
    template: str


class Judge:
    """hassil with a language's templates and all the rooms and devices there are, the held-out ones too."""

    def __init__(self, language: Language, homes: Iterable[Home]) -> None:
        self._language = language
        self._lists = slot_lists(homes)

    def readings(self, sentence: str) -> list[Reading]:
        """Every way to understand the sentence, best first; [] when there is none."""
        results = recognize_all(
            sentence,
            self._language.intents,
            slot_lists=self._lists,
            intent_context={"area": HERE},  # else intents that require a room are not recognised at all
            language=self._language.intents.language,
        )
        return [_reading(result) for result in results]

    def objection(self, spoken: Spoken, readings: list[Reading]) -> str | None:
        """Why a label is not to be trusted; None when the sentence can be understood in this one way only."""
        calls = {reading.call for reading in readings}
        if not calls:
            return "not recognised"
        if spoken.call not in calls:
            return "recognised as another call"
        return "ambiguous" if len(calls) > 1 else None


def _reading(result: RecognizeResult) -> Reading:
    """The recognised call, without the speaker's own room."""
    name, sentence = result.intent.name, result.intent_sentence
    slots = {slot.name: slot.value for slot in result.entities_list if slot.value != HERE}
    return Reading(call(name, slots), f"{name}: {sentence.text if sentence else ''}")
