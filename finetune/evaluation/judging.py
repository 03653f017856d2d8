"""When an answer counts as right, as JSON, as the intended call, and what prose is compared by: one definition for metrics and samples.

*Exact* is: the answer is the expected text, white space at both ends aside; or, where JSON objects are expected, the same object, whatever
the order of its keys and the space between them. Strictly JSON: no text around it, no key twice, no NaN.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

WORD = re.compile(r"\w+")
LABEL = re.compile(r"^([A-Z]\w*(?: \w+){0,2}):[ \t]+\S", re.MULTILINE)  # up to three words, then text on the same line
CLOSING = "\"'”’»)]*_ \t\n"  # may stand between the last mark of a sentence and the end of the text


def json_object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is, from its first to its last character; None if it is anything else."""
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse)
    except (ValueError, RecursionError):  # a model may well open a thousand brackets
        return None
    return value if isinstance(value, dict) else None


def exact(answer: str, expected: str) -> bool:
    """Whether the answer is what was expected."""
    wanted = json_object(expected)
    if wanted is None:
        return answer.strip() == expected.strip()
    given = json_object(answer)
    return given is not None and _canonical(given) == _canonical(wanted)


def intent(text: str) -> str | None:
    """What the call in a text would do, which is the part of it that matters most; None if it is no call."""
    value = (json_object(text) or {}).get("intent")
    return value if isinstance(value, str) else None


def words(text: str) -> list[str]:
    """The words of a text, without case and punctuation; a script without spaces between words gives whole clauses."""
    return WORD.findall(text.casefold())


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence: what both have in the same order, gaps allowed."""
    row = [0] * (len(second) + 1)
    for one in first:
        above = row
        row = [0]
        for place, other in enumerate(second):
            row.append(above[place] + 1 if one == other else max(row[place], above[place + 1]))
    return row[-1]


def asks_last(text: str) -> bool:
    """Whether the last sentence is a question; a closing quote or bracket may follow it."""
    return text.rstrip(CLOSING).endswith(("?", "？"))


def labels(text: str) -> list[str]:
    """The labels of a text's parts, in order: what stands before the colon of a line such as `Claim: bees see blue.`"""
    return LABEL.findall(text)


def _canonical(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)  # text, because to Python true is 1


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key twice")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(constant)
