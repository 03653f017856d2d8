"""Personal data in texts: patterns of what should not be learned by heart. Found by form, so a name or an address in words is not.

A number counts as a card's only with Luhn's check digit, and as a telephone's only with a country's code or the usual breaks between its
groups: years, prices and version numbers are left alone.
"""

import re
from collections.abc import Callable

MASK = "[{}]"
# one of these is in every match but the shortest telephone numbers: one quick look spares most texts the rest; with \b or a group in it,
# it takes twice as long
HINT = re.compile(r"@|\d[\d ()./-]{5,}\d|-----BEGIN|sk-|k_live_|k_test_|AKIA|ASIA|gh[pousr]_|github_pat_|xox[abprs]-|hf_|AIza|eyJ")


def luhn(text: str) -> bool:
    """Whether the digits in a text end with their check digit, as those of payment cards do."""
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def card(text: str) -> int:
    """How many characters of a run of digits are a card's number: all, or groups of four and more that others follow."""
    if luhn(text):
        return len(text)
    groups = GROUPS.match(text)
    return groups.end() if groups and luhn(groups[0]) else 0


GROUPS = re.compile(r"\d{4}([ -])(?:\d{4}\1\d{4}\1\d{4}|\d{6}\1\d{5})(?!\d)")  # as they stand on cards
PATTERNS: dict[str, tuple[re.Pattern[str], Callable[[str], int] | None]] = {
    # without its end all that follows is taken for the key
    "private key": (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:.*?-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|.*)", re.DOTALL),
        None,
    ),
    "key": (
        re.compile(
            r"\b(?:sk-[A-Za-z0-9_-]{20,}|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,}|xox[abprs]-[A-Za-z0-9-]{10,}"
            r"|hf_[A-Za-z0-9]{30,}|AIza[A-Za-z0-9_-]{35}|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})"
        ),
        None,
    ),
    "mail address": (re.compile(r"\w[\w.+-]{0,63}@(?:[\w-]{1,63}\.)+[^\W\d_]{2,24}\b"), None),
    "card number": (re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d.-]*\d)"), card),
    "telephone number": (
        re.compile(
            r"(?<![\w.+-])(?:\+\d{1,3}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}"
            r"|(?=00(?:[ .()-]*\d){9})00[1-9]\d{0,2}[ .-](?:\(0\)[ .-]?)?[1-9]\d{0,3}(?:[ .-]?\d{2,4}){2,4}"
            r"|\(?0\d{2,4}\)? ?/ ?\d{6,10})(?![\w-])"
        ),
        None,
    ),
}


def masked(text: str) -> tuple[str, list[str]]:
    """The text with each match replaced by its kind in brackets, and the kinds."""
    if not HINT.search(text):
        return text, []
    kinds: list[str] = []
    for kind, (pattern, counts) in PATTERNS.items():

        def replace(match: re.Match[str], kind: str = kind, counts: Callable[[str], int] | None = counts) -> str:
            taken = len(match[0]) if counts is None else counts(match[0])
            if not taken:
                return match[0]
            kinds.append(kind)
            return MASK.format(kind) + match[0][taken:]

        text = pattern.sub(replace, text)
    return text, kinds
