"""A chunk of a source → what each of its rows comes to: a line to be written, or the rule that it broke; and what compares it with others.

All that looks at one record alone happens here, in whichever process; what compares records gets numbers.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.config.data import Quality
from finetune.data import likeness, personal, rules, shingles
from finetune.data.forms import Dialogue, Label, Pair, Unusable, convert
from finetune.data.reading import Chunk, Fault, decode
from finetune.data.records import Conversation, Message, Preference, content_id, fraction
from finetune.data.shingles import Ragged

SLICE = "all"  # of your own records; the embedded ones have three
GIVEN = "given"  # how a pair came about that a file holds
ESCAPED = re.compile(r"\\(?:u(?![dD][89a-fA-F])([0-9a-fA-F]{4})|([nrt/]))")  # in JSON; halves of surrogate pairs are no characters
OPENING = 3  # words of a prompt that say what kind of prompt it is, so that a choice can take of every kind


class Kind(IntEnum):
    """What a record is for."""

    SFT = 0
    PREFERENCE = 1
    LIKED = 2
    DISLIKED = 3


class Split(IntEnum):
    """Where a record goes; of two that are alike the one with the smaller number stays."""

    TEST = 0
    VALIDATION = 1
    TRAIN = 2


@dataclass(frozen=True)
class Manner:
    """How the rows of one source are examined."""

    name: str
    form: str
    fields: Mapping[str, str]
    group: str | None
    system: str | None
    validation: float
    test: float
    quality: Quality


@dataclass(frozen=True)
class Rejected:
    """A record that was left out or changed: its place, the rule, and its text, in which personal data is masked."""

    source: str
    line: int
    rule: str
    sha256: str
    text: str

    def row(self) -> dict[str, Any]:
        """A line of data/prepared/rejected.jsonl."""
        return {"source": self.source, "line": self.line, "rule": self.rule, "sha256": self.sha256, "text": self.text}


@dataclass
class Examined:
    """What the rows of a chunk came to; arrays have one entry for each record that every rule lets pass."""

    source: str
    read: int = 0
    lines: list[bytes] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    splits: list[int] = field(default_factory=list)
    contents: list[int] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    mirrors: list[int] = field(default_factory=list)
    """Of a pair the content of its opposite, chosen and rejected exchanged; else 0."""
    openings: list[int] = field(default_factory=list)
    worth: list[float] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    changed: list[Rejected] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    personal: Counter[str] = field(default_factory=Counter)
    bands: NDArray[np.uint32] | None = None
    runs: Ragged | None = None
    """Runs of words of the texts of each record: its prompt, its answer, and its turns."""
    counts: list[int] = field(default_factory=list)
    """How many texts of `runs` are of each record."""
    texts: list[tuple[str, str]] = field(default_factory=list)
    """Prompt and answer of each record."""
    turns: list[tuple[str, ...]] = field(default_factory=list)
    """Of each training record the turns that are one run: in the prompt as a whole they would be none of their own."""


def examine(chunk: Chunk, manner: Manner) -> Examined:
    """Decode a chunk, bring its rows into records and apply the rules."""
    found = Examined(manner.name)
    for row in decode(chunk):
        found.read += 1
        if isinstance(row, Fault):
            _malformed(found, row.number, row.rule, row.message, row.raw)
            continue
        try:
            said = convert(manner.form, row.value, manner.fields, manner.group)
        except Unusable as reason:
            _malformed(found, row.number, reason.rule, reason.message, row.value)
            continue
        _take(found, row.number, said, manner)
    compare(found, manner.quality)
    return found


def compare(found: Examined, quality: Quality) -> None:
    """Add what the records are compared by, and forget their texts."""
    if quality.near_duplicates is not None and found.texts:
        found.bands = likeness.bands([f"{prompt}\n{answer}" for prompt, answer in found.texts])
    if quality.contamination is not None:
        several = [(*texts, *turns) for texts, turns in zip(found.texts, found.turns, strict=True)]
        found.runs, found.counts = shingles.words([text for texts in several for text in texts]), list(map(len, several))
    found.texts, found.turns = [], []


def _take(found: Examined, number: int, said: Dialogue | Pair | Label, manner: Manner) -> None:
    """Apply the rules to one record, and keep it or write down why not."""
    given = said.messages if isinstance(said, Dialogue) else said.prompt
    messages = given if manner.system is None or (given and given[0]["role"] == "system") else [_system(manner.system), *given]
    after = [said.chosen, said.rejected] if isinstance(said, Pair) else [said.answer] if isinstance(said, Label) else []
    judged = apply(found, number, messages, after, manner.quality)
    if judged is None:
        return
    messages, after = judged
    if isinstance(said, Dialogue):
        *prompt, last = messages
        record = Conversation(SLICE, found.source, tuple(prompt), last["content"])
        split = _split(prompt, last["content"], said.group, manner.test, manner.validation)
        keep(found, number, Kind.SFT, record.row(), prompt, last["content"], split)
    elif isinstance(said, Pair):
        chosen, rejected = after
        pair = Preference(SLICE, found.source, GIVEN, tuple(messages), chosen, rejected)
        keep_pair(found, number, pair, _split(messages, chosen, said.group, manner.test))
    else:
        (answer,) = after
        kind = Kind.LIKED if said.liked else Kind.DISLIKED
        keep(
            found, number, kind, {"prompt": messages, "answer": answer}, messages, answer, _split(messages, answer, said.group, manner.test)
        )


def apply(
    found: Examined, number: int, messages: Sequence[Message], after: Sequence[str], quality: Quality
) -> tuple[list[Message], list[str]] | None:
    """Return the messages, and the answers that come after them, as the rules let them pass; None if they don't, which is written down."""
    texts, answers = rules.texts_of(messages)
    learned = range(len(texts), len(texts) + len(after)) if after else answers
    verdict = rules.judge([*texts, *after], learned, quality)
    found.personal.update(verdict.personal)
    if verdict.rule is not None:
        found.rejected.append(rejected(found.source, number, verdict.rule, [*texts, *after]))
        return None
    if not verdict.changed:
        return list(messages), list(after)
    found.changed += [rejected(found.source, number, change, [*texts, *after]) for change in verdict.changed]
    changed = [{**message, "content": text} for message, text in zip(messages, verdict.texts, strict=False)]
    return changed, list(verdict.texts[len(texts) :])


def keep(found: Examined, number: int, kind: Kind, row: dict[str, Any], prompt: Sequence[Message], answer: str, split: Split) -> None:
    """Add a record that every rule lets pass."""
    said = [message["content"] for message in prompt if message["role"] != "system"]
    asked = "\n\n".join(said)
    found.lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
    found.numbers.append(number)
    found.kinds.append(kind)
    found.splits.append(split)
    found.contents.append(_number([list(prompt), answer]))
    found.prompts.append(_number(list(prompt)) if asked else found.contents[-1])  # plain texts ask nothing, so they share no prompt
    found.mirrors.append(0)
    found.openings.append(_number((asked or answer).lower().split(maxsplit=OPENING)[:OPENING]))
    found.worth.append(rules.worth(answer))
    found.texts.append((asked, answer))
    found.turns.append(tuple(filter(shingles.is_one_run, said)) if len(said) > 1 and split is Split.TRAIN else ())


def keep_pair(found: Examined, number: int, pair: Preference, split: Split) -> None:
    """Add a pair that every rule lets pass; its answers are compared together."""
    keep(found, number, Kind.PREFERENCE, pair.row(), pair.prompt, f"{pair.chosen}\n{pair.rejected}", split)
    answers = (pair.chosen, pair.rejected)
    found.contents[-1], found.mirrors[-1] = (_number([list(pair.prompt), *both]) for both in (answers, answers[::-1]))


def parts(line: bytes) -> tuple[str, str, str]:
    """The system message, the prompt and the answer that a line holds, as records are compared by them."""
    messages, answers = _said(line)
    system, asked = ([message["content"] for message in messages if (message["role"] == "system") is wanted] for wanted in (True, False))
    return "\n\n".join(system), "\n\n".join(asked), "\n".join(answers)


def texts(line: bytes) -> list[str]:
    """All texts that a line holds, in order."""
    messages, answers = _said(line)
    return [*(message["content"] for message in messages), *answers]


def _said(line: bytes) -> tuple[list[Message], list[str]]:
    """The messages of a line before the answer, and the answer, or both of a pair."""
    row = json.loads(line)
    if "messages" in row:
        *messages, last = row["messages"]
        return messages, [last["content"]]
    answers = [row["answer"]] if "answer" in row else [message["content"] for message in (*row["chosen"], *row["rejected"])]
    return row["prompt"], answers


def rejected(source: str, number: int, rule: str, texts: Sequence[str], masked: str | None = None) -> Rejected:
    """Write down a record that is left out or changed. masked: its text without personal data, where the patterns would not see it all."""
    whole = "\n".join(texts)
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()
    shown = personal.masked(whole)[0] if masked is None else masked
    return Rejected(source, number, rule, digest, shown.encode("utf-8", "replace").decode())


def _split(prompt: Sequence[Message], answer: str, group: str | None, test: float, validation: float = 0.0) -> Split:
    place = fraction(content_id(_asked(prompt, answer) if group is None else group))
    return Split.TEST if place < test else Split.VALIDATION if place < test + validation else Split.TRAIN


def _number(content: Any) -> int:
    """The content's id as a number of 64 bits, for arrays."""
    return int(content_id(content), 16)


def _asked(prompt: Sequence[Message], answer: str) -> str:
    """What decides the split of a record without a group: the first thing that the user says; a text without a prompt decides itself."""
    return next((message["content"] for message in prompt if message["role"] == "user"), answer)


def _malformed(found: Examined, number: int, rule: str, message: str, raw: Any) -> None:
    """Write down a row that is no record; its texts are masked as they are, not as JSON writes them."""
    if isinstance(raw, bytes | str):
        text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
        unescaped, kinds = personal.masked(ESCAPED.sub(_unescaped, text))
        masked = unescaped if kinds else None
    else:
        text, masked = _shown(raw), personal.masked(_shown(raw, _masked))[0]
    found.rejected.append(rejected(found.source, number, rule, [text], masked))
    found.faults.append(f"{found.source}:{number}: {message}")


def _unescaped(match: re.Match[str]) -> str:
    """What a JSON escape stands for: a pattern looks for the characters themselves."""
    return chr(int(match[1], 16)) if match[1] else {"n": "\n", "r": "\r", "t": "\t", "/": "/"}[match[2]]


def _masked(value: Any) -> Any:
    """A value with personal data masked in each of its texts."""
    if isinstance(value, str):
        return personal.masked(value)[0]
    if isinstance(value, list):
        return [_masked(one) for one in value]
    if isinstance(value, dict):
        return {_masked(name): _masked(one) for name, one in value.items()}
    return value


def _shown(value: Any, change: Callable[[Any], Any] = lambda value: value) -> str:
    """A value of any type as text, changed before; what JSON does not know as Python writes it."""
    try:
        return json.dumps(change(value), ensure_ascii=False, default=str)
    except RecursionError:  # read at one depth of calls, written at a greater one
        return "(nested too deeply to be written)"


def _system(text: str) -> Message:
    return {"role": "system", "content": text}
