"""JSONL files from people: read line by line, each problem with its place, all of them reported together.

A file is never taken in part: one bad line stops the run, because a record that is silently left out is never missed.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import DataError

BOM = b"\xef\xbb\xbf"  # some editors put it before UTF-8
JSON_TYPES = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}


@dataclass(frozen=True)
class Form:
    """The fields of a record; all are text."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "{" + ", ".join([*(f'"{name}"' for name in self.required), *(f'"{name}"?' for name in self.optional)]) + "}"


RECORDS = Form(("instruction", "output"), ("input",))
PREFERENCES = Form(("prompt", "chosen", "rejected"))


@dataclass(frozen=True)
class Line:
    """A good line: its number in the file, from 1, its fields (optional ones that were not given are ""), and names that the form lacks."""

    number: int
    fields: Mapping[str, str]
    ignored: tuple[str, ...]


def lines(path: Path, form: Form) -> Iterator[Line]:
    """Yield the records of a file, one in memory at a time; empty lines are passed over, unknown fields ignored.

    Raises:
        DataError: after the last line, with every problem of the file; or at once, if there is no such file.
    """
    problems: list[str] = []
    found = 0
    for number, raw, last in _raw_lines(path):
        place = f"{path.as_posix()}:{number}"
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            problems.append(f"{place}: byte {error.start + 1} is 0x{raw[error.start]:02x}, expected UTF-8; convert the file to UTF-8")
            continue
        if not text.strip():
            continue
        found += 1
        try:
            value = json.loads(text)
            fields = _fields(value, form)
        except json.JSONDecodeError as error:
            cut = last and not raw.endswith(b"\n")
            what = "the last line is cut off" if cut else f"not JSON ({error.msg.lower()} at character {error.pos + 1})"
            problems.append(f"{place}: {what}, expected one JSON object a line; {'copy the file again' if cut else 'mend the line'}")
        except ValueError as error:  # a number of thousands of digits
            problems.append(f"{place}: {str(error).partition(';')[0].lower()}, expected {form}; mend the line")
        except RecursionError:
            problems.append(f"{place}: nested too deeply, expected {form}; mend the line")
        except _RefusedError as error:
            problems += [f"{place}: {problem}" for problem in error.problems]
        else:
            yield Line(number, fields, tuple(name for name in value if name not in fields))
    if not found and not problems:
        problems.append(f"{path.as_posix()}: found no record, expected one JSON object a line like {form}")
    if problems:
        raise refused(problems)


def refused(problems: list[str]) -> DataError:
    """The error that names the problems of one file or of several."""
    count = f"{len(problems):,} problem{'s' * (len(problems) != 1)} in all"
    return DataError("the records can't be used:", problems, f"{count}; nothing was prepared")


class _RefusedError(Exception):
    def __init__(self, problems: list[str]) -> None:
        self.problems = problems


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Yield number, bytes, and whether it is the last line."""
    try:
        opened = path.open("rb")
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"can't be read ({(error.strerror or str(error)).lower()})"
        remedy = "put it there, or name another in conf/data/jsonl.yaml"
        raise refused([f"{path.as_posix()}: {reason}, expected JSONL; {remedy}"]) from error
    with opened:
        waiting = opened.readline().removeprefix(BOM)
        number = 0
        while waiting:
            number += 1
            following = opened.readline()
            yield number, waiting, not following
            waiting = following


def _fields(value: Any, form: Form) -> dict[str, str]:
    """The fields of the form, checked."""
    if not isinstance(value, dict):
        raise _RefusedError([f"found {JSON_TYPES[type(value)]}, expected an object {form}"])
    problems = [problem for name in (*form.required, *form.optional) if (problem := _problem(name, value, form))]
    if not problems and form is PREFERENCES and value["chosen"].strip() == value["rejected"].strip():
        problems.append("chosen and rejected are the same text, expected a better and a worse answer; drop the line")
    if problems:
        raise _RefusedError(problems)
    return {name: value.get(name) or "" for name in (*form.required, *form.optional)}


def _problem(name: str, record: dict[str, Any], form: Form) -> str | None:
    """What is wrong with a field; None when it can be used."""
    given = record.get(name)
    if name in form.optional and given is None:
        return None
    if name not in record:
        return f'no "{name}", found {", ".join(map(json.dumps, record)) or "no field"}, expected {form}'
    if not isinstance(given, str):
        return f'"{name}" is {JSON_TYPES[type(given)]}, expected text'
    if name in form.required and not given.strip():
        return f'"{name}" is empty, expected text'
    if any("\ud800" <= character <= "\udfff" for character in given):
        return f'"{name}" holds half of a surrogate pair (\\ud800 to \\udfff), which is no text; mend the line'
    return None
