"""The records that the rules let pass, before they are compared: texts in scratch files, numbers in memory, 0.15 GB a million of them."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from finetune.data.examining import Examined, Rejected, Split, parts, rejected, texts
from finetune.data.likeness import Bands, Runs
from finetune.data.shingles import Places, Ragged

LISTED = 1_000  # faults that are kept for a message, which shows ten and the count
TYPES = {
    "source": np.int32,
    "number": np.int64,
    "kind": np.int8,
    "split": np.int8,
    "content": np.uint64,
    "prompt": np.uint64,
    "mirror": np.uint64,
    "opening": np.uint64,
    "worth": np.float64,
    "length": np.int64,
}


class Gathering:
    """Records by number, in the order in which they are added. A context: its scratch files go with it."""

    def __init__(self) -> None:
        self.sources: list[str] = []
        self.read: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.changed: Counter[str] = Counter()
        self.personal: Counter[str] = Counter()
        self.faults: list[str] = []
        self.faulty = 0
        self.merged = 0  # rows that went into another's record
        self._size = 0
        self._at: Places = np.zeros(0, np.int64)
        self._columns: dict[str, list[NDArray[Any]]] = {name: [] for name in TYPES}
        self._bands: list[Bands] = []
        self._held_out: list[Runs] = []
        self._spilled: list[tuple[int, int]] = []
        self._open = ExitStack()
        self._lines, self._written_down, self._runs = (self._scratch() for _ in range(3))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._open.close()

    def __len__(self) -> int:
        return self._size

    def add(self, found: Examined) -> None:
        """Take over what a chunk came to."""
        if found.source not in self.sources:
            self.sources.append(found.source)
        self.read[found.source] += found.read
        self.personal.update(found.personal)
        self.faulty += len(found.faults)
        self.faults += found.faults[: LISTED - len(self.faults)]
        for refused in found.rejected:
            self.reject(refused)
        for changed in found.changed:
            self.changed[changed.rule] += 1
            self._write_down(changed)
        if found.lines:
            self._add_records(found)

    def reject(self, refused: Rejected) -> None:
        """Write down a record that is left out."""
        self.refused[refused.rule] += 1
        self._write_down(refused)

    def rejected(self) -> Iterator[bytes]:
        """Yield the lines of data/prepared/rejected.jsonl."""
        self._written_down.seek(0)
        yield from self._written_down

    def lines(self) -> Iterator[bytes]:
        """Yield the line of each record, in order."""
        self._lines.seek(0)
        yield from self._lines

    def column(self, name: str) -> NDArray[Any]:
        """One of the numbers of every record (TYPES)."""
        several = self._columns[name]
        if len(several) != 1:
            self._columns[name] = several = [np.concatenate([np.zeros(0, TYPES[name]), *several])]
        return several[0]

    def bands(self) -> Bands:
        """The MinHash bands of every record, records × bands."""
        if len(self._bands) != 1:
            self._bands = [np.concatenate(self._bands)]
        return self._bands[0]

    def runs_held_out(self) -> list[Runs]:
        """The runs of words of the records of validation and test."""
        return self._held_out

    def runs_of_training(self) -> Iterator[Runs]:
        """The runs of words of the training records, chunk by chunk, from their scratch file."""
        self._runs.seek(0)
        for count, runs in self._spilled:
            records, starts = (np.frombuffer(self._runs.read(8 * size), np.int64) for size in (count, count + 1))
            yield Runs(records, Ragged(np.frombuffer(self._runs.read(8 * runs), np.uint64), starts))

    def parts(self, records: Places) -> list[tuple[str, str, str]]:
        """System message, prompt and answer of each of some records."""
        return [parts(line) for line in self.some_lines(records)]

    def some_lines(self, records: Sequence[int] | Places) -> list[bytes]:
        """The lines of some records."""
        self._lines.flush()
        length, ends = self.column("length"), self._ends()
        return [os.pread(self._lines.fileno(), int(length[record]), int(ends[record] - length[record])) for record in records]

    def place(self, record: int) -> str:
        """Where a record was read, as messages name it."""
        return f"{self.sources[int(self.column('source')[record])]}:{int(self.column('number')[record])}"

    def drop(self, records: Sequence[int] | Places, rule: str) -> None:
        """Write down records that are left out after all."""
        source, number = self.column("source"), self.column("number")
        for record in records:
            (line,) = self.some_lines([int(record)])
            name = self.sources[int(source[record])]
            self.reject(rejected(name, int(number[record]), rule, texts(line)))

    def _scratch(self) -> IO[bytes]:
        return self._open.enter_context(tempfile.TemporaryFile())  # the stack closes it

    def _add_records(self, found: Examined) -> None:
        count = len(found.lines)
        values = {
            "source": [self.sources.index(found.source)] * count,
            "number": found.numbers,
            "kind": found.kinds,
            "split": found.splits,
            "content": found.contents,
            "prompt": found.prompts,
            "mirror": found.mirrors,
            "opening": found.openings,
            "worth": found.worth,
            "length": [len(line) for line in found.lines],
        }
        for name, column in values.items():
            self._columns[name].append(np.array(column, TYPES[name]))
        self._lines.writelines(found.lines)
        if found.bands is not None:
            self._bands.append(found.bands)
        if found.runs is not None:
            self._keep_runs(found.runs, np.array(found.splits, np.int8), found.counts)
        self._size += count

    def _keep_runs(self, runs: Ragged, splits: NDArray[np.int8], counts: list[int]) -> None:
        """Held out: in memory, where they are looked up; of training: in a file, because they are looked at once."""
        records = np.repeat(np.arange(self._size, self._size + len(splits)), counts)
        training = np.repeat(splits == Split.TRAIN, counts)
        held_out = _some(runs, ~training)
        if len(held_out):
            self._held_out.append(Runs(records[~training], held_out))
        trained = _some(runs, training)
        if len(trained):
            self._spilled.append((len(trained), len(trained.values)))
            for array in (records[training], trained.starts, trained.values):
                self._runs.write(array.tobytes())

    def _ends(self) -> Places:
        """Where the line of each record ends."""
        if len(self._at) != self._size:
            self._at = np.cumsum(self.column("length"))
        return self._at

    def _write_down(self, refused: Rejected) -> None:
        self._written_down.write(json.dumps(refused.row(), ensure_ascii=False).encode() + b"\n")


def _some(runs: Ragged, wanted: NDArray[np.bool_]) -> Ragged:
    """The runs of some of the texts."""
    sizes = np.diff(runs.starts)
    return Ragged(runs.values[np.repeat(wanted, sizes)], np.concatenate([[0], np.cumsum(sizes[wanted])]))
