"""A few of the kills that benchmarks/kills.py has by the dozen: a stage, the dvc above it, and their whole process group."""

import random
from pathlib import Path

import pytest

from benchmarks import kills
from benchmarks.kills import Row
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

ROWS = [
    Row("train", "train", kills.STEP, 5, victim="stage"),
    Row("checkpoint", "train", "finetune.checkpoints.kept:_complete", 4, "after", "hold", victim="dvc"),
    Row("not yet noted", "train", "finetune.checkpoints.noted:finish", 1, "after", "hold", victim="group"),
    Row("answer or evaluate", "answer@train", kills.SCORED, 2, victim="group"),
]


def test_what_is_left_after_a_kill_and_the_same_command_are_the_bytes_of_an_undisturbed_run(repository: Path) -> None:
    (repository / ".venv").symlink_to((ROOT / ".venv").resolve())
    with kills.Pipeline(repository, kills.TINY) as pipeline:
        for row in ROWS:
            found = pipeline.row(row, random.Random(0))
            assert found["same"], found
            assert found["resumed"], found
