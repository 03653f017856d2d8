"""Your own records: two files of data/raw, each split by the hash of its prompts.

A record's split depends on its own prompt and nothing else: adding records moves none of the old ones, and all answers to one prompt
are in one split, so no prompt of the test is trained on. A preference pair whose prompt is also in the records is left out, because
preference prompts are none of SFT's. Files are read once to check everything and once for each split, so that none is held in memory.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from finetune import paths
from finetune.config.schema import Jsonl
from finetune.data.records import Conversation, Preference, Prepared, Refusal, content_id, fraction, prompt
from finetune.data.sources import PREFERENCES, RECORDS, Line, lines, refused
from finetune.errors import DataError
from finetune.progress import progress

log = logging.getLogger(__name__)
SLICE = "all"
SFT = ("train", "validation", "test")
PREFERENCE = ("train", "test")


def build(settings: Jsonl) -> Prepared:
    """Return the records of every split, in the order of their file.

    Raises:
        DataError: with every problem of both files.
    """
    records, pairs = _File(paths.RAW / settings.records), _File(paths.RAW / settings.preferences)
    prompts = _check_records(records, settings)
    _check_pairs(pairs, settings, prompts)
    if problems := records.problems + pairs.problems:
        raise refused(problems)
    return Prepared(
        read=records.read + pairs.read,
        sft={split: _conversations(records, settings, split) for split in SFT},
        preference={split: _preferences(pairs, settings, split) for split in PREFERENCE},
        refused=records.refused + pairs.refused,
    )


def split_of(asked: str, test: float, validation: float = 0.0) -> str:
    """The split that a prompt belongs to, by its hash alone."""
    place = fraction(content_id(asked))
    return "test" if place < test else "validation" if place < test + validation else "train"


@dataclass
class _File:
    """What checking a file has found."""

    path: Path
    read: int = 0
    problems: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    left_out: set[int] = field(default_factory=set)

    def refuse(self, line: Line, rule: str) -> None:
        self.refused.append(Refusal(f"{self.path.as_posix()}:{line.number}", rule))
        self.left_out.add(line.number)

    def need(self, sizes: Counter[str], splits: Iterable[str]) -> None:
        """Note the splits that nothing is left for."""
        if self.problems:
            return  # sizes are of a part of the file
        total = sizes.total()
        for split in splits:
            if not sizes[split]:
                remedy = "lower data.validation and data.test" if split == "train" else f"raise data.{split}"
                what = f"{total:,} different record{'s' * (total != 1)} left none for {split}, expected one at least"
                left_out = sorted(Counter(refusal.rule for refusal in self.refused).items())
                why = "".join(f"; {count:,} were left out, {rule}" for rule, count in left_out)
                self.problems.append(f"{self.path.as_posix()}: {what}{why}; add records or {remedy}")


def _check_records(file: _File, settings: Jsonl) -> set[str]:
    """Return the hashes of all prompts."""
    seen: set[str] = set()
    prompts: set[str] = set()
    several, ignored, sizes = 0, Counter[str](), Counter[str]()
    try:
        for line in progress(lines(file.path, RECORDS), f"checking {file.path}"):
            file.read += 1
            ignored.update(line.ignored)
            asked = content_id(_asked(line))
            if (content := content_id([_asked(line), line.fields["output"]])) in seen:
                file.refuse(line, "duplicate")
                continue
            seen.add(content)
            several += asked in prompts
            prompts.add(asked)
            sizes[split_of(_asked(line), settings.test, settings.validation)] += 1
    except DataError as error:
        file.problems += error.problems
    file.need(sizes, SFT)
    counts = f"{len(file.left_out):,} duplicates left out, {several:,} more answers to a prompt that has one"
    log.info("read %s records of %s: %s%s", f"{file.read:,}", file.path, counts, _said(ignored))
    return prompts


def _check_pairs(file: _File, settings: Jsonl, prompts: set[str]) -> None:
    seen: dict[str, int] = {}
    ignored, sizes = Counter[str](), Counter[str]()
    try:
        for line in progress(lines(file.path, PREFERENCES), f"checking {file.path}"):
            file.read += 1
            ignored.update(line.ignored)
            said, chosen, rejected = (line.fields[name] for name in PREFERENCES.required)
            opposite = seen.get(content_id([said, rejected, chosen]))
            if opposite is not None:
                found = f"chosen and rejected are those of line {opposite} the other way round"
                file.problems.append(f"{file.path.as_posix()}:{line.number}: {found}, expected one verdict; drop one of the two")
            elif (content := content_id([said, chosen, rejected])) in seen:
                file.refuse(line, "duplicate")
            elif content_id(said) in prompts:
                file.refuse(line, "its prompt is also in the records")
            else:
                seen[content] = line.number
                sizes[split_of(said, settings.test)] += 1
    except DataError as error:
        file.problems += error.problems
    file.need(sizes, PREFERENCE)
    log.info("read %s pairs of %s: %s left out%s", f"{file.read:,}", file.path, f"{len(file.left_out):,}", _said(ignored))


def _conversations(file: _File, settings: Jsonl, split: str) -> Iterator[Conversation]:
    for line in progress(lines(file.path, RECORDS), f"writing sft/{split}"):
        if line.number not in file.left_out and split_of(_asked(line), settings.test, settings.validation) == split:
            yield Conversation(SLICE, file.path.name, prompt(settings.system, _asked(line)), line.fields["output"])


def _preferences(file: _File, settings: Jsonl, split: str) -> Iterator[Preference]:
    for line in progress(lines(file.path, PREFERENCES), f"writing preference/{split}"):
        said, chosen, rejected = (line.fields[name] for name in PREFERENCES.required)
        if line.number not in file.left_out and split_of(said, settings.test) == split:
            yield Preference(SLICE, file.path.name, "given", prompt(settings.system, said), chosen, rejected)


def _asked(line: Line) -> str:
    """What the user says: the instruction, and below it the input, if there is one."""
    return "\n\n".join(part for part in (line.fields["instruction"], line.fields["input"]) if part.strip())


def _said(ignored: Counter[str]) -> str:
    """`; ignored fields: id (500)`, so that a misspelt field is noticed."""
    return "; ignored fields: " + ", ".join(f"{name} ({count:,})" for name, count in sorted(ignored.items())) if ignored else ""
