"""The files of an out, of the first run and of the second: which part, and where in them."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from itertools import zip_longest
from pathlib import Path

from finetune.proving import tables, tensors, values
from finetune.proving.difference import Difference, both, shown, there

BLOCK = 1 << 20  # bytes
TEXTS = (".html", ".jinja", ".md", ".txt")
Compare = Callable[[str, Path, Path], Difference | None]


def compare(out: str, first: Mapping[str, Path], second: Mapping[str, Path]) -> list[Difference]:
    """One difference for each file of an out that is not the same; both map the name below `out` ("": it is a file) to a file."""
    found = []
    for name in sorted({*first, *second}):
        file = f"{out}/{name}" if name else out
        if name not in first or name not in second:
            found.append(Difference(file, "the file", *there(name, first, second)))
            continue
        parting = _bytes(file, first[name], second[name])
        if parting is not None:
            found.append(_inside(file, first[name], second[name]) or parting)
    return found


def _inside(file: str, first: Path, second: Path) -> Difference | None:
    """Where the contents part; None: nowhere that is known of, or the files can't be read as what their names say."""
    suffix = Path(file).suffix
    kinds: dict[str, Compare] = {".safetensors": tensors.compare, ".parquet": tables.compare, ".json": _json, ".jsonl": _jsonl}
    kinds |= dict.fromkeys(TEXTS, _text)
    if suffix not in kinds:
        return None
    try:
        return kinds[suffix](file, first, second)
    except Exception:  # a half-written or damaged file raises whatever its library raises; that its bytes part is known
        return None


def _json(file: str, first: Path, second: Path) -> Difference | None:
    return values.compare(file, *(json.loads(path.read_text(encoding="utf-8")) for path in (first, second)))


def _jsonl(file: str, first: Path, second: Path) -> Difference | None:
    """The first line that parts, and its first key that does."""
    met, parted, lines = None, 0, 0
    with first.open(encoding="utf-8") as one, second.open(encoding="utf-8") as other:
        for number, (a, b) in enumerate(zip_longest(one, other), 1):
            lines = number
            if a != b:
                parted += 1
                met = met or (number, a, b)
    if met is None:
        return None
    number, a, b = met
    if a is None or b is None:
        return Difference(file, f"line {number}", *both(_line, a, b), parted, lines, "lines")
    inside = values.compare(file, json.loads(a), json.loads(b))
    if inside is None:
        return Difference(file, f"line {number}", *both(_line, a, b), parted, lines, "lines")
    at = f"line {number}, {inside.at}"
    return Difference(file, at, inside.first, inside.second, parted, lines, "lines", inside.largest, inside.largest_at)


def _text(file: str, first: Path, second: Path) -> Difference | None:
    one, other = (path.read_text(encoding="utf-8").splitlines() for path in (first, second))
    pairs = list(zip_longest(one, other))
    parting = [number for number, (a, b) in enumerate(pairs, 1) if a != b]
    if not parting:
        return None
    return Difference(file, f"line {parting[0]}", *both(_line, *pairs[parting[0] - 1]), len(parting), len(pairs), "lines")


def _bytes(file: str, first: Path, second: Path) -> Difference | None:
    """The first byte that parts."""
    offset = 0
    with first.open("rb") as one, second.open("rb") as other:
        while True:
            a, b = one.read(BLOCK), other.read(BLOCK)
            if a != b:
                inside = next((index for index, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
                return Difference(file, f"byte {offset + inside}", *both(partial(_byte, inside), a, b))
            if not a:
                return None
            offset += len(a)


def _line(text: str | None) -> str | None:
    return None if text is None else shown(text.rstrip("\n"))


def _byte(position: int, block: bytes) -> str | None:
    return f"{block[position]:#04x}" if position < len(block) else None
