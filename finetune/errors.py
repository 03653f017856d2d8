"""What can go wrong, as one tree; every message says what was found and where, what was expected, and what to do.

FinetuneError             whatever a user can mend; a stage prints it without a traceback and exits with 1
├── ConfigError           settings: wrong type, unknown key, impossible value, drift between conf/ and params.yaml
├── SetupError            this machine: the wrong Python, packages that are not the lock's, files that are missing
├── DataError             records: unreadable, malformed, contradictory, none left
├── ModelError            weights, tokenizers, adapters: missing, of another revision, not loadable
├── TrainingError         a run that must not go on: a first loss that is not ln 2, a loss that is not finite
├── PromotionError        a model version that is not fit to be the champion
└── OutputError           an output that can't be written whole: disk full, no permission
"""

from collections.abc import Sequence
from typing import Any

SHOWN = 10  # problems printed in full; a file with a million bad lines still fits on a screen


class FinetuneError(Exception):
    """Base of every error that a user can mend."""


class Problems(FinetuneError):
    """Several problems found in one pass: the first ten and the count are shown."""

    def __init__(self, heading: str, problems: Sequence[str], remedy: str = "", unlisted: int = 0) -> None:
        """`unlisted`: how many there are beside `problems`, where they are too many to hold."""
        self.problems, self.remedy, self.unlisted = list(problems), remedy, unlisted
        self._made_of = heading, self.problems, remedy, unlisted
        shown = [f"  {problem}" for problem in self.problems[:SHOWN]]
        if more := max(len(self.problems) - SHOWN, 0) + unlisted:
            shown.append(f"  … and {more:,} more")
        super().__init__("\n".join([heading, *shown, *([remedy] if remedy else [])]))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_of  # else it could not come back from a process that shares the work


class ConfigError(Problems):
    """Settings that are refused; `problems` has one line a key."""


class SetupError(Problems):
    """A machine or environment that can't run the project as locked."""


class DataError(Problems):
    """Records that can't be used; `problems` has one line a record, each beginning with file:line."""


class PromotionError(Problems):
    """A model version that is not fit to be the champion; `problems` has one line a reason."""


class ModelError(FinetuneError):
    """A model, tokenizer or adapter that can't be loaded as pinned."""


class TrainingError(FinetuneError):
    """A training run that is stopped because its numbers can't be trusted."""


class OutputError(FinetuneError):
    """An output that could not be written whole; nothing of it is left behind."""
