"""Stages made again in a clone, by DVC, without its cache; told of one by one."""

import re
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finetune import locks, paths
from finetune.clone import Clone
from finetune.errors import FinetuneError, SetupError
from finetune.locks import Stage
from finetune.tracking import hashes

BEGINS = re.compile(r"Running stage '([^']+)':")
TOLD = 20  # last lines of a stage that failed


@dataclass(frozen=True)
class Moment:
    """What is going on: a stage began, said a line, or is done."""

    stage: str
    line: str = ""
    seconds: float | None = None
    """How long the stage took, when it is done."""


def remake(made: Clone, stages: Sequence[Stage], whole: bool, tell: Callable[[Moment], None]) -> dict[str, float]:
    """Make these stages, alone in this order unless they are the whole pipeline; return the seconds of each.

    The clone's dvc.lock has afterwards what was made here, and nothing else.

    Raises:
        FinetuneError: a stage failed; with its last lines.
        SetupError: DVC left out a stage.
    """
    made.forget(out for stage in stages for out in stage.outs)
    command = [sys.executable, "-m", "dvc", "repro", "--force", "--no-commit", "--no-run-cache"]
    command += [] if whole else ["--single-item", *(stage.name for stage in stages)]
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
    now = locks.stages(hashes.read(made.folder / paths.LOCK))
    if unmade := [stage.name for stage in stages if stage.name not in seconds or stage.name not in now]:
        lines = [f"{name}: DVC did not run it" for name in unmade]
        raise SetupError("stages were not made in the clone, so there is nothing to compare:", lines, "let none be `frozen` in dvc.yaml")
    return seconds
