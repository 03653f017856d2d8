"""Which process this is, whether another one still lives, and which pipeline run a stage belongs to."""

import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import psutil

CLOCK = 2.0  # seconds that two readings of one process's start may differ by: the kernel derives it from a clock that is adjusted


@dataclass(frozen=True)
class Process:
    """A process that no later one can be mistaken for, although pids are used again."""

    host: str
    pid: int
    created: float

    @classmethod
    def of(cls, process: psutil.Process) -> Self:
        """Identify a process of this machine."""
        return cls(socket.gethostname(), process.pid, process.create_time())

    @property
    def here(self) -> bool:
        """Whether it is one of this host's."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether it still runs; processes of another host are taken to, because nobody here can know."""
        if not self.here:
            return True
        try:
            found = psutil.Process(self.pid)
            return abs(found.create_time() - self.created) < CLOCK and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class Pipeline:
    """One run of the pipeline: what its stages have in common."""

    key: str
    name: str
    experiment: str | None
    baseline: str | None
    process: Process

    @classmethod
    def current(cls, stage: str) -> Self:
        """The pipeline run of this process: that of the dvc above it, or one of its own when it was started by hand.

        DVC names experiments and their baseline in the environment; `dvc repro` does not, so dvc's process is part of the key. It also
        keeps apart two experiments that were given one name with --force.
        """
        experiment = os.environ.get("DVC_EXP_NAME") or None
        baseline = os.environ.get("DVC_EXP_BASELINE_REV") or None
        above = dvc()
        process = Process.of(above or psutil.Process())
        started = time.strftime("%Y%m%d-%H%M%S", time.localtime(process.created))
        key = f"{baseline or ''} {experiment or ''} {process.host} {process.pid} {int(process.created)}".strip()
        return cls(key, experiment or f"{'repro' if above else stage}-{started}", experiment, baseline, process)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def dvc() -> psutil.Process | None:
    """The nearest dvc above this process: in a queue that is the one of this task, not the worker that started it."""
    for process in psutil.Process().parents():
        try:
            words = process.cmdline()  # `dvc …`, `python …/dvc …`, `python -X utf8 -m dvc …`
        except psutil.Error:
            continue
        program = words[: words.index("-m") + 2 if "-m" in words else 3]
        if any(Path(word).name == "dvc" for word in program):
            return process
    return None
