"""JSON → rows: one object a line, or a document with an array of them."""

import json
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from finetune.data.json_document import Document
from finetune.data.rows import ROWS, SIZE, Chunk, Fault, File, Row, blocks, not_utf_8, whole_lines

ONE_A_LINE = "expected one JSON object a line"


class _RefusedError(Exception):
    """Text that json would take, and we don't."""

    def __init__(self, rule: str, message: str) -> None:
        self.rule, self.message = rule, message


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RefusedError("field twice", f"{json.dumps(twice)} comes twice in one object, expected each field once; drop one of them")
    return value


def _constant(name: str) -> NoReturn:
    raise _RefusedError("not JSON", f"{name} is no JSON, expected a number or null; mend the record")


_loads = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant).decode


def lines(file: File) -> Iterator[Chunk]:
    """Cut a file with one object a line; lines are neither decoded nor looked at."""
    first = 1
    for block in whole_lines(file):
        if not block.isspace():
            yield Chunk(file.place, first, "lines", block)
        first += block.count(b"\n")


def decode_lines(chunk: Chunk) -> Iterator[Row | Fault]:
    """Yield the row of each line that isn't empty."""
    raw: bytes = chunk.payload
    escapes = b"\\ud" in raw or b"\\uD" in raw  # only these can be half a pair
    texts: list[str] | list[Fault | str]
    try:
        texts = raw.decode().split("\n")  # not splitlines, which breaks lines inside of texts too
    except UnicodeDecodeError:
        texts = [_text(number, line) for number, line in enumerate(raw.split(b"\n"), chunk.first)]
    ending = chunk.first + len(texts) - 1  # what stands after the last newline: nothing, or a line that may be cut off
    for number, text in enumerate(texts, chunk.first):
        if isinstance(text, Fault):
            yield text
        elif text and (row := _parse(number, text, escapes, ONE_A_LINE, cut_off=number == ending)) is not None:
            yield row


def _text(number: int, line: bytes) -> Fault | str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        return not_utf_8(number, error)


def lines_or_document(file: File) -> Iterator[Chunk]:
    """Chunks of what is called .json: one object a line where the first line is one and is not all, else a document."""
    opened = blocks(file)
    line, _, rest = next(opened, b"").lstrip().partition(b"\n")
    more = bool(rest.strip()) or next(opened, None) is not None
    opened.close()  # type: ignore[attr-defined]  # a generator, which holds the file open
    try:
        value = json.loads(line) if line.startswith(b"{") else None
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and (more or not any(isinstance(part, list) for part in value.values())):
        yield from lines(file)
    else:
        yield from document(file)


def document(file: File) -> Iterator[Chunk]:
    """Cut a document into the texts of its records."""
    first, texts, size = 1, list[str](), 0
    for text in Document(file).records():
        texts.append(text)
        size += len(text)
        if size >= SIZE or len(texts) == ROWS:
            yield Chunk(file.place, first, "array", texts)
            first, texts, size = first + len(texts), [], 0
    if texts:
        yield Chunk(file.place, first, "array", texts)


def decode_array(chunk: Chunk) -> Iterator[Row | Fault]:
    """Yield the row of each record of a document."""
    for number, text in enumerate(chunk.payload, chunk.first):
        row = _parse(number, text, "\\ud" in text or "\\uD" in text, "expected an object")
        if row is not None:
            yield row


def _parse(number: int, text: str, escapes: bool, expected: str, cut_off: bool = False) -> Row | Fault | None:
    """The row that a text holds; None if it holds nothing."""
    try:
        value = _loads(text)
        if escapes:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        if not text.strip():
            return None
        if cut_off:
            rule, message = "cut off", f"the last line is cut off, {expected}; copy the file again"
        else:
            rule = "not JSON"
            message = f"not JSON ({error.msg.lower().removesuffix(' at')} at character {error.pos + 1}), {expected}; mend the record"
    except _RefusedError as error:
        rule, message = error.rule, error.message
    except UnicodeEncodeError:
        rule = "half a surrogate pair"
        message = "holds half of a surrogate pair (\\ud800 to \\udfff), expected both halves; mend the record"
    except ValueError:
        digits = sys.get_int_max_str_digits()
        rule, message = "number too long", f"a number has more than {digits:,} digits, expected a shorter one or text; mend the record"
    except RecursionError:
        rule, message = "nested too deeply", f"nested too deeply, {expected}; mend the record"
    else:
        return Row(number, value)
    return Fault(number, rule, message, text.encode(errors="surrogatepass"))
