"""The sender as a stage sees it: is it there, start it, wait until it has sent something."""

import fcntl
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from finetune.tracking import spool

LOOK = 0.05  # seconds between two looks while waiting
CODE: Final = Path(__file__).resolve().parents[2]
# What MLflow's own client would do while a server is away: 7 retries with growing pauses. Ours has a spool, and tries again later.
ENVIRONMENT: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "OMP_NUM_THREADS": "1",
    "RANK": "",
}


def lock(home: Path, kind: int = fcntl.LOCK_EX) -> int | None:
    """Take the lock that a sender holds while it lives, as an open file; None when another one has it. The kernel frees it on death."""
    (home / ".tracking").mkdir(parents=True, exist_ok=True)
    opened = os.open(home / ".tracking" / "sender.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(opened, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(opened)
        return None
    return opened


def is_live(home: Path) -> bool:
    """Whether a sender is at work for this repository. A shared lock: those who look don't take each other for one."""
    held = lock(home, fcntl.LOCK_SH)
    if held is not None:
        os.close(held)
    return held is None


def ensure(home: Path) -> None:
    """Start a sender unless one lives. To be called after a spool has its header: a sender that is about to end looks once more.

    It runs in a session of its own, so that neither the end of the stage nor Ctrl-C ends it, and inherits the lock as its standard input,
    so that there is no moment without one. Its code is this very code, which in DVC's temporary copies is deleted after the run: it
    imports everything at once (-P and PYTHONPATH: the working directory, the user's repository, may hold another version).
    """
    held = lock(home)
    if held is None:
        return
    modules = os.pathsep.join(filter(None, [str(CODE), os.environ.get("PYTHONPATH")]))
    log = os.open(home / ".tracking" / "sender.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", "finetune.tracking.send", str(home.resolve())],
            {**os.environ, **ENVIRONMENT, "PYTHONPATH": modules},
            file_actions=[(os.POSIX_SPAWN_DUP2, held, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)],
            setsid=True,
        )
    finally:
        os.close(log)
        os.close(held)


def wait(done: Callable[[], bool], spools: list[Path], limit: float) -> str | None:
    """Wait until `done`; the reason when the limit in seconds has passed, or the sender says that it can't send these spools."""
    began = time.time()
    while not done():
        for path in spools:
            word = path / "trouble"
            try:
                if word.stat().st_mtime >= began:
                    return word.read_text(encoding="utf-8")
            except FileNotFoundError:
                pass
        if time.time() - began > limit:
            return f"not within {limit:.0f} s"
        time.sleep(LOOK)
    return None


def left_over(home: Path, own: Path | None = None) -> list[Path]:
    """Spools of earlier runs that no sender is about to send: it had trouble with them, or there is none."""
    earlier = [path for path in spool.waiting(home) if path != own]
    if not earlier or not is_live(home):
        return earlier
    return [path for path in earlier if (path / "trouble").exists()]
