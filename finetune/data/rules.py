"""What the text of a record must be, whatever form it came in: a rule has a name, and a record that breaks it leaves with that name.

Rules look at one record alone; what compares records is in finetune.data.likeness.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from finetune.config.data import Quality
from finetune.data import personal
from finetune.data.records import Message

CONTROL = "control character"
MOJIBAKE = "mojibake"
PLACEHOLDER = "placeholder"
SHORT = "answer too short"
LONG = "record too long"
REPEATED = "repetition"
LANGUAGE = "another language"
PERSONAL = "personal data"
REPAIRED = f"{MOJIBAKE} repaired"
MASKED = f"{PERSONAL} masked"

CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\u2028\u2029\ufdd0-\ufdef\ufffe\uffff]")
PLACEHOLDERS = re.compile(r"\{\{\s*[\w.|: -]{1,60}\}\}|<%=?\s*[\w.]{1,60}\s*%>")
BRACES = re.compile(r"\{\{|<%")
RUN_LENGTH = 40  # of one character: a broken scan, a screaming page
RUN = re.compile(rf"(\S)\1{{{RUN_LENGTH - 1}}}")
REPEATS = 3  # words of the piece that is counted
PLENTY = 30  # words, from which half of the worth is had
ENOUGH = 20  # words from which a share of repeated pieces says something


@dataclass(frozen=True)
class Verdict:
    """What the rules say of a record: the texts to go on with, the first rule that it breaks, every change, and personal data seen."""

    texts: tuple[str, ...]
    rule: str | None = None
    changed: tuple[str, ...] = ()
    personal: tuple[str, ...] = ()


def judge(texts: Sequence[str], answers: Sequence[int], settings: Quality) -> Verdict:
    """Apply every rule that is on to the texts of one record; `answers` says which of them the model is to learn."""
    kept, changed = tuple(texts), list[str]()
    if settings.mojibake != "keep" and not all(map(str.isascii, kept)):
        mended = tuple(map(_mended, kept))
        if mended != kept:
            if settings.mojibake == "drop":
                return Verdict(kept, MOJIBAKE)
            kept = mended
            changed.append(REPAIRED)
        if any("\ufffd" in text for text in kept):
            return Verdict(kept, MOJIBAKE)
    if any(map(CONTROLS.search, kept)):
        return Verdict(kept, CONTROL)
    if settings.placeholders == "drop" and any(BRACES.search(text) and PLACEHOLDERS.search(text) for text in kept):
        return Verdict(kept, PLACEHOLDER)
    if min(len(kept[answer].strip()) for answer in answers) < settings.min_answer_characters:
        return Verdict(kept, SHORT)
    if sum(map(len, kept)) > settings.max_characters:
        return Verdict(kept, LONG)
    if settings.max_repetition is not None and any(repetition(kept[answer]) > settings.max_repetition for answer in answers):
        return Verdict(kept, REPEATED)
    if settings.language is not None and not _is_in(settings.language)(" ".join(kept[answer] for answer in answers)):
        return Verdict(kept, LANGUAGE)
    found = [personal.masked(text) for text in kept]
    if kinds := tuple(kind for _, several in found for kind in several):
        if settings.personal == "drop":
            return Verdict(kept, PERSONAL, personal=kinds)
        if settings.personal == "mask":
            kept = tuple(text for text, _ in found)
            changed.append(MASKED)
    return Verdict(kept, changed=tuple(changed), personal=kinds)


def repetition(text: str) -> float:
    """The share of pieces of three words that the text has had before, or 1 for a character forty times in a row; 0 for a short text."""
    words = text.split()
    if max(map(len, words), default=0) >= RUN_LENGTH and RUN.search(text):
        return 1.0
    if len(words) < ENOUGH:
        return 0.0
    pieces = list(zip(*(words[place:] for place in range(REPEATS)), strict=False))
    return 1 - len(set(pieces)) / len(pieces)


def worth(answer: str) -> float:
    """How much there is to learn from an answer, between 0 and 1: the share of its words that are new in it, more for more of them."""
    words = answer.split()
    return len(set(words)) / (len(words) + PLENTY)


def texts_of(messages: Sequence[Message]) -> tuple[list[str], list[int]]:
    """The texts of a conversation, and which of them are answers."""
    texts = [message["content"] for message in messages]
    return texts, [place for place, message in enumerate(messages) if message["role"] == "assistant"]


def _mended(text: str) -> str:
    """The text as it was before it was read in a wrong encoding; the same text if there is no sign of that."""
    import ftfy  # 0.1 s, and most data is never suspicious

    return text if text.isascii() else str(ftfy.fix_encoding(text))


@cache
def _is_in(language: str) -> Callable[[str], bool]:
    """Whether a text is in a language, by its ISO 639-1 code; a text too short to tell is."""
    from finetune.data import languages  # an optional package of 100 MB

    return languages.detector(language)
