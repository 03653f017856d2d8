"""Stages made again in a clone, by DVC, without its cache; told of one by one."""

import re
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finetune.clone import Clone
from finetune.errors import FinetuneError

BEGINS = re.compile(r"Running stage '([^']+)':")
TOLD = 20  # last lines of a stage that failed


@dataclass(frozen=True)
class Moment:
    """What is going on: a stage began, said a line, or is done."""

    stage: str
    line: str = ""
    seconds: float | None = None
    """How long the stage took, when it is done."""


def remake(made: Clone, single: Sequence[str] | None, tell: Callable[[Moment], None]) -> dict[str, float]:
    """Make the whole pipeline, or these stages alone in this order; return the seconds of each.

    Raises:
        FinetuneError: a stage failed; with its last lines.
    """
    command = [sys.executable, "-m", "dvc", "repro", "--force", "--no-commit", "--no-run-cache"]
    command += ["--single-item", *single] if single is not None else []
    seconds: dict[str, float] = {}
    last: deque[str] = deque(maxlen=TOLD)
    stage, began = "", time.monotonic()

    def done() -> None:
        if stage:
            seconds[stage] = time.monotonic() - began
            tell(Moment(stage, seconds=seconds[stage]))

    def hear(line: str) -> None:
        nonlocal stage, began
        if begins := BEGINS.match(line):
            done()
            stage, began = begins[1], time.monotonic()
            last.clear()
            tell(Moment(stage))
        elif line.strip():
            last.append(line.rstrip())
            tell(Moment(stage, line.strip()))

    status = made.follow(command, hear)
    if status:
        where = f"stage {stage} failed" if stage else "DVC could not begin"
        raise FinetuneError("\n".join([f"{where} in the clone; its last lines:", *(f"  {line}" for line in last)]))
    done()
    return seconds
