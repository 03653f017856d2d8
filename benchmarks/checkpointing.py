"""What checkpoints cost: the default training with them and without, in turns, each in a process of its own.

With the default settings the run is too short for five checkpoints a minute apart, so they come every twelve seconds: what one costs does
not hang on how often. `share` is its cost against the default interval. `interval` is the time between two checkpoints of a run with
default settings, and before the first and after the last: what a death can cost.
"""

import json
import shutil
import statistics
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from benchmarks.record import Samples
from benchmarks.watching import LOADED as LOADED
from benchmarks.watching import call, environment, fresh_clone
from finetune.errors import SetupError

ROUNDS = 3
EVERY = 12.0  # seconds between two checkpoints in the measured runs: at least five in one
EPOCHS = 1
# Trains, and says of it: seconds of training, what each checkpoint took, and when it was there.
PROGRAM = """
import json, sys, time
from finetune.training import checkpoints, trainers
from finetune.checkpoints.kept import Kept
from stages import train
from finetune.config.stage import cut
from finetune.config.compose import validate
import yaml
begun, saves, ends = 0.0, [], []
through, save = trainers.Steady.train_through, trainers.Steady._save_checkpoint
def timed_through(*args):
    global begun, seconds
    begun = time.monotonic()
    through(*args)
    seconds = time.monotonic() - begun
def timed_save(*args):
    before = time.monotonic()
    save(*args)
    ends.append(time.monotonic() - begun)
    saves.append(time.monotonic() - before)
trainers.Steady.train_through, trainers.Steady._save_checkpoint = timed_through, timed_save
cfg = validate(yaml.safe_load(open("params.yaml")))
train.main(cut(cfg, train.main.sections))
print(json.dumps({"seconds": seconds, "saves": saves, "ends": ends}))
"""


def measure(root: Path) -> Samples:
    """Train with and without, in turns; 20 minutes."""
    samples: Samples = {"with": [], "without": [], "checkpoint": [], "checkpoints": [], "interval": []}
    with fresh_clone(root) as clone:
        call(clone, "python", "-m", "finetune", "params", "tracking=off")
        call(clone, "dvc", "repro", "format")
        settings = [f"train.num_train_epochs={EPOCHS}"]
        for _ in range(ROUNDS):
            without = _trained(clone, *settings, "resume.save_seconds=null")
            found = _trained(clone, *settings, f"resume.save_seconds={EVERY}")
            samples["without"].append(without["seconds"][0])
            samples["with"].append(found["seconds"][0])
            samples["checkpoint"] += found["saves"]
            samples["checkpoints"].append(len(found["saves"]))
        whole = _trained(clone)
        ends = [0.0, *whole["ends"], whole["seconds"][0]]
        samples["interval"] = [later - sooner for sooner, later in pairwise(ends)]
    # of a training: what checkpoints take when they come a minute after each other, and what they took here
    samples["share"] = [statistics.median(samples["checkpoint"]) / 60]
    samples["share.measured"] = [sum(samples["checkpoint"]) / sum(samples["with"])]
    return samples


def _trained(clone: Path, *overrides: str) -> dict[str, list[float]]:
    """What the program says of one training."""
    call(clone, "python", "-m", "finetune", "params", "tracking=off", *overrides)
    shutil.rmtree(clone / "models/train", ignore_errors=True)
    command = [str(clone / ".venv/bin/python"), "-c", PROGRAM]
    done = subprocess.run(command, cwd=clone, env=environment(clone), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError("training failed:", done.stderr.splitlines()[-10:])
    found = json.loads(done.stdout.splitlines()[-1])
    return {**found, "seconds": [found["seconds"]]}


if __name__ == "__main__":
    json.dump(measure(Path.cwd()), sys.stdout)
