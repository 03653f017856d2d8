"""What a row says in each form: a dialogue, a pair or a label.

Texts are taken as they stand; only a transcript's turns lose the white space round them, which belongs to its marks.
"""

import re
from dataclasses import dataclass
from typing import Any

from finetune.data.records import Message
from finetune.data.turns import Names, Unusable, alternating, kind, missing, optional, shown, side, text, turns

LABELS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False, "yes": True, "no": False}  # as CSV has them
SPOKEN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
SPEAKERS = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Messages that end with an answer; the first is the assistant's only if there is no other."""

    messages: list[Message]
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with a better and a worse answer."""

    prompt: list[Message]
    chosen: str
    rejected: str
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """A prompt and an answer that somebody liked or didn't."""

    prompt: list[Message]
    answer: str
    liked: bool
    group: str | None = None


Said = Dialogue | Pair | Label


def alpaca(row: dict[str, Any], names: Names) -> Dialogue:
    """An instruction, below it the input if there is one, and the output; before them what was said earlier."""
    instruction, output = text(row, "instruction", names), text(row, "output", names)
    given, system, history = optional(row, "input"), optional(row, "system"), row.get("history")
    messages: list[Message] = []
    if system:
        messages.append({"role": "system", "content": system})
    if history is not None:
        messages += _history(history)
    messages.append({"role": "user", "content": f"{instruction}\n\n{given}" if given else instruction})
    messages.append({"role": "assistant", "content": output})
    return Dialogue(messages)


def _history(history: Any) -> list[Message]:
    if not isinstance(history, list):
        raise Unusable("wrong type", f'"history" is {kind(history)}, expected a list of [user, assistant]; mend the record', "history")
    messages = []
    for number, pair in enumerate(history, 1):
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], str)):
            found = f"a list of {len(pair)}" if isinstance(pair, list) else kind(pair)
            raise Unusable(
                "wrong type", f'{number} of "history" is {found}, expected [user, assistant], two texts; mend the record', "history"
            )
        for role, content in zip(("user", "assistant"), pair, strict=True):
            if not content.strip():
                raise Unusable("field empty", f'{number} of "history" has an empty text, expected two texts; mend the record', "history")
            messages.append({"role": role, "content": content})
    return messages


def sharegpt(row: dict[str, Any], names: Names) -> Dialogue:
    """Turns by `from` and `value`, of tools too."""
    messages = turns(row, "conversations", names)
    if system := optional(row, "system"):
        if messages[0]["role"] == "system":
            raise Unusable("roles do not alternate", 'a system turn besides "system", expected one of them; drop the other', "system")
        messages.insert(0, {"role": "system", "content": system})
    return Dialogue(alternating(messages))


def messages(row: dict[str, Any], names: Names) -> Dialogue:
    """Turns by `role` and `content`, a text or parts that are text."""
    return Dialogue(alternating(turns(row, "messages", names)))


def prompt_completion(row: dict[str, Any], names: Names) -> Dialogue:
    """A prompt and its completion, each a text or turns."""
    return Dialogue(alternating(side(row, "prompt", names, "user") + side(row, "completion", names, "assistant")))


def plain(row: dict[str, Any], names: Names) -> Dialogue:
    """A text to go on training with: it answers nothing."""
    return Dialogue([{"role": "assistant", "content": text(row, "text", names)}])


def preference(row: dict[str, Any], names: Names) -> Pair:
    """Pairs as TRL has them: answers as texts or as turns, which may repeat the prompt, or all that stands before its last turn too."""
    prompt = side(row, "prompt", names, "user")
    prompts, answers = [], []
    for field in ("chosen", "rejected"):
        *before, answer = side(row, field, names, "assistant")
        if before and before != prompt and not (isinstance(row["prompt"], str) and before[-1:] == prompt):
            found = f'"{field}" has {len(before) + 1} turns, those before the last not the prompt'
            raise Unusable("more than one answer", f"{found}, expected the answer, or prompt and answer; mend the record", field)
        prompts.append(before or prompt)
        answers.append(answer)
    if prompts[0] != prompts[1]:
        raise _parted(prompts[0], prompts[1])
    return _pair(prompts[0], *answers)


def transcripts(row: dict[str, Any], names: Names) -> Pair:
    """Pairs of whole conversations that differ in their last answer, as in HH-RLHF."""
    chosen, rejected = (_transcript(row, field, names) for field in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise _parted(chosen[:-1], rejected[:-1])
    return _pair(chosen[:-1], chosen[-1], rejected[-1])


def _parted(chosen: list[Message], rejected: list[Message]) -> Unusable:
    turns = enumerate(zip(chosen, rejected, strict=False), 1)
    turn = next((number for number, (one, other) in turns if one != other), min(len(chosen), len(rejected)) + 1)
    found = f"chosen and rejected part at turn {turn}, of {len(chosen) + 1} and {len(rejected) + 1}"
    return Unusable("transcripts part early", f"{found}, expected the same turns up to the last answer; drop the record")


def _transcript(row: dict[str, Any], field: str, names: Names) -> list[Message]:
    if not isinstance(row.get(field), str):
        return alternating(turns(row, field, names))
    before, *parts = SPOKEN.split(text(row, field, names))
    if before.strip() or not parts:
        expected = 'expected turns that begin with "\\n\\nHuman:" and "\\n\\nAssistant:"'
        raise Unusable("not a transcript", f'"{field}" begins with {shown(before.strip()[:40])}, {expected}; mend the record', field)
    messages = [{"role": SPEAKERS[who], "content": said.strip()} for who, said in zip(parts[::2], parts[1::2], strict=True)]
    for number, message in enumerate(messages, 1):
        if not message["content"]:
            raise Unusable("field empty", f'turn {number} of "{field}" ({message["role"]}) is empty, expected text; mend the record', field)
    return alternating(messages)


def kto(row: dict[str, Any], names: Names) -> Label:
    """Answers that somebody liked or didn't; CSV has its label as text or number."""
    prompt = side(row, "prompt", names, "user")
    *before, answer = side(row, "completion", names, "assistant")
    if before:
        found = f'"completion" has {len(before) + 1} turns'
        raise Unusable("more than one answer", f"{found}, expected the assistant's answer alone; mend the record", "completion")
    if "label" not in row:
        raise missing(row, "label", names)
    said = liked(row["label"])
    if said is None:
        found = shown(row["label"]) if isinstance(row["label"], str | int | float) else kind(row["label"])
        raise Unusable("wrong type", f'"label" is {found}, expected true or false; mend the record', "label")
    return Label(alternating([*prompt, answer])[:-1], answer["content"], said)


def liked(value: Any) -> bool | None:
    """Whether a label says yes; None if it says neither yes nor no."""
    if isinstance(value, str):
        return LABELS.get(value.strip().lower())
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def _pair(prompt: list[Message], chosen: Message, rejected: Message) -> Pair:
    for answer in (rejected, chosen):
        alternating([*prompt, answer])
    if chosen["content"].strip() == rejected["content"].strip():
        found = "chosen and rejected are the same text"
        raise Unusable("same answers", f"{found}, expected a better and a worse answer; drop the record")
    return Pair(prompt, chosen["content"], rejected["content"])
