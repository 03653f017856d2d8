"""Personal data in texts: patterns of what should not be learned by heart. Found by form, so a name or an address in words is not.

A number counts as a card's only with Luhn's check digit, and as a telephone's only with a country's code or the usual breaks between its
groups: years, prices and version numbers are left alone.
"""

import re
from collections.abc import Callable

MASK = "[{}]"
# any of these is in every match: one quick look spares most texts the rest; with \b or a group in it, it takes twice as long
HINT = re.compile(r"@|\d[\d ().-]{5,}\d|-----BEGIN|sk-|AKIA|ASIA|gh[pousr]_|github_pat_|xox[abprs]-|hf_|AIza|eyJ")


def luhn(text: str) -> bool:
    """Whether the digits in a text end with their check digit, as those of payment cards do."""
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


PATTERNS: dict[str, tuple[re.Pattern[str], Callable[[str], bool] | None]] = {
    "private key": (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.*?-----END [A-Z ]*PRIVATE KEY-----)?", re.DOTALL), None),
    "key": (
        re.compile(
            r"\b(?:sk-[A-Za-z0-9_-]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,}|xox[abprs]-[A-Za-z0-9-]{10,}"
            r"|hf_[A-Za-z0-9]{30,}|AIza[A-Za-z0-9_-]{35}|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})"
        ),
        None,
    ),
    "mail address": (re.compile(r"[A-Za-z0-9](?:[\w.+-]{0,63})@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b"), None),
    "card number": (re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d.-]*\d)"), luhn),
    "telephone number": (
        re.compile(
            r"(?<![\w.+-])(?:\+\d{1,3}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4})(?![\w-])"
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

        def replace(match: re.Match[str], kind: str = kind, counts: Callable[[str], bool] | None = counts) -> str:
            if counts is not None and not counts(match[0]):
                return match[0]
            kinds.append(kind)
            return MASK.format(kind)

        text = pattern.sub(replace, text)
    return text, kinds
