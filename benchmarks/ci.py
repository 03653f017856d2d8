"""`.ci/run` in a fresh clone without .venv: its seconds, and those of each of its parts."""

from pathlib import Path

from benchmarks.record import Samples
from benchmarks.watching import call, fresh_clone, waiting

LOADED = ("tests", "tools", "benchmarks")
READS = ("pyproject.toml", ".ci/run", "benchmarks/smoke_floors.yaml")


def measure(root: Path) -> Samples:
    """Run it once."""
    with fresh_clone(root, with_environment=False) as clone, waiting(".ci/run"):
        done = call(clone, ".ci/run")
        parts = [line.split() for line in (clone / ".ci/times.txt").read_text(encoding="utf-8").splitlines()]
    return {"seconds": [done.seconds], **{name: [float(seconds)] for name, seconds, _ in parts}}
