"""Stages made again in a clone, by DVC, without its cache; told of one by one."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finetune.errors import FinetuneError
from finetune.proving.clone import Clone

BEGINS = re.compile(r"Running stage '([^']+)':")
TOLD = 20  # last lines of a stage that failed
PATIENCE = 15.0  # seconds that an interrupted stage has to end by itself


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
    process = subprocess.Popen(
        command,
        cwd=made.folder,
        env=dict(made.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others in order
        pass_fds=(made.held,),
    )
    seconds: dict[str, float] = {}
    last: deque[str] = deque(maxlen=TOLD)
    stage, began = "", time.monotonic()

    def done() -> None:
        if stage:
            seconds[stage] = time.monotonic() - began
            tell(Moment(stage, seconds=seconds[stage]))

    try:
        assert process.stdout is not None
        for line in process.stdout:
            if begins := BEGINS.match(line):
                done()
                stage, began = begins[1], time.monotonic()
                last.clear()
                tell(Moment(stage))
            elif line.strip():
                last.append(line.rstrip())
                tell(Moment(stage, line.strip()))
        status = process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()
    if status:
        where = f"stage {stage} failed" if stage else "DVC could not begin"
        raise FinetuneError("\n".join([f"{where} in the clone; its last lines:", *(f"  {line}" for line in last)]))
    done()
    return seconds


def _end(process: subprocess.Popen[str]) -> None:
    """End dvc and its stage: asked first, so that a stage can clean up, then forced."""
    for sent in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            return
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:  # asked again: no more patience
            continue
