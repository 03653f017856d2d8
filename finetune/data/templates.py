"""Home Assistant's sentence templates: `turn on [the] {name} in [the] {area}` → sentences that people say, each with its call.

The templates are those of home-assistant-intents' speech_to_phrase, the tidy set that speech recognition is trained on; their language is
hassil's. hassil.sample lists every sentence of a template; drawing at random needs a walk of our own, which also keeps the slots.
"""

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from hassil import (
    Alternative,
    Expression,
    Group,
    Intents,
    ListReference,
    Permutation,
    RangeSlotList,
    RuleReference,
    Sequence,
    SlotList,
    TextChunk,
    TextSlotList,
)
from hassil.expression import Sentence
from hassil.intents import IntentData
from hassil.util import normalize_whitespace

from finetune.data.calls import Call, Value, call
from finetune.data.home import Device, Home
from finetune.errors import DataError, SetupError

PACKAGE = "home_assistant_intents"
PLACES = ("area", "floor", "name")  # lists that a home fills
PATIENCE = 60  # draws in a row that bring nothing new, after which a template counts as exhausted


@dataclass(frozen=True)
class Template:
    """A sentence template and the group of paraphrases that it belongs to."""

    intent: str
    group: int
    text: str
    sentence: Sentence = field(repr=False, compare=False)
    data: IntentData = field(repr=False, compare=False)

    @property
    def key(self) -> str:
        """What names the template in reports and seeds its draws."""
        return f"{self.intent}: {self.text}"

    @property
    def domains(self) -> frozenset[str] | None:
        """Domains that a device must have to be named here; None: any."""
        required = self.data.requires_context.get("domain")
        return None if required is None else frozenset([required] if isinstance(required, str) else required)


@dataclass(frozen=True)
class Spoken:
    """A sentence and the call that its template gives it."""

    text: str
    call: Call
    template: Template


@dataclass(frozen=True)
class Language:
    """The templates of a language, with the lists and rules that they refer to."""

    intents: Intents
    templates: tuple[Template, ...]

    def lists_of(self, template: Template) -> list[str]:
        """Names of the lists that a template draws from, those of its rules too."""
        return sorted(set(template.sentence.list_names(self.intents.expansion_rules)))

    def list_of(self, template: Template, slot: str) -> SlotList | None:
        """The list that fills a slot of a template; None for rooms, floors, devices and fixed slots."""
        expression = template.sentence.expression
        references = expression.list_references(self.intents.expansion_rules) if isinstance(expression, Group) else ()
        return next((self.slot_list(reference.list_name) for reference in references if reference.slot_name == slot), None)

    def slot_list(self, name: str) -> SlotList | None:
        """The list of that name, if the language defines it."""
        return self.intents.slot_lists.get(name)


def load(language: str) -> Language:
    """Return the templates of a language.

    Raises:
        SetupError: the package is not installed.
        DataError: it has no templates of that language.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SetupError("the embedded data is not installed:", [f"found no package {PACKAGE}"], "run `make setup`")
    folder = Path(spec.submodule_search_locations[0]) / "speech_to_phrase"
    file = folder / f"{language}.json"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.json")))
        raise DataError("no embedded data in that language:", [f"data.language: found {language!r}, expected one of {known}"])
    intents = Intents.from_dict(json.loads(file.read_text(encoding="utf-8")))
    templates = tuple(
        Template(name, group, str(sentence.text), sentence, data)
        for name, intent in intents.intents.items()
        for group, data in enumerate(intent.data)
        for sentence in data.sentences
    )
    return Language(intents, templates)


def unusable(language: Language, template: Template, home: Home) -> str | None:
    """Why nothing can be drawn from a template in this home; None when something can."""
    for name in language.lists_of(template):
        if name == "name" and not home.of(template.domains):
            return "no device of the domain"
        if name == "floor" and not home.floors:
            return "no floor"
        if name not in PLACES and not isinstance(language.slot_list(name), TextSlotList | RangeSlotList):
            return "free text"  # a wildcard, or a list that the language leaves to Home Assistant
    return None


def sentences(language: Language, template: Template, home: Home, rng: Random) -> Iterator[Spoken]:
    """Yield different sentences of a usable template in random order, until nothing new comes."""
    seen: set[str] = set()
    misses = 0
    while misses < PATIENCE:
        spoken = _Walk(language, template, home, rng).spoken()
        if spoken.text in seen:
            misses += 1
            continue
        misses = 0
        seen.add(spoken.text)
        yield spoken


class _Walk:
    """One random way through a template, collecting the slots that it fills."""

    def __init__(self, language: Language, template: Template, home: Home, rng: Random) -> None:
        self.language, self.template, self.home, self.rng = language, template, home, rng
        self.slots: dict[str, Value] = dict(template.data.slots)
        self.device: Device | None = None

    def spoken(self) -> Spoken:
        text = normalize_whitespace(self._text(self.template.sentence.expression)).strip()
        return Spoken(text, call(self.template.intent, self.slots), self.template)

    def _text(self, part: Expression) -> str:
        match part:
            case TextChunk():
                return part.original_text
            case Alternative():
                return self._text(self.rng.choice(part.items))
            case Permutation():
                return "".join(map(self._text, self.rng.sample(part.items, len(part.items))))
            case Sequence():
                return "".join(map(self._text, part.items))
            case RuleReference():
                return self._text(self.language.intents.expansion_rules[part.rule_name].expression)
            case ListReference():
                return self._value(part)
        raise TypeError(f"hassil has a kind of expression that is not known here: {part!r}")

    def _value(self, reference: ListReference) -> str:
        text, value = self._place(reference.list_name) if reference.list_name in PLACES else self._listed(reference.list_name)
        self.slots[reference.slot_name] = value
        return text

    def _place(self, kind: str) -> tuple[str, str]:
        """A room, floor or device; a sentence that names both device and room gets the room that the device is in."""
        if kind == "floor":
            chosen = self.rng.choice(self.home.floors)
        elif "name" not in self.language.lists_of(self.template):
            chosen = self.rng.choice(self.home.rooms)
        else:
            self.device = self.device or self.rng.choice(self.home.of(self.template.domains))
            chosen = self.device.name if kind == "name" else self.device.room
        return chosen, chosen

    def _listed(self, name: str) -> tuple[str, Any]:
        """A value of one of the language's own lists: what is said, and what it stands for."""
        listed = self.language.slot_list(name)
        if isinstance(listed, RangeSlotList):
            number = self.rng.choice(list(listed.get_numbers()))
            return str(number), number * listed.multiplier if listed.multiplier is not None else number
        assert isinstance(listed, TextSlotList)
        value = self.rng.choice(listed.values)
        return self._text(value.text_in), value.value_out
