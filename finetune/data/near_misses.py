"""Wrong calls that are nearly right, each by a rule with a name: what a preference teaches a model to tell apart.

A near miss is valid JSON of the right form, so that only what it does is wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from hassil import RangeSlotList, TextSlotList

from finetune.data.calls import FIRST, Call, Value, call
from finetune.data.home import Home
from finetune.data.templates import Language, Spoken

FAMILIES = (  # intents that are easily taken for each other, and take the same slots
    ("HassTurnOn", "HassTurnOff"),
    ("HassStartTimer", "HassIncreaseTimer", "HassDecreaseTimer"),
    ("HassPauseTimer", "HassUnpauseTimer", "HassCancelTimer", "HassTimerStatus"),
    ("HassMediaNext", "HassMediaPrevious"),
    ("HassMediaPause", "HassMediaUnpause"),
    ("HassMediaPlayerMute", "HassMediaPlayerUnmute"),
    ("HassGetCurrentDate", "HassGetCurrentTime", "HassGetWeather"),
    ("HassClimateGetTemperature", "HassGetState"),
)
STEPS = (-10, -1, 1, 10)


@dataclass(frozen=True)
class Asked:
    """A request, and what it is drawn from."""

    spoken: Spoken
    language: Language
    home: Home


def near_misses(spoken: Spoken, language: Language, home: Home, rng: Random) -> dict[str, Call]:
    """Return a wrong call for each rule that applies, by the name of the rule."""
    asked = Asked(spoken, language, home)
    options = {rule: make(asked) for rule, make in RULES.items()}
    return {rule: rng.choice(calls) for rule, calls in options.items() if calls}


def _another_area(asked: Asked) -> list[Call]:
    return _with(asked.spoken, "area", list(asked.home.rooms))


def _another_floor(asked: Asked) -> list[Call]:
    return _with(asked.spoken, "floor", list(asked.home.floors))


def _another_device(asked: Asked) -> list[Call]:
    """A device of the same domain where there is one, because a lamp is taken for a lamp."""
    name = dict(asked.spoken.call.slots).get("name")
    domains = frozenset(device.domain for device in asked.home.devices if device.name == name)
    alike, any_kind = ({device.name for device in devices} - {name} for devices in (asked.home.of(domains), asked.home.devices))
    return _with(asked.spoken, "name", [*sorted(alike or any_kind)])


def _another_intent(asked: Asked) -> list[Call]:
    family = next((family for family in FAMILIES if asked.spoken.call.intent in family), ())
    return [Call(intent, asked.spoken.call.slots) for intent in family if intent != asked.spoken.call.intent]


def _slot_dropped(asked: Asked) -> list[Call]:
    slots = asked.spoken.call.slots
    return [Call(asked.spoken.call.intent, slots[:place] + slots[place + 1 :]) for place in range(len(slots))]


def _number_off(asked: Asked) -> list[Call]:
    """A number of the same range and sign that is off by one or ten."""
    wrong: list[Call] = []
    for slot, value in asked.spoken.call.slots:
        listed = asked.language.list_of(asked.spoken.template, slot)
        if isinstance(listed, RangeSlotList) and not isinstance(value, str):
            sign = -1 if (listed.multiplier or 1) < 0 else 1
            near = [abs(value) + step for step in STEPS if listed.start <= abs(value) + step <= listed.stop]
            wrong += _with(asked.spoken, slot, [sign * number for number in near])
    return wrong


def _another_value(asked: Asked) -> list[Call]:
    """Another word of the same list: `closed` for `open`."""
    wrong: list[Call] = []
    for slot, _ in asked.spoken.call.slots:
        listed = asked.language.list_of(asked.spoken.template, slot)
        if isinstance(listed, TextSlotList) and slot not in FIRST:
            wrong += _with(asked.spoken, slot, [value.value_out for value in listed.values])
    return wrong


def _with(spoken: Spoken, slot: str, values: list[Value]) -> list[Call]:
    """The call with another value in one of its slots, for each value that differs; [] if it has no such slot."""
    slots = dict(spoken.call.slots)
    return [call(spoken.call.intent, {**slots, slot: value}) for value in values if slot in slots and value != slots[slot]]


RULES: dict[str, Callable[[Asked], list[Call]]] = {
    "another area": _another_area,
    "another floor": _another_floor,
    "another device": _another_device,
    "another intent": _another_intent,
    "slot dropped": _slot_dropped,
    "number off": _number_off,
    "another value": _another_value,
}
