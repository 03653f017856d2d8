"""Records as prepare writes them and format reads them: conversations for supervised fine-tuning, pairs for preferences.

A record is known by the hash of its content, so the same content has the same id in every run, data set and place.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": …}, what chat templates take


@dataclass(frozen=True)
class Conversation:
    """A prompt, which may hold earlier turns, and its right answer; without a prompt, a text to go on learning from."""

    slice: str
    source: str
    prompt: tuple[Message, ...]
    answer: str

    @property
    def id(self) -> str:
        """16 hex digits of the sha256 of the messages."""
        return content_id(self.messages)

    @property
    def messages(self) -> list[Message]:
        """The prompt and, last, the assistant's answer."""
        return [*self.prompt, _answer(self.answer)]

    def row(self) -> dict[str, Any]:
        """The record as a line of data/prepared/sft/*.jsonl."""
        return {"id": self.id, "slice": self.slice, "source": self.source, "messages": self.messages}


@dataclass(frozen=True)
class Preference:
    """A prompt with a better and a worse answer, and the rule by which the worse one came about."""

    slice: str
    source: str
    rule: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str

    @property
    def id(self) -> str:
        """16 hex digits of the sha256 of prompt, chosen and rejected."""
        return content_id([list(self.prompt), self.chosen, self.rejected])

    def row(self) -> dict[str, Any]:
        """The record as a line of data/prepared/preference/*.jsonl."""
        return {
            "id": self.id,
            "slice": self.slice,
            "source": self.source,
            "rule": self.rule,
            "prompt": list(self.prompt),
            "chosen": [_answer(self.chosen)],
            "rejected": [_answer(self.rejected)],
        }


@dataclass(frozen=True)
class Refusal:
    """A sentence or template of the embedded data that was left out: its place, and the rule that it broke."""

    place: str
    rule: str


@dataclass(frozen=True)
class Prepared:
    """What the embedded data gives: records by split, and what was left out."""

    read: int
    sft: Mapping[str, Sequence[Conversation]]
    preference: Mapping[str, Sequence[Preference]]
    refused: Sequence[Refusal]


def prompt(system: str | None, user: str) -> tuple[Message, ...]:
    """The messages before an answer: the system message, if there is one, and what the user says."""
    said: Message = {"role": "user", "content": user}
    return (said,) if system is None else ({"role": "system", "content": system}, said)


def content_id(content: Any) -> str:
    """16 hex digits of the sha256 of the canonical JSON of the content."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:16]


def canonical(content: Any) -> str:
    """The one JSON text of a value: sorted keys, no blanks."""
    return _canonical(content)


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode  # made once, not for each of millions


def fraction(digest: str) -> float:
    """The place in [0, 1) that a hash gives, by which content is split: it depends on nothing but the content."""
    return int(digest[:13], 16) / 16**13  # 52 bits, exact in a float


def _answer(text: str) -> Message:
    return {"role": "assistant", "content": text}
