"""What all records come to together: which stay, in which split, and why each of the others goes.

Of two that are the same, or nearly, one stays: that of the test set before that of validation before that of training, then the one that
was read first.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from finetune.config.data import Files, Quality, SmartHome, Source
from finetune.config.schema import Prepare
from finetune.data import likeness
from finetune.data.examining import Kind, Split
from finetune.data.gathering import Gathering
from finetune.data.shingles import Places
from finetune.errors import DataError
from finetune.progress import progress

log = logging.getLogger(__name__)

DUPLICATE = "duplicate"
NEAR = "near duplicate"
CONTAMINATING = "holds a held-out record"
SHARED = "its prompt is also in the records"
OPPOSITE = "opposite verdicts"
FEW = 100
SPLITS: dict[str, tuple[Kind, Split]] = {
    "sft/train": (Kind.SFT, Split.TRAIN),
    "sft/validation": (Kind.SFT, Split.VALIDATION),
    "sft/test": (Kind.SFT, Split.TEST),
    "preference/train": (Kind.PREFERENCE, Split.TRAIN),
    "preference/test": (Kind.PREFERENCE, Split.TEST),
}


@dataclass(frozen=True)
class Kept:
    """The records that stay, as a mask over all that were gathered; the prompts that have several answers; and who held which others."""

    mask: NDArray[np.bool_]
    conflicts: int
    contaminating: Sequence[likeness.Twin] = ()

    def of(self, gathering: Gathering, name: str) -> Places:
        """The records that stay, of one of SPLITS, in order."""
        what, where = SPLITS[name]
        return np.flatnonzero(self.mask & (gathering.column("kind") == what) & (gathering.column("split") == where))

    def sizes(self, gathering: Gathering) -> dict[str, dict[str, int]]:
        """How many records stay, by what they are for and by split."""
        counts = {name: len(self.of(gathering, name)) for name in SPLITS}
        return {
            what: {name.split("/")[1]: count for name, count in counts.items() if name.startswith(what)} for what in ("sft", "preference")
        }


def settle(gathering: Gathering, data: Files | SmartHome, settings: Prepare) -> Kept:
    """Decide of every record whether it stays; who goes is written down."""
    quality, twins = data.quality, list[likeness.Twin]()
    settling = _Settling(gathering)
    settling.drop(settling.repeated(), DUPLICATE)
    settling.drop(settling.opposite(), OPPOSITE)
    settling.drop(settling.shared(), SHARED)
    if quality.near_duplicates is not None and len(gathering):
        settling.drop(settling.nearly(quality.near_duplicates), NEAR)
    if quality.contamination is not None:
        twins = settling.contaminating(quality.contamination)
        settling.drop([twin.record for twin in twins], CONTAMINATING)
    settling.weigh(data.sources if isinstance(data, Files) else [])
    settling.choose(Kind.SFT, settings.max_records, "max_records")
    settling.choose(Kind.PREFERENCE, settings.max_pairs, "max_pairs")
    return Kept(settling.alive, settling.conflicts(), twins)


def refuse_contaminated(gathering: Gathering, kept: Kept, quality: Quality) -> None:
    """Refuse training records that hold held-out ones, if they are not to be taken out.

    Raises:
        DataError: there are some, and data.quality.contaminated is refuse.
    """
    if kept.contaminating and quality.contaminated == "refuse":
        found = [
            f"{gathering.place(twin.record)}: holds {twin.share:.0%} of {gathering.place(twin.like)}, which is held out"
            for twin in kept.contaminating
        ]
        remedy = "take them out, or set data.quality.contaminated=remove; what is held out is chosen by data.test and data.validation"
        raise DataError(f"{len(found):,} training records hold records that are held out:", found, remedy)


def refuse_few(records: int, settings: Prepare) -> None:
    """Refuse too few training records, and warn of far more than help.

    Raises:
        DataError: they are fewer than prepare.min_records.
    """
    if records < settings.min_records:
        found = f"found {records:,} training records, expected prepare.min_records={settings.min_records} at least"
        raise DataError("too few records to learn from:", [found], "add records, or lower prepare.min_records")
    if records < FEW:
        log.warning("%d training records: below %d a model learns a form of answer, and hardly anything new", records, FEW)
    if records > settings.enough_records:
        most = f"{records:,} training records, more than prepare.enough_records={settings.enough_records:,}"
        log.warning("%s, cost time and seldom help; prepare.max_records keeps those that teach most", most)


def refuse_empty(gathering: Gathering, kept: Kept) -> None:
    """Refuse splits that nothing is left for.

    Raises:
        DataError: which they are, what was read, and why records went; or all of the test set are texts that ask nothing.
    """
    empty = [f"{what}/{split}" for what, sizes in kept.sizes(gathering).items() for split, size in sizes.items() if not size]
    if empty:
        went = ", ".join(f"{count:,} {rule}" for rule, count in sorted(gathering.refused.items())) or "none"
        read = ", ".join(f"{name} ({count:,})" for name, count in gathering.read.items())
        problems = [f"{name}: found no record that stays, expected one at least" for name in empty]
        remedy = f"read {read}; left out: {went}. Add records or pairs to data.sources, or change data.validation and data.test"
        raise DataError("a part of the data would be empty:", problems, remedy)
    test = kept.of(gathering, "sft/test")
    if (gathering.column("prompt")[test] == gathering.column("content")[test]).all():
        problem = f"sft/test: found {len(test):,} plain texts and no record with a prompt, expected one at least"
        remedy = "answer and evaluate ask the models the test's prompts: add a source of records with prompts, or raise data.test"
        raise DataError("the test set asks nothing:", [problem], remedy)


def write(gathering: Gathering, kept: Kept, folder: Path) -> dict[str, int]:
    """Write the files of data/prepared, and return how many records of the test set each slice has."""
    slices: Counter[str] = Counter()
    kind, split = gathering.column("kind"), gathering.column("split")
    belongs = np.full(len(gathering), len(SPLITS), np.int8)  # to none
    for number, (what, where) in enumerate(SPLITS.values()):
        belongs[kept.mask & (kind == what) & (split == where)] = number
    with ExitStack() as stack:
        files: list[BinaryIO] = []
        for name in SPLITS:
            path = folder / f"{name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            files.append(stack.enter_context(path.open("wb")))
        test = list(SPLITS).index("sft/test")
        for number, line in zip(belongs.tolist(), progress(gathering.lines(), "writing", len(gathering)), strict=True):
            if number < len(files):
                files[number].write(line)
            if number == test:
                slices[json.loads(line)["slice"]] += 1
    with (folder / "rejected.jsonl").open("wb") as rejected:
        rejected.writelines(gathering.rejected())
    return dict(slices)


def told(gathering: Gathering, kept: Kept) -> Iterator[str]:
    """What became of the records, in words."""
    reasons = ", ".join(f"{number:,} {rule}" for rule, number in sorted(gathering.refused.items())) or "none rejected"
    yield f"kept {sum(map(sum, map(dict.values, kept.sizes(gathering).values()))):,} of {gathering.read.total():,} records: {reasons}"
    if gathering.changed:
        yield "changed: " + ", ".join(f"{number:,} {rule}" for rule, number in sorted(gathering.changed.items()))
    if gathering.personal:
        yield "personal data: " + ", ".join(f"{number:,} {kind}" for kind, number in sorted(gathering.personal.items()))
    if kept.conflicts:
        yield f"{kept.conflicts:,} prompts have several answers, which are all kept"


class _Settling:
    """The records that are left so far, and the questions that take some of them away."""

    def __init__(self, gathering: Gathering) -> None:
        self.gathering = gathering
        self.kind, self.split, self.content, self.prompt = (gathering.column(name) for name in ("kind", "split", "content", "prompt"))
        self.alive = (self.kind == Kind.SFT) | (self.kind == Kind.PREFERENCE)  # labels are in pairs by now
        some = np.flatnonzero(self.alive)
        self.order = some[np.argsort(self.split[some], kind="stable")]  # who stays of two comes first

    def drop(self, records: Any, rule: str) -> None:
        """Take records away."""
        self.alive[records] = False
        self.gathering.drop(records, rule)

    def repeated(self) -> Places:
        """All but the first of the records with one content, of each kind."""
        order = self.order
        keys = np.stack([self.kind[order].astype(np.uint64), self.content[order]], axis=1)
        _, first = np.unique(keys, axis=0, return_index=True)
        return np.sort(np.delete(order, first))

    def opposite(self) -> Places:
        """Pairs that another one contradicts, both of the two: nobody knows which is right."""
        mirror = self.gathering.column("mirror")
        pairs = (self.kind == Kind.PREFERENCE) & self.alive
        return np.flatnonzero(pairs & np.isin(self.content, mirror[pairs]))

    def shared(self) -> Places:
        """Pairs whose prompt is among the records: preference prompts are none of SFT's."""
        records = self.prompt[(self.kind == Kind.SFT) & self.alive]
        return np.flatnonzero((self.kind == Kind.PREFERENCE) & self.alive & np.isin(self.prompt, records))

    def nearly(self, threshold: float) -> list[int]:
        """Records that are nearly one that stays, among those of their kind."""
        found: list[int] = []
        for kind in (Kind.SFT, Kind.PREFERENCE):
            some = self.order[(self.kind[self.order] == kind) & self.alive[self.order]]

            def parts(places: Places, some: Places = some) -> list[tuple[str, str, str]]:
                return self.gathering.parts(some[places])

            twins = likeness.near_duplicates(self.gathering.bands()[some], threshold, parts) if len(some) else []
            found += [int(some[twin.record]) for twin in twins]
        return sorted(found)

    def contaminating(self, threshold: float) -> list[likeness.Twin]:
        """Training records that hold a held-out one of their kind, and pairs that hold a held-out record."""
        work = progress(self.gathering.runs_of_training(), "comparing training with what is held out", unit="chunks")

        def asked_and_answered(places: Places) -> list[tuple[str, str]]:
            return [(prompt, answer) for _, prompt, answer in self.gathering.parts(places)]

        twins = likeness.contaminating(self.gathering.runs_held_out(), work, threshold, asked_and_answered)
        left = {
            twin.record: twin
            for twin in reversed(twins)
            if self.alive[twin.record] and self.alive[twin.like] and self.kind[twin.like] in (Kind.SFT, self.kind[twin.record])
        }
        return [left[record] for record in sorted(left)]

    def weigh(self, sources: Sequence[Source]) -> None:
        """Bring the sources' shares of training to their weights, and keep to their caps; the smallest content hashes stay."""
        places = self.gathering.column("source")
        training = self.alive & (self.split == Split.TRAIN)
        counts = np.bincount(places[training], minlength=len(sources))
        caps = [source.max_records if source.max_records is not None else len(training) for source in sources]
        counts = np.minimum(counts, caps)
        weights = {place: source.weight for place, source in enumerate(sources) if source.weight is not None and counts[place]}
        size = min((counts[place] / weight for place, weight in weights.items()), default=0.0)
        for place, source in enumerate(sources):
            if place in weights:
                self._keep_first(training & (places == place), int(size * weights[place] + 1e-9), "data.sources.weight")
            if source.max_records is not None:
                self._keep_first(self.alive & training & (places == place), source.max_records, "data.sources.max_records")

    def choose(self, kind: Kind, most: int | None, setting: str) -> None:
        """Keep that many training records: of each opening of a prompt in turn, the ones that there is most to learn from first."""
        some = np.flatnonzero(self.alive & (self.kind == kind) & (self.split == Split.TRAIN))
        if most is None or len(some) <= most:
            return
        opening, worth = (self.gathering.column(name)[some] for name in ("opening", "worth"))
        best = np.lexsort((self.content[some], -worth, opening))
        _, first, turn = np.unique(opening[best], return_index=True, return_inverse=True)
        round_ = np.arange(len(best)) - first[turn]
        chosen = best[np.lexsort((self.content[some][best], -worth[best], round_))]
        self.drop(np.sort(some[chosen[most:]]), f"beyond prepare.{setting}")

    def conflicts(self) -> int:
        """Prompts that have several answers among the records that stay."""
        _, counts = np.unique(self.prompt[self.alive & (self.kind == Kind.SFT)], return_counts=True)
        return int((counts > 1).sum())

    def _keep_first(self, wanted: NDArray[np.bool_], most: int, rule: str) -> None:
        some = np.flatnonzero(wanted)
        if len(some) > most:
            self.drop(np.sort(some[np.argsort(self.content[some], kind="stable")[most:]]), f"beyond {rule}")
