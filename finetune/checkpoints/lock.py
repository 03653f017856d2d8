"""A lock that a process holds while it lives, with its name in it: two never write one thing, and who waits can say for whom."""

import fcntl
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from finetune import outputs
from finetune.errors import SetupError
from finetune.training import world

log = logging.getLogger(__name__)


@contextmanager
def held(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock; where another process has it, say so in one line and wait until it is done or dead.

    The kernel frees it with the process, so a killed one leaves only a file behind, which the next takes over.

    Raises:
        OutputError: the disk is full or may not be written.
        SetupError: another process has it, and `wait` is False or this is one of several that train together: they would time out.
    """
    with outputs.explained(path):
        opened = _taken(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if opened is None:
        if not wait or world.size() > 1:
            raise SetupError("the same work is done elsewhere:", [_owner(path)], "start this one again when that has ended")
        log.warning("waiting for %s, which is at the same work", _owner(path))
        opened = _taken(path, fcntl.LOCK_EX)
        assert opened is not None
    try:
        with suppress(OSError):  # a full disk: then it is held without a name
            os.ftruncate(opened, 0)
            os.pwrite(opened, f"process {os.getpid()} ({_command()})".encode(errors="surrogateescape"), 0)
        yield
    finally:
        with suppress(OSError):  # a folder that is gone, or may not be written any more
            path.unlink()
        os.close(opened)
        with suppress(OSError):  # others are at work in it
            path.parent.rmdir()


def _taken(path: Path, how: int) -> int | None:
    """The open file of the lock; None where another one has it and `how` says not to wait.

    Whoever held it removes the file, so what was waited for may be a file that is gone, while a third process has a new one.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # its folder was removed in between
            continue
        try:
            fcntl.flock(opened, how)
            if os.path.samestat(os.fstat(opened), os.stat(path)):  # noqa: PTH116 (beside fstat)
                return opened
        except BlockingIOError:
            os.close(opened)
            return None
        except FileNotFoundError:
            pass
        except BaseException:  # Ctrl-C while it waits
            os.close(opened)
            raise
        os.close(opened)


def _owner(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") or "another process"
    except OSError:
        return "another process"


def _command() -> str:
    return " ".join(sys.orig_argv[1:])
