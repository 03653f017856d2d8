"""What pinned instructions cost: seconds of a training step of SmolLM2-135M's shape under each setting, by turns, against native.

A cost of 2 is twice the time. Every turn is a process of its own (benchmarks/arithmetic.py) and ends with a hash of what was trained:
`bytes.<setting>` is how many different ones there were, which for each must be one.
"""

from pathlib import Path

from benchmarks import arithmetic
from benchmarks.record import Samples
from benchmarks.watching import call, fresh_clone
from finetune import instructions
from finetune.progress import progress

TURNS, STEPS = 3, 6


def measure(root: Path) -> Samples:
    """Train a few steps under each setting in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in instructions.VARIABLES}
    trained: dict[str, set[str]] = {name: set() for name in instructions.VARIABLES}
    with fresh_clone(root) as clone:
        for name in progress([*instructions.VARIABLES] * TURNS, "training", unit="turns"):
            command = (str(clone / ".venv/bin/python"), "-m", arithmetic.__name__, name, "--steps", str(STEPS), "--seconds")
            lines = call(clone, *command).output.splitlines()
            trained[name].add(next(line for line in lines if line.startswith("adapter ")))
            seconds[name].append(float(lines[-1]))
    return results(seconds, trained)


def results(seconds: dict[str, list[float]], trained: dict[str, set[str]]) -> Samples:
    """Cost of each setting in each turn, with the seconds that it is made of."""
    native = seconds[instructions.NATIVE]
    costs = {
        f"cost.{name}": [here / there for here, there in zip(took, native, strict=True)]
        for name, took in seconds.items()
        if name != instructions.NATIVE
    }
    return {
        **{f"seconds.{name}": took for name, took in seconds.items()},
        **costs,
        **{f"bytes.{name}": [len(hashes)] for name, hashes in trained.items()},
    }
