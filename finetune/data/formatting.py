"""Prepared records → rows of token ids, with what each split measures; a record that does not fit is never cut."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low
from typing import Any

from finetune import outputs
from finetune.config.schema import Format
from finetune.data.chat import Chat, UnusableError
from finetune.errors import DataError
from finetune.progress import progress

REMEDY = "mend the data and run prepare again; for longer records raise format.max_length, or leave them out with format.overlong=drop"


@dataclass(frozen=True)
class Row:
    """A line of a table, and its numbers of tokens."""

    values: dict[str, Any]
    tokens: int
    """Tokens that are read; a pair is read twice, once with each answer."""
    supervised: int
    """Tokens that are learned or compared."""
    length: int
    """Tokens of the longest sequence."""


@dataclass
class Split:
    """What the rows of one file come to."""

    path: Path
    lengths: list[int] = field(default_factory=list)
    tokens: int = 0
    supervised: int = 0
    dropped: int = 0

    def report(self) -> dict[str, int]:
        """Counts, and the lengths of the longest and of the median sequence."""
        return {
            "records": len(self.lengths),
            "tokens": self.tokens,
            "supervised_tokens": self.supervised,
            "longest": max(self.lengths),
            "median": median_low(self.lengths),
        }


def conversation(record: dict[str, Any], chat: Chat) -> Row:
    """Return the row of a line of data/prepared/sft. Raises UnusableError."""
    *prompt, answer = record["messages"]
    turn = chat.turn(prompt, answer["content"])
    values = {"id": record["id"], "slice": record["slice"], "input_ids": turn.input_ids, "labels": turn.labels}
    return Row(values, tokens=len(turn), supervised=len(turn.answer_ids), length=len(turn))


def preference(record: dict[str, Any], chat: Chat) -> Row:
    """Return the row of a line of data/prepared/preference. Raises UnusableError."""
    chosen, rejected = (chat.turn(record["prompt"], record[name][0]["content"]) for name in ("chosen", "rejected"))
    if chosen.answer_ids == rejected.answer_ids:
        raise UnusableError("chosen and rejected are the same tokens to this model, so there is nothing to prefer; drop the pair")
    values = {
        "id": record["id"],
        "slice": record["slice"],
        "prompt_ids": chosen.prompt_ids,
        "chosen_ids": chosen.answer_ids,
        "rejected_ids": rejected.answer_ids,
    }
    supervised = len(chosen.answer_ids) + len(rejected.answer_ids)
    return Row(values, tokens=len(chosen) + len(rejected), supervised=supervised, length=max(len(chosen), len(rejected)))


def rows(split: Split, encode: Callable[[dict[str, Any], Chat], Row], chat: Chat, settings: Format) -> Iterator[dict[str, Any]]:
    """Yield the rows of a prepared file, and count them in `split`.

    Raises:
        DataError: after the last line, with every record that can't be used; or no record is left.
    """
    problems: list[str] = []
    for number, record in enumerate(progress(outputs.read_jsonl(split.path), f"formatting {split.path.parent.name}/{split.path.stem}"), 1):
        place = f"{split.path.as_posix()}:{number}"
        try:
            row = encode(record, chat)
        except UnusableError as reason:
            problems.append(f"{place}: {reason}")
            continue
        if row.length <= settings.max_length:
            split.lengths.append(row.length)
            split.tokens += row.tokens
            split.supervised += row.supervised
            yield row.values
        elif settings.overlong == "drop":
            split.dropped += 1
        else:
            problems.append(f"{place}: found {row.length:,} tokens, expected at most format.max_length={settings.max_length}")
    if not split.lengths and not problems:
        longer = f"{split.dropped:,} are longer than format.max_length={settings.max_length} tokens"
        problems.append(f"{split.path.as_posix()}: found no record that fits, expected one at least; {longer}")
    if problems:
        raise DataError("records can't be brought into the model's form:", problems, REMEDY)
