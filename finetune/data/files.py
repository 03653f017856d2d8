"""Your own records: every source of data.sources, in whatever form and format, as records that the rules let pass."""

import json
import logging
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice

import numpy as np

from finetune import paths, workers
from finetune.config.data import Files, Quality, Source
from finetune.data import reading
from finetune.data.examining import SLICE, Examined, Kind, Manner, Split, compare, examine, keep_pair
from finetune.data.forms import recognise
from finetune.data.gathering import Gathering
from finetune.data.reading import Chunk, Fault, Row
from finetune.data.records import Preference
from finetune.errors import DataError
from finetune.progress import progress

log = logging.getLogger(__name__)

EACH = 3  # problems named of each source, where several can't be used
FIRST = 100  # records by which a form is recognised
ALONE = "label without its opposite"
LABELS = "liked and disliked"  # how a pair came about


def gather(gathering: Gathering, settings: Files, processes: int, megabytes: int | None = None) -> bool:
    """Add the records of every source, or of the first megabytes of each; return whether that is all there is.

    Raises:
        DataError: sources can't be read, or their form not be told; or rows are malformed, and data.quality.malformed is refuse.
    """
    gathering.sources += [_name(source) for source in settings.sources]
    whole = True
    for manner, all_chunks in _opened(settings):
        chunks = all_chunks if megabytes is None else islice(all_chunks, megabytes)
        found_in_chunks = workers.each(chunks, partial(examine, manner=manner), processes)
        for found in progress(found_in_chunks, f"examining {manner.name}", unit="chunks"):
            gathering.add(found)
        whole &= next(all_chunks, None) is None
    pair_labels(gathering, settings.quality)
    if settings.quality.malformed == "refuse":
        refuse_malformed(gathering)
    return whole


def refuse_malformed(gathering: Gathering) -> None:
    """Refuse rows that are no records.

    Raises:
        DataError: with the first of them, and how many there are.
    """
    if gathering.faulty:
        remedy = f"{gathering.faulty:,} in all; mend them, or leave them out with data.quality.malformed=drop. Nothing was prepared"
        raise DataError("the records can't be used:", gathering.faults, remedy)


def _name(source: Source) -> str:
    """What records, messages and reports call a source."""
    local = not source.path.startswith(("package:", "hub:"))
    return f"{paths.RAW.as_posix()}/{source.path}" if local else source.path if source.split is None else f"{source.path}/{source.split}"


def _chunks(source: Source) -> Iterator[Chunk]:
    kind, _, rest = source.path.partition(":")
    if kind == "hub" and rest:
        return reading.hub(rest, source.revision or "", source.split or "train")
    if kind == "package" and rest:
        module, _, file = rest.partition("/")
        return reading.chunks(reading.package(module, file), source.path)
    return reading.chunks(paths.RAW / source.path)


def _opened(settings: Files) -> list[tuple[Manner, Iterator[Chunk]]]:
    """How each source's rows are examined, and its chunks. Raises a DataError with all that can't be opened."""
    opened, refused = [], list[DataError]()
    for place, source in enumerate(settings.sources):
        try:
            opened.append(_manner(source, settings, f"data.sources[{place}]", _chunks(source)))
        except DataError as error:
            refused.append(error)
    if len(refused) == 1:
        raise refused[0]
    if refused:
        found = [problem for error in refused for problem in error.problems[:EACH]]
        more = sum(len(error.problems[EACH:]) + error.unlisted for error in refused)
        remedies = dict.fromkeys(error.remedy for error in refused if error.remedy)
        raise DataError(f"{len(refused)} of {len(settings.sources)} sources can't be used:", found, "\n".join(remedies), more)
    return opened


def _manner(source: Source, settings: Files, setting: str, chunks: Iterator[Chunk]) -> tuple[Manner, Iterator[Chunk]]:
    """How the source's rows are examined, told by the first of them, and all of its chunks."""
    name = _name(source)
    chunk = next(chunks)
    first = list(islice(reading.decode(chunk), FIRST))
    rows = [row.value for row in first if isinstance(row, Row)]
    faults = [f"{name}:{row.number}: {row.message}" for row in first if isinstance(row, Fault)]
    if faults and not rows and source.form is None:
        remedy = f"none of its first {len(first)} rows could be read, so its form can't be told; mend them, or set {setting}.form"
        raise DataError("the records can't be used:", faults, remedy)
    known = recognise(rows, source.fields or {}, place=name, setting=setting, form=source.form)
    log.info("%s: %s", name, known)
    manner = Manner(
        name, known.form, source.fields or {}, source.group, settings.system, settings.validation, settings.test, settings.quality
    )
    return manner, chain([chunk], chunks)


def pair_labels(gathering: Gathering, quality: Quality) -> None:
    """Add a pair for each liked and each disliked answer to one prompt, in the order of the files; labels that stay alone are rejected.

    Labels of two groups may lie in two splits, and are no pair then.
    """
    kind, prompt, split = (gathering.column(name) for name in ("kind", "prompt", "split"))
    answers: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    for record in np.flatnonzero((kind == Kind.LIKED) | (kind == Kind.DISLIKED)).tolist():
        answers.setdefault((int(prompt[record]), int(split[record])), ([], []))[int(kind[record] == Kind.DISLIKED)].append(record)
    couples = sorted(couple for liked, disliked in answers.values() for couple in zip(liked, disliked, strict=False))
    paired = {record for couple in couples for record in couple}
    alone = sorted(record for both in answers.values() for records in both for record in records if record not in paired)
    gathering.drop(alone, ALONE)
    source, number = gathering.column("source"), gathering.column("number")
    found: dict[str, Examined] = {}
    for liked, disliked in couples:
        chosen, rejected = (json.loads(line) for line in gathering.some_lines([liked, disliked]))
        name = gathering.sources[int(source[liked])]
        pair = Preference(SLICE, name, LABELS, tuple(chosen["prompt"]), chosen["answer"], rejected["answer"])
        keep_pair(found.setdefault(name, Examined(name)), int(number[liked]), pair, Split(int(split[liked])))
    for several in found.values():
        compare(several, quality)
        gathering.add(several)
    gathering.merged += len(couples)
