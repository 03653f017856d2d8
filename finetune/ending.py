"""The ways in which a stage is told to end: SIGTERM, as spot machines and schedulers send it, and the death of the dvc above it.

Both end in `Terminated`: at once, or, where the work can be kept first, as soon as that is done (`put_off`).
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import psutil

from finetune.tracking import process

STATUS = 143  # 128 + SIGTERM, what shells report
ORPHANED = "dvc, which started this stage, is gone"
UNKNOWN = "no dvc is above this stage: it is gone, or its name is another one; start it with `dvc repro`"
ONE = 5.0  # seconds within which all that is told counts as one: a group of processes is told at once, by `timeout` twice


class Terminated(BaseException):
    """The stage was told to end; like KeyboardInterrupt no error, so that nothing that handles errors holds it up."""


class _Told:
    """What this process was told so far."""

    reason: str | None = None
    at = 0.0
    """When it was told last, by the monotonic clock."""
    orphaned: bool = False
    put_off: bool = False


@contextmanager
def heeded() -> Iterator[None]:
    """Within the block SIGTERM raises Terminated, and so does the death of the dvc that started this stage.

    An orphan must not go on: its dvc is not there to note what it writes, and a new one may write the same outs.
    """
    before = signal.signal(signal.SIGTERM, _hear)
    dvc = process.dvc()
    if dvc is not None:
        threading.Thread(target=_outlive, args=(dvc,), daemon=True).start()
    try:
        if dvc is None and "DVC_STAGE" in os.environ:  # dead already, while this stage imported what it needs
            raise Terminated(UNKNOWN)
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _Told.reason = None


@contextmanager
def put_off() -> Iterator[Callable[[], str | None]]:
    """Within the block nothing is raised; yields what says by what the stage was told to end, and Terminated follows the block.

    Told again later, it ends at once.
    """
    _Told.put_off = True
    try:
        yield lambda: _Told.reason
    finally:
        _Told.put_off = False
    if _Told.reason is not None:
        raise Terminated(_Told.reason)


def _hear(*_: int | FrameType | None) -> None:
    again, now = _Told.reason is not None, time.monotonic()
    if again and now - _Told.at < ONE:
        return
    _Told.reason, _Told.at = _Told.reason or (ORPHANED if _Told.orphaned else "SIGTERM"), now
    if again or not _Told.put_off:
        raise Terminated(_Told.reason)


def _outlive(dvc: psutil.Process) -> None:
    """Wait for the end of dvc, then tell this process to end."""
    try:
        opened = os.pidfd_open(dvc.pid)
    except (OSError, AttributeError):  # an old kernel, or dvc is gone already
        dvc.wait()
    else:
        select.select([opened], [], [])
    if _Told.reason is not None:  # dvc and this process were told to end, one perhaps much later than the other
        return
    _Told.orphaned = True
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGTERM)  # not any thread: it may wait in a call to the system, which this ends
