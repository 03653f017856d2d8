"""Files of any kind → rows: cut into chunks by one process, which is cheap, and decoded by others, which is not.

A chunk holds about 1 MB, so memory stays flat whatever the file's size. What is wrong with the file as a whole (missing, cut off in its
compression, of another format than its name says) stops the run as a DataError; what is wrong with one row is a Fault, with its number, and
the rows after it are read. Rows are numbered from 1: by line in JSON lines, by record elsewhere.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path, PurePosixPath

from finetune.data import arrow_rows, csv_rows, json_rows
from finetune.data.rows import COMPRESSIONS, ROWS, Chunk, Fault, File, Row, first_line, refuse

__all__ = ["Chunk", "Fault", "Row", "chunks", "decode", "hub", "package"]

TEXTS: dict[str, Callable[[File], Iterator[Chunk]]] = {
    ".jsonl": json_rows.lines,
    ".ndjson": json_rows.lines,
    ".json": json_rows.lines_or_document,
    ".csv": lambda file: csv_rows.records(file, ","),
    ".tsv": lambda file: csv_rows.records(file, "\t"),
}
TABLES: dict[str, Callable[[File], Iterator[Chunk]]] = {
    ".parquet": arrow_rows.parquet,
    ".arrow": arrow_rows.arrow,
    ".feather": arrow_rows.arrow,
}


def chunks(path: Path, place: str | None = None) -> Iterator[Chunk]:
    """Yield the chunks of a file, in order; its format is told by its suffix, and messages call it by its place, or else its path.

    Raises:
        DataError: the file can't be read, is not what its suffix says, or has no record.
    """
    file = File(path, place or path.as_posix())
    suffix = path.suffix.lower()
    if suffix in COMPRESSIONS:
        cut, found = TEXTS.get(path.with_suffix("").suffix.lower()), "".join(path.suffixes[-2:])
    else:
        cut, found = (TEXTS | TABLES).get(suffix), suffix or "(none)"
    if cut is None:
        expected = f"{', '.join([*TEXTS, *TABLES])}, or one of the first {len(TEXTS)} with {' or '.join(COMPRESSIONS)} behind it"
        refuse(file.place, f"unknown suffix {found}, expected one of {expected}; rename the file, or write it as one of these")
    empty = True
    for chunk in _with_last(cut(file)):
        empty = False
        yield chunk
    if empty:
        refuse(file.place, "found no record, expected one at least; put records there, or drop it from data.sources")


def decode(chunk: Chunk) -> Iterator[Row | Fault]:
    """Yield the rows of a chunk, in order; empty lines are passed over."""
    match chunk.kind:
        case "lines":
            return json_rows.decode_lines(chunk)
        case "array":
            return json_rows.decode_array(chunk)
        case "fields":
            return csv_rows.decode_fields(chunk)
        case "batch":
            return arrow_rows.decode_batch(chunk)
        case "values":
            return (Row(number, value) for number, value in enumerate(chunk.payload, chunk.first))


def package(module: str, file: str) -> Path:
    """Return a file inside an installed package, which is never imported: looking for data runs no code.

    Raises:
        DataError: there is no such package or file.
    """
    place = f"package:{module}/{file}"
    top, *below = module.split(".")  # of a.b, find_spec would import a
    spec = find_spec(top) if top.isidentifier() and top != "__main__" else None
    if spec is None or not spec.submodule_search_locations:
        refuse(place, f"found no installed package {top!r}, expected one; add it to pyproject.toml, then `make lock setup`")
    if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
        refuse(place, f"{file} lies outside of the package, expected a file inside of it; name one of its own")
    for folder in spec.submodule_search_locations:
        path = Path(folder, *below, file)
        if path.is_file():
            return path
    return refuse(place, f"found no file {file} in the installed {module}, expected one; name one that is there")


def hub(path: str, revision: str, split: str) -> Iterator[Chunk]:
    """Yield the chunks of a split of a Hugging Face data set at a pinned commit, streamed: nothing is kept on disk.

    Raises:
        DataError: the hub can't be asked, or has no such data set, revision or split.
    """
    empty = True
    for chunk in _with_last(_hub_chunks(path, revision, split)):
        empty = False
        yield chunk
    if empty:
        refuse(f"hub:{path}", f"found no record in split {split} at revision {revision}, expected one at least; name another split")


def _hub_chunks(path: str, revision: str, split: str) -> Iterator[Chunk]:
    from datasets import load_dataset  # 2 s, and only for those who read from the hub

    place = f"hub:{path}"
    elsewhere = (
        f"where there is a network, run `hf download {path} --repo-type dataset --revision {revision} "
        f"--local-dir data/raw/{path.rpartition('/')[2]}`, bring that folder, and name its files in data.sources"
    )
    try:
        rows = iter(load_dataset(path, revision=revision, split=split, streaming=True))
    except Exception as error:  # of datasets, huggingface_hub, httpx, fsspec or a reader of files, which share no class
        refuse(place, f"split {split} at revision {revision} could not be opened ({first_line(error)}); {elsewhere}", error)
    first = 1
    while True:
        try:
            values = list(islice(rows, ROWS))
        except Exception as error:  # as above
            refuse(place, f"could not be read beyond row {first - 1:,} ({first_line(error)}); run it again, or, {elsewhere}", error)
        if not values:
            return
        yield Chunk(place, first, "values", values)
        first += len(values)


def _with_last(cut: Iterator[Chunk]) -> Iterator[Chunk]:
    waiting = next(cut, None)
    for chunk in cut:
        if waiting is not None:
            yield waiting
        waiting = chunk
    if waiting is not None:
        yield replace(waiting, last=True)
