"""What each stage costs beside its work: imports, settings, tracking. Each is started with an empty recipe (benchmarks/idle.py).

`imports` is the start of Python and of the stage's modules, `opening` its settings and tracking run, `closing` the end of that run,
`ending` Python's own end, `total` all four. `settings` and `untracked` are `opening` and `total` of another start, with
tracking.enabled=false: what Hydra and the schema take, and what is left when MLflow's part is taken off.
`run` sums the totals of all stages.
"""

import json
import shlex
import time
from pathlib import Path

import yaml

from benchmarks import idle
from benchmarks.record import Samples
from benchmarks.watching import call, fresh_clone
from finetune.progress import progress

REPEATS = 3


def measure(root: Path) -> Samples:
    """Start each stage with tracking and without, alternating; the first start, which creates the database, is not counted."""
    with fresh_clone(root) as clone:
        stages = commands(clone)
        start(clone, next(iter(stages.values())))
        turns = [(stage, command) for _ in range(REPEATS) for stage, command in stages.items()]
        samples: Samples = {}
        for stage, command in progress(turns, "starting stages", unit="starts"):
            untracked = start(clone, command, "tracking.enabled=false")
            parts = {**start(clone, command), "settings": untracked["opening"], "untracked": untracked["total"]}
            for part, seconds in parts.items():
                samples.setdefault(f"{stage}.{part}", []).append(seconds)
    samples["run"] = [sum(samples[f"{stage}.total"][turn] for stage in stages) for turn in range(REPEATS)]
    return samples


def commands(clone: Path) -> dict[str, list[str]]:
    """The command of each stage of a run, those of a foreach one by one, as dvc.lock has them."""
    locked = yaml.safe_load((clone / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    return {stage: shlex.split(entry["cmd"]) for stage, entry in locked.items()}


def start(clone: Path, command: list[str], *overrides: str) -> dict[str, float]:
    """Seconds of one start of a stage with an empty recipe, by part: `-m stages.train` becomes `-m benchmarks.idle stages.train`."""
    module = command.index("-m") + 1
    python = str(clone / ".venv/bin/python")
    began = time.time()
    done = call(clone, python, "-m", idle.__name__, *command[module:], *overrides)
    at: dict[str, float] = json.loads(done.output.splitlines()[-1])
    parts = {"imports": at["imported"] - began, "opening": at["entered"] - at["imported"], "closing": at["closed"] - at["entered"]}
    return {**parts, "ending": done.seconds - sum(parts.values()), "total": done.seconds}
