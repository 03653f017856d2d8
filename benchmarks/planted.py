"""Faults planted in 20,000 paragraphs of docstrings of the locked packages: how many of them prepare finds, and what it takes besides.

A record asks for a paragraph by the name of what it documents. Planted, in places that a fixed seed draws, are
- repeated: a record once more, to the letter;
- near: a record with words exchanged, in every other its prompt too, as far as the exact Jaccard index of both parts stays at the threshold
  or above it; where its prompt differs it may fall into another split than the first;
- contaminated: a training record that holds a test record: its texts in longer ones, with other marks and capitals, or all but its end;
- mojibake: a record, instead of the clean one, whose UTF-8 was read as cp1252, or as Latin-1 where cp1252 lacks a byte; up to half of them
  have characters beyond ASCII of their own, the others a name put in.

A repeated, near or contaminated record is found when not both it and the one that it is like stay; mojibake, when it goes by that rule.
False is the removal of a record without a planted fault, by a rule that compares records or as mojibake, when its exact Jaccard index with
every record that stays is below the threshold, in the prompt or in the answer. What rules such as `placeholder` take is there to be seen in
the record itself, and only shown.
"""

import ast
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import Samples
from benchmarks.watching import call, fresh_clone
from finetune import outputs, paths
from finetune.config.compose import write_params
from finetune.data import contract, rules, shingles
from finetune.data.records import content_id, fraction

LOADED = ("stages", "hydra_plugins")
SETTINGS = ("data=files", "data.license=unknown", "tracking=off")
RECORDS, PREFERENCES = "records.jsonl", "preferences.jsonl"
PARAGRAPHS, PAIRS = 20_000, 100
THRESHOLD = 0.8  # data.quality.near_duplicates and contamination of conf/data/files.yaml
TEST, HELD_OUT = 0.1, 0.2  # data.test, and with data.validation: where the hash of a prompt has to lie
FEWEST = 20  # words of a paragraph
LEFT_OUT = {"ftfy"}  # its own documentation shows what mojibake is
COMPARING = {contract.DUPLICATE, contract.NEAR, contract.CONTAMINATING, rules.MOJIBAKE}
NAMES = ("Zoë", "José", "Łukasz", "Müller", "Chloé", "Søren", "Nuñez", "Dvořák", "“quoted”", "naïve", "it’s", "10 €")


class Record(NamedTuple):
    """A question and its answer."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Amounts:
    """How many faults of each kind."""

    repeated: int = 1000
    near: int = 1000
    contaminated: int = 500
    mojibake: int = 300


@dataclass
class Planted:
    """Records, and by their places in the list the faults: each with the one that it is like, mojibake alone."""

    records: list[Record]
    twins: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    mojibake: list[int] = field(default_factory=list)

    @property
    def faulty(self) -> set[int]:
        """The places of all records with a fault."""
        return {*self.mojibake, *(place for several in self.twins.values() for place, _ in several)}


def measure(root: Path) -> Samples:
    """Plant, prepare with the default rules, and count."""
    with fresh_clone(root) as clone:
        found = list(islice(paragraphs(root), PARAGRAPHS + PAIRS))
        planted = plant(found[:PARAGRAPHS], Amounts())
        write(clone / paths.RAW, planted, found[PARAGRAPHS:])
        write_params(SETTINGS, clone)
        call(clone, str(clone / ".venv/bin/python"), "-m", "stages.prepare")
        return results(clone, planted)


def paragraphs(root: Path) -> Iterator[Record]:
    """Records of the docstrings of every locked package that is installed, by the names of packages, files, and places in them."""
    for name in re.findall(r"^([\w.-]+)==", (root / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE):
        if name in LEFT_OUT:
            continue
        try:
            files = sorted(file for file in distribution(name).files or [] if file.suffix == ".py" and ".." not in file.parts)
        except PackageNotFoundError:
            continue  # of another system
        for file in files:
            module = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
            yield from _documented(Path(str(file.locate())).read_bytes(), module)


def _documented(source: bytes, module: str) -> Iterator[Record]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of others' escapes, r"\d" without the r
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # templates and files of other Pythons
    waiting: list[tuple[str, ast.AST]] = [(module, tree)]
    while waiting:
        name, node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for number, text in enumerate((ast.get_docstring(node) or "").split("\n\n"), 1):
                if len(text.split()) >= FEWEST:
                    yield Record(f"What does paragraph {number} of the documentation of {name} say?", text)
        inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)]
        waiting += [(f"{name}.{child.name}", child) for child in reversed(inner)]


def plant(clean: Sequence[Record], amounts: Amounts) -> Planted:
    """The records with faults among them, the same for the same records.

    A planted record's place is drawn too, so that it comes before or after the one that it is like.
    """
    rng = Random(17)
    kept, made = list(clean), list[tuple[str, Record, int]]()  # a fault: its kind, and the place of the one that it is like
    spoiled = _spoil(kept, amounts.mojibake, rng)
    tested = [place for place in range(len(kept)) if place not in spoiled and fraction(content_id(kept[place].prompt)) < TEST]
    held = rng.sample(tested, amounts.contaminated)
    others = rng.sample(sorted({*range(len(kept))} - {*spoiled, *held}), amounts.repeated + amounts.near)
    made += [("contaminated", _holding(kept[place], kept[others[0]], number % 3), place) for number, place in enumerate(held)]
    made += [("repeated", kept[place], place) for place in others[: amounts.repeated]]
    made += [("near", _near(kept[place], number % 2 == 1, rng), place) for number, place in enumerate(others[amounts.repeated :])]

    order = [*range(len(kept) + len(made))]
    rng.shuffle(order)
    planted = Planted([record for _, record in sorted(zip(order, [*kept, *(record for _, record, _ in made)], strict=True))])
    planted.mojibake = [order[place] for place in spoiled]
    for number, (kind, _, place) in enumerate(made, len(kept)):
        planted.twins.setdefault(kind, []).append((order[number], order[place]))
    return planted


def _spoil(records: list[Record], amount: int, rng: Random) -> list[int]:
    """Read answers in a wrong encoding, in place, and return where."""
    beyond = [place for place, record in enumerate(records) if not record.answer.isascii()]
    plain = [place for place, record in enumerate(records) if record.answer.isascii()]
    places = [*beyond[: amount // 2], *rng.sample(plain, amount - min(len(beyond), amount // 2))]
    for place in places:
        prompt, text = records[place]
        if text.isascii():
            words = text.split(" ")
            words.insert(rng.randrange(len(words)), rng.choice(NAMES))
            text = " ".join(words)
        read = text.encode()
        try:
            records[place] = Record(prompt, read.decode("cp1252"))
        except UnicodeDecodeError:
            records[place] = Record(prompt, read.decode("latin-1"))
    return places


def _near(record: Record, asked_otherwise: bool, rng: Random) -> Record:
    """The record with up to a tenth of its words exchanged, as far as the threshold allows, and perhaps asked in other words."""
    otherwise = record.prompt.replace("What does", "What did", 1)
    prompt = otherwise if asked_otherwise and _like(otherwise, record.prompt) else record.prompt
    words = record.answer.split(" ")
    wanted = rng.randint(1, len(words) // 10 + 1)
    for place in rng.sample(range(len(words)), len(words)):
        exchanged = [*words[:place], rng.choice(NAMES), *words[place + 1 :]]
        if wanted and _like(" ".join(exchanged), record.answer):
            words = exchanged
            wanted -= 1
    return Record(prompt, " ".join(words))


def _like(one: str, other: str) -> bool:
    pieces = shingles.characters([one, other])
    return shingles.jaccard(pieces.of(0), pieces.of(1)) >= THRESHOLD


def _holding(held: Record, around: Record, manner: int) -> Record:
    """A training record with the texts of a held-out one in it."""
    asked, said = held
    if manner == 1:
        asked, said = asked.upper().replace(".", " . "), said.upper().replace(",", " -")
    elif manner == 2:
        words = said.split(" ")
        shorter = " ".join(words[: len(words) - 1 - len(words) // 20])
        whole, left = (shingles.words([text]).of(0) for text in (said, shorter))
        said = shorter if shingles.contained(whole, left) >= THRESHOLD else said
    asking = (f"Question {number} of a list: {asked} Answer in your own words." for number in count())
    prompt = next(prompt for prompt in asking if fraction(content_id(prompt)) >= HELD_OUT)
    return Record(prompt, f"{around.answer}\n{said}\nThat is all.")


def write(folder: Path, planted: Planted, pairs: Sequence[Record]) -> None:
    """Write the records, a line each, and a few pairs, because prepare wants both."""
    outputs.write_jsonl(folder / RECORDS, ({"instruction": record.prompt, "output": record.answer} for record in planted.records))
    reversed_ = [{"prompt": asked, "chosen": said, "rejected": " ".join(reversed(said.split()))} for asked, said in pairs]
    outputs.write_jsonl(folder / PREFERENCES, reversed_)


def results(folder: Path, planted: Planted) -> Samples:
    """What prepare found in a repository: recall by fault, and what it took besides."""
    with (folder / paths.PREPARED / "rejected.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    went = {row["line"] - 1: row["rule"] for row in rows if row["source"].endswith(RECORDS)}
    everything = range(len(planted.records))
    stayed, sound = ([place for place in everything if place not in some] for some in (went, planted.faulty))
    found = {kind: [one in went or other in went for one, other in twins] for kind, twins in planted.twins.items()}
    found["mojibake"] = [went.get(place) == rules.MOJIBAKE for place in planted.mojibake]
    false = unexplained(planted.records, [place for place in sound if went.get(place) in COMPARING], stayed)
    besides = Counter(went[place] for place in sound if place in went)
    return {
        **{f"recall.{kind}": [sum(several) / len(several)] for kind, several in found.items()},
        "records": [len(planted.records)],
        "kept": [len(stayed)],
        "unexplained": [len(false)],
        "unexplained.share": [len(false) / len(sound)],
        **{f"besides.{rule}": [number] for rule, number in sorted(besides.items())},
    }


def unexplained(records: Sequence[Record], went: Sequence[int], stayed: Sequence[int]) -> list[int]:
    """Those that went though they are like none that stayed; each is compared with every one."""
    parts = [_Pieces([records[place][which] for place in stayed]) for which in (0, 1)]
    return [place for place in went if not (np.minimum(*map(_Pieces.like, parts, records[place])) >= THRESHOLD).any()]


class _Pieces:
    """The 5-character pieces of many texts by value, each with its text."""

    def __init__(self, texts: Sequence[str]) -> None:
        pieces = shingles.characters(texts)
        owners = np.repeat(np.arange(len(texts)), np.diff(pieces.starts))
        both = np.unique(np.stack([pieces.values, owners.astype(np.uint64)], axis=1), axis=0)
        self._values, self._owners = both[:, 0], both[:, 1].astype(np.int64)
        self._sizes = np.bincount(self._owners, minlength=len(texts))

    def like(self, text: str) -> NDArray[np.float64]:
        """The Jaccard index of a text with each."""
        wanted = np.unique(shingles.characters([text]).values)
        begin, end = (np.searchsorted(self._values, wanted, side) for side in ("left", "right"))
        owners = [self._owners[first:last] for first, last in zip(begin, end, strict=True)]
        both = np.bincount(np.concatenate(owners), minlength=len(self._sizes))
        like: NDArray[np.float64] = both / (self._sizes + len(wanted) - both)
        return like
