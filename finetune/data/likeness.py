"""Records that are nearly others: near duplicates, and test records that training would have seen.

Both compare prompt *and* answer: like prompts with different answers are no duplicates. Hashes name the candidates (MinHash in bands; runs
of words that both have), the texts themselves decide, so that nothing is dropped by a chance of hashing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from finetune.data import shingles
from finetune.data.shingles import Places, Ragged

BANDS, ROWS = 21, 6  # two texts with a Jaccard index of 0.8 share a band with a probability of 0.998, with 0.5 of 0.28
SEED = 0  # of MinHash: part of no setting, because candidates are checked
LARGE = 64  # records of one band's bucket up to which each is compared with each; in a larger one with its neighbour and the first only
COMMON = 64  # held-out records that share a run of words from which it is a phrase of the data, and names no candidates
CANDIDATE = 0.5  # times the threshold: share of its other runs that a record must have in common to be looked at
AT_ONCE = 2_000  # pairs of texts in memory

Bands = NDArray[np.uint32]
Texts = Callable[[Places], Sequence[tuple[str, ...]]]
"""The parts of records, by their numbers: prompt and answer, for near duplicates also the system message."""


@dataclass(frozen=True)
class Twin:
    """A record, the one that it is like, and how like: the smallest of its parts' figures."""

    record: int
    like: int
    share: float


def bands(texts: Sequence[str]) -> Bands:
    """A hash of each band of each text's MinHash signature, and one of all of it, texts × (BANDS + 1); who share one are candidates."""
    pieces = shingles.characters(texts)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(pieces.values, pieces.starts.astype(np.uint64), BANDS * ROWS, SEED)
    rows = np.array(matrix.to_rows(), np.uint64).reshape(len(texts), BANDS, ROWS)
    powers = np.array([pow(shingles.BASE, place, 2**64) for place in range(ROWS)], np.uint64)
    upto = np.concatenate([np.zeros(1, np.uint64), np.cumsum(pieces.values, dtype=np.uint64)])
    whole = upto[pieces.starts[1:]] - upto[pieces.starts[:-1]]  # so that the same texts find each other in a crowd of like ones
    sums: NDArray[np.uint64] = np.column_stack([(rows * powers).sum(axis=2, dtype=np.uint64), whole])
    return (sums >> np.uint64(32)).astype(np.uint32)


def near_duplicates(hashes: Bands, threshold: float, texts: Texts) -> list[Twin]:
    """Return the records that are like one before them that stays; the order of the records says which of two stays.

    hashes: records × (BANDS + 1). A record goes when the Jaccard index of its 5-character pieces with those of a kept one is at least the
    threshold in each of its parts.
    """
    dropped: dict[int, Twin] = {}
    for earlier, later in _candidates(hashes):
        open_ = [place for place, record in enumerate(later) if int(record) not in dropped]
        likeness = _compared(earlier[open_], later[open_], texts)
        for one, other, share in zip(earlier[open_], later[open_], likeness, strict=True):
            if share >= threshold and int(one) not in dropped and int(other) not in dropped:
                dropped[int(other)] = Twin(int(other), int(one), share)
    return [dropped[record] for record in sorted(dropped)]


def _candidates(hashes: Bands) -> Iterator[tuple[Places, Places]]:
    """Pairs of records that share a band, the earlier and the later, in the order of the later; AT_ONCE a time."""
    count = len(hashes)
    keys = np.zeros(0, np.int64)
    for band in hashes.T:
        order = np.argsort(band, kind="stable")
        sorted_ = band[order]
        first = np.flatnonzero(np.concatenate([[True], sorted_[1:] != sorted_[:-1]]))
        sizes = np.diff(np.concatenate([first, [count]]))
        size, begin = np.repeat(sizes, sizes), np.repeat(first, sizes)
        found = []
        for step in range(1, min(LARGE, int(sizes.max(initial=1)))):
            at = np.flatnonzero((np.arange(count) - begin >= step) & ((size <= LARGE) | (step == 1)))
            if not len(at):
                break
            found.append(order[at] * count + order[at - step])
        far = np.flatnonzero((size > LARGE) & (np.arange(count) > begin))
        found.append(order[far] * count + order[begin[far]])
        keys = np.union1d(keys, np.concatenate(found))
    for start in range(0, len(keys), AT_ONCE):
        later, earlier = np.divmod(keys[start : start + AT_ONCE], count)
        yield earlier, later


def _compared(earlier: Places, later: Places, texts: Texts) -> list[float]:
    """How like the two records of each pair are: the smallest Jaccard index of their parts."""
    if not len(earlier):
        return []
    records, place = np.unique(np.concatenate([earlier, later]), return_inverse=True)
    pieces = [shingles.characters(part) for part in zip(*texts(records), strict=True)]
    one, other = place[: len(earlier)], place[len(earlier) :]
    return [min(shingles.jaccard(part.of(a), part.of(b)) for part in pieces) for a, b in zip(one, other, strict=True)]


@dataclass(frozen=True)
class Runs:
    """The runs of words of some texts, prompts, answers and short turns apart, and the record that each text is of."""

    records: Places
    runs: Ragged


def contaminating(held_out: Sequence[Runs], trained: Iterable[Runs], threshold: float, texts: Texts) -> list[Twin]:
    """Return the training records that hold a record of the validation or test set, with each record that they hold.

    One holds another when at least the threshold of the other's runs of 8 words are in it, of its prompt and of its answer; a part of up to
    8 words must be in it whole. Two short parts are looked for in records that have one of them as a turn of their own.
    """
    index = _Index(held_out)
    found: list[Twin] = []
    for several in trained:
        pairs = index.candidates(several)
        for start in range(0, len(pairs), AT_ONCE):
            found += _holding(pairs[start : start + AT_ONCE], threshold, texts)
    return found


class _Index:
    """The runs of words of the held-out records, each with its record; without those that are phrases of the data."""

    def __init__(self, held_out: Sequence[Runs]) -> None:
        records = np.concatenate([np.zeros(0, np.int64), *(np.repeat(some.records, np.diff(some.runs.starts)) for some in held_out)])
        runs = np.concatenate([np.zeros(0, np.uint64), *(some.runs.values for some in held_out)])
        order = np.lexsort((records, runs))  # a fifth of the time of np.unique over pairs
        runs, records = runs[order], records[order]
        fresh = np.concatenate([[True], runs[1:] != runs[:-1]])[: len(runs)]
        once = fresh | np.concatenate([[True], records[1:] != records[:-1]])[: len(runs)]
        runs, records, fresh = runs[once], records[once], fresh[once]
        counts = np.diff(np.append(np.flatnonzero(fresh), len(runs)))
        telling = np.repeat(counts < COMMON, counts)
        self.runs, self.records = runs[telling], records[telling]
        self.sizes = np.bincount(self.records, minlength=1)

    def candidates(self, trained: Runs) -> Places:
        """Pairs of a training record and a held-out one that have much in common, pairs × 2."""
        order = np.argsort(trained.runs.values)  # looked up in order, a million runs take a seventh of the time
        begin, end = (np.searchsorted(self.runs, trained.runs.values[order], side) for side in ("left", "right"))
        hits = end - begin
        if not hits.any():
            return np.zeros((0, 2), np.int64)
        owners = np.repeat(np.repeat(trained.records, np.diff(trained.runs.starts))[order], hits)
        within = np.arange(hits.sum()) - np.repeat(np.cumsum(hits) - hits, hits)
        places = np.repeat(begin, hits) + within
        met = np.unique(np.stack([owners, self.records[places], places], axis=1), axis=0)[:, :2]  # a run counts once for a pair
        pairs, counts = np.unique(met, axis=0, return_counts=True)
        much: Places = pairs[counts >= CANDIDATE * self.sizes[pairs[:, 1]]]
        return much


def _holding(pairs: Places, threshold: float, texts: Texts) -> Iterator[Twin]:
    """Those of the pairs whose first holds its second, by their texts."""
    records, place = np.unique(pairs, return_inverse=True)
    parts = texts(records)
    runs = [shingles.words([part[which] for part in parts]) for which in (0, 1)]
    for (record, other), (here, there) in zip(pairs, place.reshape(pairs.shape), strict=True):
        everything = np.concatenate([part.of(here) for part in runs])
        share = 1.0
        short = [which for which, part in enumerate(runs) if len(part.of(there)) == 1]
        for part in runs:
            if len(part.of(there)) > 1:
                share = min(share, shingles.contained(part.of(there), everything))
        if short and not _holds_short([parts[there][which] for which in short], parts[here]):
            continue
        if share >= threshold:
            yield Twin(int(record), int(other), share)


def _holds_short(wanted: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether short parts are in others as whole words; a question and its answer each in its own kind of part, or one after the other."""
    within = [f" {shingles.spaced(text)} " for text in parts]
    if len(wanted) == 1:
        return any(f" {shingles.spaced(wanted[0])} " in text for text in within)
    asked, answered = (f"{shingles.spaced(text)} " for text in wanted)
    return all(f" {text}" in part for text, part in zip((asked, answered), within, strict=True)) or f" {asked}{answered}" in (
        f" {shingles.spaced(' '.join(parts))} "
    )
