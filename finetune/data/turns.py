"""Fields and turns of a row, taken only if they are what chat templates can take: texts that aren't empty, by known speakers, in turn."""

import json
from dataclasses import dataclass
from typing import Any

from finetune.data.records import Message

SHOWN = 500  # characters of a record that an error shows
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
}
FOLLOWING = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
TYPES = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}


@dataclass(frozen=True, slots=True)
class Names:
    """What the fields of a form are called: all of them as an error shows them, and those of a turn in the file's own words."""

    expected: str
    speaker: str
    content: str


class Unusable(Exception):
    """A row that breaks a rule: the rule's name, what to say after the row's place, and the field that it is about, if it is one."""

    def __init__(self, rule: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.rule, self.message, self.field = rule, message, field


def kind(value: Any) -> str:
    """What a value is, in JSON's words where it has them."""
    return TYPES.get(type(value), f"of type {type(value).__name__}")


def shown(value: Any) -> str:
    """A record or a part of it as an error shows it: one line, cut."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str).encode(errors="backslashreplace").decode()
    except RecursionError:
        return kind(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def missing(row: dict[str, Any], field: str, names: Names) -> Unusable:
    """The error that a row lacks a field, with those that it has."""
    found = ", ".join(shown(name) for name in row)[:SHOWN] or "no field"
    return Unusable("field missing", f'no "{field}", found {found}, expected {names.expected}; mend the record', field)


def text(row: dict[str, Any], field: str, names: Names) -> str:
    """The text of a field that must have one."""
    value = row.get(field)
    if type(value) is not str:
        if field not in row:
            raise missing(row, field, names)
        raise Unusable("wrong type", f'"{field}" is {kind(value)}, expected text; mend the record', field)
    if not value or value.isspace():
        raise Unusable("field empty", f'"{field}" is empty, expected text; mend the record', field)
    return value


def optional(row: dict[str, Any], field: str) -> str:
    """The text of a field that may be absent, null or empty: then ""."""
    value = row.get(field)
    if value is None:
        return ""
    if type(value) is not str:
        raise Unusable("wrong type", f'"{field}" is {kind(value)}, expected text; mend the record', field)
    return "" if value.isspace() else value


def side(row: dict[str, Any], field: str, names: Names, role: str) -> list[Message]:
    """The messages of a field that is a text of a role, or a list of turns."""
    if isinstance(row.get(field), list):
        return turns(row, field, names)
    return [{"role": role, "content": text(row, field, names)}]


def turns(row: dict[str, Any], field: str, names: Names) -> list[Message]:
    """The messages of a field that is a list of turns; whether they alternate is not looked at."""
    given = row.get(field)
    if type(given) is not list:
        if field not in row:
            raise missing(row, field, names)
        raise Unusable("wrong type", f'"{field}" is {kind(given)}, expected a list of turns; mend the record', field)
    if not given:
        raise Unusable("field empty", f'"{field}" is an empty list, expected turns; drop the record', field)
    speaker, content = names.speaker, names.content
    messages = []
    for number, turn in enumerate(given, 1):
        if type(turn) is not dict:
            raise Unusable(
                "wrong type", f'turn {number} of "{field}" is {kind(turn)}, expected {{"{speaker}", "{content}"}}; mend the record', field
            )
        who, said = turn.get(speaker), turn.get(content)
        role = ROLES.get(who) if type(who) is str else None
        if role is None:
            raise _unknown(turn, number, field, speaker)
        if type(said) is not str:
            said = _content(turn, number, field, content)
        if not said or said.isspace():
            raise Unusable("field empty", f'turn {number} of "{field}" ({role}) is empty, expected text; mend the record', field)
        messages.append({"role": role, "content": said})
    return messages


def _unknown(turn: dict[str, Any], number: int, field: str, speaker: str) -> Unusable:
    place = f'turn {number} of "{field}"'
    if speaker not in turn:
        found = ", ".join(shown(name) for name in turn)[:SHOWN] or "no field"
        return Unusable("field missing", f'{place} has no "{speaker}", found {found}; mend the record, or map the names in fields', field)
    who = turn[speaker]
    if not isinstance(who, str):
        return Unusable("wrong type", f'"{speaker}" of {place} is {kind(who)}, expected text; mend the record', field)
    return Unusable("unknown role", f"{place} is by {shown(who)}, expected one of {', '.join(ROLES)}; mend the record", field)


def _content(turn: dict[str, Any], number: int, field: str, name: str) -> str:
    """The text of a turn whose content is no text: a list of typed parts, if all of them are text."""
    place = f'turn {number} of "{field}"'
    if name not in turn:
        found = ", ".join(shown(name) for name in turn)[:SHOWN]
        raise Unusable("field missing", f'{place} has no "{name}", found {found}; mend the record, or map the names in fields', field)
    parts = turn[name]
    if not isinstance(parts, list):
        raise Unusable("content is not text", f"the content of {place} is {kind(parts)}, expected text; mend or drop the record", field)
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            found = f"of type {shown(part['type'])}" if isinstance(part, dict) and "type" in part else f"that is {kind(part)}"
            expected = 'expected {"type": "text", "text": …} alone'
            raise Unusable("content is not text", f"{place} has a part {found}, {expected}; drop the part or the record", field)
        texts.append(part["text"])
    return "".join(texts)


def alternating(messages: list[Message]) -> list[Message]:
    """The messages, if each may follow the one before it and the last is the assistant's."""
    before = ""
    for number, message in enumerate(messages, 1):
        role = message["role"]
        if role not in FOLLOWING[before]:
            found = f"{role} after {before}" if before else f"{role} first"
            expected = " or ".join(FOLLOWING[before])
            raise Unusable("roles do not alternate", f"turn {number} is {found}, expected {expected}; mend or drop the record")
        before = role
    if before != "assistant":
        raise Unusable(
            "does not end with the assistant", f"the last turn is {before}, expected assistant: there is no answer; drop the turn"
        )
    return messages
