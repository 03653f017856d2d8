"""A JSON document of any length, taken apart into the texts of its records."""

import codecs
import json
from collections.abc import Iterator
from itertools import islice
from typing import NoReturn

from finetune.data.rows import LIMIT, SIZE, File, blocks, refuse

DOCUMENT = "expected an array of objects, an object with one list of them, or one object a line"
_raw_decode = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode  # only says where a value ends; str has no limit of digits


class Document:
    """A JSON document through a window that moves along it; it says where each record begins and ends, and makes nothing of it."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.blocks = blocks(file)
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.read = 0  # bytes
        self.line = 1  # that the window begins in
        self.text = ""  # the window
        self.at = 0  # how far it is read
        self.whole = False

    def records(self) -> Iterator[str]:
        """Yield the texts of the elements of the array, or of the only list in the object."""
        opening = self._next()
        if opening == "[":
            yield from self._elements()
        elif opening == "{":
            yield from self._only_list()
        elif opening:
            self._refuse(f"begins with {opening!r}, {DOCUMENT}; mend the file")
        if self._next():
            self._refuse("goes on after its end; drop what follows, or write one object a line and call the file .jsonl")

    def _elements(self) -> Iterator[str]:
        self._take("[")
        while self._next() != "]":
            yield self._value()
            if self._next() != "]":
                self._take(",")
                if self._next() == "]":
                    self._refuse("found a comma before the end of the list, expected a record; drop the comma")
        self._take("]")

    def _only_list(self) -> Iterator[str]:
        lists = list[str]()
        self._take("{")
        while self._next() != "}":
            if self._next() != '"':
                self._refuse(f"found {self._next() or 'the end of the file'!r}, expected the name of a field; mend the file")
            name = self._value()
            self._take(":")
            if self._next() != "[":
                self._value()
            elif lists:
                self._refuse(f"{lists[0]} and {name} are lists, {DOCUMENT}; keep the records' list alone")
            else:
                lists.append(name)
                yield from self._elements()
            if self._next() != "}":
                self._take(",")
        self._take("}")
        if not lists:
            self._refuse(f"found an object without a list, {DOCUMENT}; mend the file")

    def _next(self) -> str:
        """The next character that is not white; "" at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                return ""

    def _take(self, character: str) -> None:
        if (found := self._next()) != character:
            self._refuse(f"found {found!r}, expected {character!r}; mend the file" if found else "the file is cut off; copy it again")
        self.at += 1

    def _value(self) -> str:
        """The text of the next value."""
        self._next()
        while True:
            try:
                _, end = _raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if self._unfinished(error) and self._more():
                    continue
                if self.whole and self._unfinished(error):
                    self._refuse("the file is cut off; copy it again")
                self._refuse(f"not JSON ({error.msg.lower()}), {DOCUMENT}; mend the file", error.pos)
            except RecursionError:
                self._refuse(f"nested too deeply, {DOCUMENT}; mend the file")
            if end < len(self.text) or not self._more():  # a number may go on in the next block
                value, self.at = self.text[self.at : end], end
                return value

    def _unfinished(self, error: json.JSONDecodeError) -> bool:
        """Whether the value may be right if more is read: a text without an end, or trouble within 16 characters of the window's end."""
        return error.msg.startswith("Unterminated string") or not self.text[error.pos + 16 :].strip(" \t\r\n")

    def _more(self) -> bool:
        """Move the window on to where reading stands, and at least double what is before it, so that a long value costs its length."""
        self.line += self.text.count("\n", 0, self.at)
        parts = [self.text[self.at :]]
        self.at = 0
        for block in islice(self.blocks, 1 + len(parts[0]) // SIZE):
            try:
                parts.append(self.decoder.decode(block))
            except UnicodeDecodeError as error:
                place = self.read - (len(error.object) - len(block)) + error.start + 1
                found = f"byte {place:,} is 0x{error.object[error.start]:02x}"
                refuse(self.file.place, f"{found}, expected UTF-8; convert the file to UTF-8", error)
            self.read += len(block)
        self.text = "".join(parts)
        if len(parts) == 1:
            if self.decoder.getstate()[0]:
                refuse(self.file.place, "the file is cut off inside a character; copy it again")
            self.whole = True
        if len(self.text) > LIMIT + SIZE:
            self._refuse(f"a record is longer than {LIMIT >> 20} MB, {DOCUMENT}; mend the file")
        return not self.whole

    def _refuse(self, problem: str, at: int | None = None) -> NoReturn:
        line = self.line + self.text.count("\n", 0, self.at if at is None else at)
        refuse(f"{self.file.place}:{line}", problem)
