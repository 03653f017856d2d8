"""What it costs to hear that there is nothing to do: `dvc repro` beside a bare `dvc status`, by turns, after a run of experiment=tiny."""

from pathlib import Path

from benchmarks.record import Samples
from benchmarks.watching import call, fresh_clone, watch
from finetune.errors import SetupError
from finetune.progress import progress

REPEATS = 5
NOTHING_TO_DO = "Data and pipelines are up to date."


def measure(root: Path) -> Samples:
    """Seconds of both; the first turn, in which DVC fills its own caches, is not counted."""
    with fresh_clone(root) as clone:
        dvc = str(clone / ".venv/bin/dvc")
        watch(clone, "make", "run", "EXPERIMENT=tiny")
        turns = [(_seconds(clone, dvc, "status"), _seconds(clone, dvc, "repro")) for _ in progress(range(1 + REPEATS), "dvc", unit="turns")]
    status, repro = zip(*turns[1:], strict=True)
    return {"status": list(status), "repro": list(repro)}


def _seconds(clone: Path, *command: str) -> float:
    """Seconds of a command that must find nothing to do."""
    done = call(clone, *command)
    if NOTHING_TO_DO not in done.output:
        raise SetupError(f"dvc {command[-1]} found something to do after a run:", done.output.splitlines())
    return done.seconds
