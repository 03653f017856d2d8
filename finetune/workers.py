"""Work divided over processes, with its results in the order of the work: how many there are changes no byte of what comes out.

They are forked: a started one would import the stage with all its libraries again, 4 s each. This is safe for work in Python and in
libraries that run on the thread that calls them: tokenizers does, as long as TOKENIZERS_PARALLELISM is false (stages/__init__.py).
"""

import gc
import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing.connection import wait
from typing import Any, TypeVar

from finetune.errors import SetupError

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2  # items for each process that are begun or wait: enough to keep it busy, few enough to keep memory flat
WORTH_IT = 3  # items below which starting processes costs more than it saves


def each(items: Iterable[Item], work: Callable[[Item], Result], processes: int) -> Iterator[Result]:
    """Yield what the work makes of each item, in their order; few items, or one process: all is done in this one.

    Items and results are pickled; the work is not, so that it may hold what is large or cannot be pickled.

    Raises:
        SetupError: a process ended early, for want of memory or by another's hand.
        Exception: as the work raised it, at its place.
    """
    remaining = iter(items)
    first = list(islice(remaining, WORTH_IT))
    if processes == 1 or len(first) < WORTH_IT:
        yield from map(work, chain(first, remaining))
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(work,)) as pool:
        begun: deque[Future[Result]] = deque()
        try:
            for item in chain(first, remaining):
                begun.append(_submitted(pool, item))
                if len(begun) >= AHEAD * processes:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        except BrokenProcessPool as error:
            raise SetupError(
                "a process that shared the work ended before it was done:",
                ["found no answer from it, expected one; most often the machine's memory was used up, else its own message stands above"],
                "run the same command again with fewer processes: prepare.processes=1, format.processes=1",
            ) from error
        finally:
            for future in begun:
                future.cancel()


def _submitted(pool: ProcessPoolExecutor, item: Any) -> Future[Any]:
    with warnings.catch_warnings():  # from Python 3.12 on it warns of forking beside threads; the module says why we may
        warnings.simplefilter("ignore", DeprecationWarning)
        return pool.submit(_do, item)


_given: list[Callable[[Any], Any]] = []  # in a process that shares the work: what it does to each item


def _begin(work: Callable[[Any], Any]) -> None:
    _given.append(work)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the first one decides
    gc.freeze()  # else each collection would look through, and so copy, what this process was given
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _do(item: Any) -> Any:
    return _given[-1](item)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)  # killed, it could not tell us to end
