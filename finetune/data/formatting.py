"""Prepared records → tables of token ids, with what each file measures. No record is cut or left out without being counted.

A file is encoded in stretches of some thousand lines, by several processes where it is long, and written in its own order: its bytes and
its counts don't depend on how many there are, and memory doesn't depend on how long it is.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from finetune import outputs, workers
from finetune.config.schema import Format
from finetune.data import tables
from finetune.data.chat import Chat, Draft, Tokens, UnusableError
from finetune.errors import DataError
from finetune.outputs import Lines
from finetune.progress import progress

STRETCH = 2048  # lines encoded at once
ALONE = 5000  # lines up to which other processes would cost more time than they save
LISTED = 1000  # problems of a file held in memory
BINS = 40  # of the histogram, 32 of them up to max_length
UNUSABLE = "records can't be brought into the model's form:"
REMEDY = (
    "mend the data and run prepare again; for longer records raise format.max_length, or leave them out with format.overlong=drop, "
    "or shorten them with format.overlong=cut"
)

Record = dict[str, Any]


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


@dataclass(frozen=True)
class Kind:
    """What is made of one kind of records."""

    schema: pa.Schema
    drafts: Callable[[Record, Chat, Format], tuple[Draft, ...]]
    """The texts of a record. Raises UnusableError."""
    length: Callable[[Sequence[Tokens]], int]
    """Tokens of the longest sequence of a record, from its texts' tokens. Raises UnusableError."""
    cut: Callable[[Sequence[Tokens], Format, int | None], Sequence[Tokens] | None]
    """Its tokens shortened to max_length, keeping the token that begins a text; None if nothing to learn is left."""
    row: Callable[[Record, Sequence[Tokens]], Row]


@dataclass
class Counts:
    """What the records of a file, or of a stretch of it, come to."""

    found: Counter[int] = field(default_factory=Counter)
    """Length → records, before any is cut or dropped."""
    written: Counter[int] = field(default_factory=Counter)
    """Length → records, in the table."""
    tokens: int = 0
    supervised: int = 0
    cut: int = 0
    dropped: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)
    """The rows with the smallest ids."""

    def add(self, other: "Counts", samples: int) -> None:
        """Add those of the next stretch."""
        self.found.update(other.found)
        self.written.update(other.written)
        self.tokens += other.tokens
        self.supervised += other.supervised
        self.cut += other.cut
        self.dropped += other.dropped
        self.samples = _smallest([*self.samples, *other.samples], samples)

    def report(self, max_length: int) -> dict[str, Any]:
        """Counts, lengths in the table, and what max_length means for the records as they came."""
        read = self.found.total()
        return {
            "records": self.written.total(),
            "tokens": self.tokens,
            "supervised_tokens": self.supervised,
            "longest": max(self.written, default=0),
            "median": _quantile(self.written, 1, 2),
            "cut": self.cut,
            "dropped": self.dropped,
            "overlong_share": (self.cut + self.dropped) / read if read else 0.0,
            "length_at_1_percent": _quantile(self.found, 99, 100),
            "histogram": histogram(self.found, max_length),
        }


@dataclass(frozen=True)
class Encoded:
    """A stretch of a file as the process that encoded it hands it over."""

    table: pa.Table
    counts: Counts
    problems: list[tuple[int, str]]
    """Number of the line, what is wrong with its record."""
    unlisted: int


def histogram(lengths: Counter[int], max_length: int) -> list[dict[str, int]]:
    """Records by length, in bins that max_length alone determines; each has the largest length that it takes, the last takes the rest."""
    width = -(-max_length // 32)
    bins: Counter[int] = Counter()
    for length, records in lengths.items():
        bins[min((length - 1) // width, BINS - 1)] += records
    return [{"length": (place + 1) * width, "records": bins[place]} for place in range(BINS)]


def write(path: Path, kind: Kind, chat: Chat, settings: Format, table: Path, place: Callable[[int], str] | None = None) -> Counts:
    """Write the table of a prepared file, and return its counts. place: how messages name a line; by file and number, if not given.

    Raises:
        DataError: after the last line, with every record that can't be used; or no record is left.
    """
    stretches = outputs.divide(path, STRETCH)
    counts, problems, unlisted = Counts(), list[str](), 0
    named = place or f"{path.as_posix()}:{{}}".format

    def encoded() -> Iterator[pa.Table]:
        nonlocal unlisted
        lines = sum(map(len, stretches))
        processes = settings.processes if lines > ALONE else 1
        done = workers.each(stretches, lambda stretch: encode(stretch, kind, chat, settings), processes)
        for part in progress(_by_line(done, stretches), f"formatting {path.parent.name}/{path.stem}", lines):
            if part is None:
                continue
            counts.add(part.counts, settings.samples)
            unlisted += part.unlisted + len(part.problems[LISTED - len(problems) :])
            problems.extend(f"{named(line)}: {reason}" for line, reason in part.problems[: LISTED - len(problems)])
            if not problems:
                yield part.table

    tables.write_batches(table, kind.schema, encoded())
    if not counts.written and not problems:
        longer = f"{counts.dropped:,} are longer than format.max_length={settings.max_length} tokens"
        problems.append(f"{path.as_posix()}: found no record that fits, expected one at least; {longer}")
    if problems:
        raise DataError(UNUSABLE, problems, REMEDY, unlisted)
    return counts


def _by_line(done: Iterator[Encoded], stretches: Sequence[Lines]) -> Iterator[Encoded | None]:
    """Each result after a None for each of its lines but one, so that a bar can count lines."""
    for stretch, part in zip(stretches, done, strict=True):
        yield from repeat(None, len(stretch) - 1)
        yield part


def encode(lines: Lines, kind: Kind, chat: Chat, settings: Format) -> Encoded:
    """Return the rows of a stretch of a prepared file."""
    records: list[tuple[int, Record, tuple[Draft, ...]]] = []
    problems: list[tuple[int, str]] = []
    for number, record in enumerate(lines.read(), lines.first):
        try:
            records.append((number, record, kind.drafts(record, chat, settings)))
        except UnusableError as reason:
            problems.append((number, str(reason)))
    made = iter(chat.encode([draft for _, _, drafts in records for draft in drafts]))
    counts, rows = Counts(), []
    for number, record, drafts in records:
        tokens = [next(made) for _ in drafts]
        try:
            if row := _fitted(record, tokens, kind, chat, settings, counts):
                rows.append(row)
        except UnusableError as reason:
            problems.append((number, str(reason)))
    counts.samples = _smallest(rows, settings.samples)
    problems.sort()
    return Encoded(pa.Table.from_pylist(rows, schema=kind.schema), counts, problems[:LISTED], len(problems[LISTED:]))


def _fitted(
    record: Record, made: Sequence[Tokens | UnusableError], kind: Kind, chat: Chat, settings: Format, counts: Counts
) -> dict[str, Any] | None:
    """The row of a record, or None if it is left out; counted either way. Raises UnusableError."""
    for one in made:
        if isinstance(one, UnusableError):
            raise one
    tokens: Sequence[Tokens] | None = cast("Sequence[Tokens]", made)
    length = kind.length(cast("Sequence[Tokens]", made))
    if length > settings.max_length:
        if settings.overlong == "refuse":
            raise UnusableError(f"found {length:,} tokens, expected at most format.max_length={settings.max_length}")
        tokens = kind.cut(cast("Sequence[Tokens]", made), settings, chat.begin) if settings.overlong == "cut" else None
        counts.cut += tokens is not None
        counts.dropped += tokens is None
    counts.found[length] += 1
    if tokens is None:
        return None
    row = kind.row(record, tokens)
    counts.written[row.length] += 1
    counts.tokens += row.tokens
    counts.supervised += row.supervised
    return row.values


def _conversation(record: Record, chat: Chat, settings: Format) -> tuple[Draft, ...]:
    return (chat.conversation(record["messages"], settings.turns),)


def _longest(tokens: Sequence[Tokens]) -> int:
    return max(map(len, tokens))


def _cut_conversation(tokens: Sequence[Tokens], settings: Format, begin: int | None) -> Sequence[Tokens] | None:
    """From the left, an answer that loses its beginning is not learned any more; a plain text has none, and what is left of it is."""
    (whole,) = tokens
    ids, size = whole.input_ids, settings.max_length
    if settings.truncation_side == "right":
        learned = tuple((start, min(end, size)) for start, end in whole.learned if start < size)
        return [Tokens(ids[:size], learned)] if learned else None
    kept = 1 if ids[0] == begin and size > 1 else 0
    away = len(ids) - size
    if whole.learned[0][0] == 0:
        return [Tokens(ids[:kept] + ids[kept + away :], ((0, size),))]
    learned = tuple((start - away, end - away) for start, end in whole.learned if start > kept + away)
    return [Tokens(ids[:kept] + ids[kept + away :], learned)] if learned else None


def _conversation_row(record: Record, tokens: Sequence[Tokens]) -> Row:
    (whole,) = tokens
    values = {"id": record["id"], "slice": record["slice"], "input_ids": whole.input_ids, "labels": whole.labels}
    return Row(values, tokens=len(whole), supervised=whole.supervised, length=len(whole))


def _pair(record: Record, chat: Chat, _: Format) -> tuple[Draft, ...]:
    return tuple(chat.conversation([*record["prompt"], *record[name]], "last") for name in ("chosen", "rejected"))


def _longest_of_pair(tokens: Sequence[Tokens]) -> int:
    chosen, rejected = tokens
    if chosen.answer_ids == rejected.answer_ids:
        raise UnusableError("chosen and rejected are the same tokens to this model, so there is nothing to prefer; drop the pair")
    return max(len(chosen), len(rejected))


def _cut_pair(tokens: Sequence[Tokens], settings: Format, begin: int | None) -> Sequence[Tokens] | None:
    """Both keep one prompt: from the left it loses what the longer answer needs, from the right both answers end by max_length."""
    size = settings.max_length
    prompt, answers = tokens[0].prompt_ids, [one.answer_ids for one in tokens]
    if settings.truncation_side == "left":
        kept = 1 if prompt[0] == begin else 0
        room = size - max(map(len, answers)) - kept
        if room < 1:
            return None
        prompt = prompt[:kept] + prompt[-room:]
    else:
        answers = [answer[: max(size - len(prompt), 0)] for answer in answers]
        if not all(answers) or answers[0] == answers[1]:
            return None
    return [Tokens(prompt + answer, ((len(prompt), len(prompt) + len(answer)),)) for answer in answers]


def _pair_row(record: Record, tokens: Sequence[Tokens]) -> Row:
    chosen, rejected = tokens
    values = {
        "id": record["id"],
        "slice": record["slice"],
        "prompt_ids": chosen.prompt_ids,
        "chosen_ids": chosen.answer_ids,
        "rejected_ids": rejected.answer_ids,
    }
    supervised = chosen.supervised + rejected.supervised
    return Row(values, tokens=len(chosen) + len(rejected), supervised=supervised, length=max(len(chosen), len(rejected)))


SFT = Kind(tables.SFT, _conversation, _longest, _cut_conversation, _conversation_row)
PREFERENCE = Kind(tables.PREFERENCE, _pair, _longest_of_pair, _cut_pair, _pair_row)


KINDS = {
    **{f"sft/{split}": SFT for split in ("train", "validation", "test")},
    **{f"preference/{split}": PREFERENCE for split in ("train", "test")},
}
"""What is made of each file of data/prepared."""


def told(report: dict[str, Any]) -> str:
    """A file's report in words."""
    learned = f"{report['tokens']:,} tokens, {report['supervised_tokens']:,} of them learned"
    return f"{report['records']:,} records, {learned}, median length {report['median']}, longest {report['longest']}"


def _smallest(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return nsmallest(count, rows, key=lambda row: cast("str", row["id"]))


def _quantile(lengths: Counter[int], numerator: int, denominator: int) -> int:
    """The smallest length that at least this share of the records do not exceed; 0 without records."""
    ordered = sorted(lengths)
    total = lengths.total()
    below = accumulate(lengths[length] for length in ordered)
    return next((length for length, count in zip(ordered, below, strict=True) if count * denominator >= total * numerator), 0)
