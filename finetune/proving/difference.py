"""Where two files part, and by how much at most; in words that do not depend on the machine that looks."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

SHOWN = 80  # characters of a value
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Difference:
    """Two files that are not the same."""

    file: str
    at: str
    """The first place where they part: `tensor a.weight at [3, 0]`, `line 17, answer`, `steps[4].loss`."""
    first: str | None = None
    """What is there in the first; None: nothing."""
    second: str | None = None
    parted: int | None = None
    """How many of them are not the same; None where they are not counted."""
    of: int | None = None
    unit: str = ""
    """What is counted: tensors, values, lines."""
    largest: float | None = None
    """The largest absolute difference of two numbers; nan where a number stands against nan, None where no numbers part."""
    largest_at: str | None = None

    def sentence(self, quoted: Callable[[str | None], str] = lambda text: "nothing" if text is None else text) -> str:
        """Where and how they part, without the file's name; `quoted` puts a value into the sentence."""
        said = f"{self.at}: {quoted(self.first)} → {quoted(self.second)}"
        if self.parted is not None:
            said += f"; {self.parted:,} of {self.of:,} {self.unit} part"
        if self.largest is not None:
            elsewhere = self.largest_at and not self.at.startswith(self.largest_at)
            said += f", by {self.largest:.3g} at most" + (f" ({self.largest_at})" if elsewhere else "")
        return said

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which has no nan and no infinity."""
        largest = self.largest if self.largest is None or math.isfinite(self.largest) else repr(self.largest)
        return {**vars(self), "largest": largest}


@dataclass
class Largest:
    """The largest difference so far."""

    value: float | None = None
    at: str | None = None

    def see(self, difference: float, at: str) -> None:
        """Take it if it is larger; nan is larger than any number, because nobody knows how large it is."""
        if self.value is None or (not math.isnan(self.value) and (math.isnan(difference) or difference > self.value)):
            self.value, self.at = difference, at


def both(say: Callable[[Thing], str | None], first: Thing, second: Thing) -> tuple[str | None, str | None]:
    """What is said of the first and of the second."""
    return say(first), say(second)


def there(key: object, first: Collection[Any], second: Collection[Any]) -> tuple[str | None, str | None]:
    """`there` for which of the two has it."""
    return both(lambda keys: "there" if key in keys else None, first, second)


def shown(value: Any) -> str:
    """A value, short, and numbers at full precision."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
