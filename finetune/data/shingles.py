"""What texts have in common, by numbers: hashes of their character and word n-grams, of many texts at once, without a loop in Python.

Equal pieces have equal hashes; a chance collision of two is one in 10¹⁹. They find what may be alike and measure how alike it is; what is
one and the same is known by sha256 (finetune.data.records).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

CHARACTERS = 5  # of a shingle: about a word, in any script
WORDS = 8  # of a run: long enough that two texts seldom share one by chance
BETWEEN = re.compile(r"\W+")
BASE = 0x9E3779B97F4A7C15  # of the polynomial; odd, so that it has an inverse modulo 2⁶⁴


@dataclass(frozen=True)
class Ragged:
    """The hashes of several texts in one row, and where those of each text begin; `starts` has one more entry than there are texts."""

    values: Hashes
    starts: Places

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of(self, text: int) -> Hashes:
        """The hashes of one text."""
        return self.values[self.starts[text] : self.starts[text + 1]]


def characters(texts: Sequence[str], size: int = CHARACTERS) -> Ragged:
    """Hashes of the pieces of `size` characters of each text, with repeats; a shorter text is one piece, an empty one none.

    Upper and lower case are the same, and so is all white space.
    """
    plain = [" ".join(text.lower().split()) for text in texts]
    begins, lengths = _laid_out(plain)
    counts = _windows(lengths, size)
    starts = np.concatenate([[0], np.cumsum(counts)])
    first = np.arange(starts[-1]) + np.repeat(begins - starts[:-1], counts)
    last = np.minimum(first + size, np.repeat(begins + lengths, counts))
    return Ragged(_hashes(plain, first, last), starts)


def words(texts: Sequence[str], size: int = WORDS) -> Ragged:
    """Hashes of the runs of `size` words of each text, with repeats; a text of fewer words is one run, one without words none.

    What stands between the words is not looked at.
    """
    plain = [spaced(text) for text in texts]
    blanks = "".join(f"{text} " for text in plain)
    ends = np.flatnonzero(np.frombuffer(blanks.encode("utf-32-le"), np.uint32) == ord(" "))  # of words, and of empty texts
    counts = np.fromiter((text.count(" ") + 1 for text in plain), np.int64, len(plain))
    place = np.cumsum(counts) - counts  # of each text's first word among all words
    begins = np.concatenate([[0], ends[:-1] + 1])
    runs = np.where(np.fromiter(map(bool, plain), bool, len(plain)), _windows(counts, size), 0)
    starts = np.concatenate([[0], np.cumsum(runs)])
    first = np.arange(starts[-1]) + np.repeat(place - starts[:-1], runs)
    last = np.minimum(first + size, np.repeat(place + counts, runs)) - 1
    return Ragged(_hashes([blanks], begins[first], ends[last]), starts)


def is_one_run(text: str, size: int = WORDS) -> bool:
    """Whether a text has so few words that it is one run."""
    return spaced(text).count(" ") < size


def spaced(text: str) -> str:
    """The words of a text in lower case, with a blank between them and nothing else."""
    return BETWEEN.sub(" ", text.lower()).strip()


def jaccard(one: Hashes, other: Hashes) -> float:
    """Pieces in both, divided by pieces in either; 1 where both have none."""
    first, second = np.unique(one), np.unique(other)
    both = len(np.intersect1d(first, second, assume_unique=True))
    either = len(first) + len(second) - both
    return both / either if either else 1.0


def contained(part: Hashes, whole: Hashes) -> float:
    """The share of the pieces of `part` that are also in `whole`; 1 where it has none."""
    pieces = np.unique(part)
    return float(np.isin(pieces, whole).mean()) if len(pieces) else 1.0


def _laid_out(texts: Sequence[str]) -> tuple[Places, Places]:
    """Where each text begins when all are written one after the other, and how long it is."""
    ends = np.fromiter(accumulate(map(len, texts), initial=0), np.int64, len(texts) + 1)
    return ends[:-1], np.diff(ends)


def _windows(lengths: Places, size: int) -> Places:
    """How many pieces of `size` each has; a shorter one is one piece."""
    return np.maximum(lengths - size + 1, np.minimum(lengths, 1))


def _hashes(texts: Sequence[str], begins: Places, ends: Places) -> Hashes:
    """A hash of each stretch of the texts, written one after the other: its polynomial, of two sums from the beginning, then mixed."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).astype(np.uint64) + np.uint64(1)
    powers, inverses = _powers(1 << len(codes).bit_length())
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(codes * powers[: len(codes)], dtype=np.uint64)])
    values = (sums[ends] - sums[begins]) * inverses[begins]
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)  # splitmix64's finaliser
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = values ^ (values >> np.uint64(31))
    return mixed


@lru_cache(maxsize=4)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """BASE to the power of 0, 1, 2 … modulo 2⁶⁴, and their inverses."""
    both = []
    for base in (BASE, pow(BASE, -1, 2**64)):
        factors = np.full(count, base, np.uint64)
        factors[0] = 1
        both.append(np.cumprod(factors, dtype=np.uint64))
    return both[0], both[1]
