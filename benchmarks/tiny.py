"""Seconds of `make run EXPERIMENT=tiny` in a fresh clone, with nothing cached, and GiB of its largest stage."""

from pathlib import Path

from benchmarks.record import Samples
from benchmarks.watching import fresh_clone, watch


def measure(root: Path) -> Samples:
    """Run it once."""
    with fresh_clone(root) as clone:
        watched = watch(clone, "make", "run", "EXPERIMENT=tiny")
    return {"seconds": [watched.total], "gib": list(watched.peak.values())}
