"""What is left of long work: a bar on a terminal, one line in a log."""

import logging
import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
log = logging.getLogger(__name__)


def quiet() -> bool:
    """Whether bars are kept back, because standard error is not a terminal."""
    return not sys.stderr.isatty()


def progress(items: Iterable[Item], doing: str, total: int | None = None, unit: str = "records") -> Iterator[Item]:
    """Yield the items, with a bar that says what is done, how far it is and how long it will take."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    if quiet():
        log.info("%s%s", doing, "" if total is None else f": {total:,} {unit}")
        yield from items
    else:
        yield from tqdm(items, desc=doing, total=total, unit=f" {unit}", dynamic_ncols=True, leave=False)
