"""`make setup` in a fresh clone: its seconds, and the size of .venv on disk in GB (10⁹ bytes)."""

import subprocess
from pathlib import Path

from benchmarks.record import Samples
from benchmarks.watching import call, fresh_clone

LOADED = ("tools",)  # setup runs them in processes of their own
CUDA = "import torch; print(int(torch.version.cuda is not None))"


def measure(root: Path) -> Samples:
    """Make the environment once; whether torch is a CUDA build (1) or not (0) depends on the registry."""
    with fresh_clone(root, with_environment=False) as clone:
        done = call(clone, "make", "setup")
        used = subprocess.run(["du", "--summarize", "--block-size=1", clone / ".venv"], check=True, capture_output=True, text=True).stdout
        cuda = call(clone, str(clone / ".venv/bin/python"), "-c", CUDA).output
    return {"seconds": [done.seconds], "gb": [int(used.split()[0]) / 1e9], "cuda": [int(cuda.split()[-1])]}
