"""Ctrl-C in each stage, in the middle of its work: a clean exit, nothing half-written, and the same command works afterwards."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import paths
from finetune.config.compose import write_params
from tests.conftest import ROOT
from tools.imports import pipeline

pytestmark = pytest.mark.slow

# Sends itself SIGINT at a named moment of the stage's work, as a terminal would.
PROGRAM = """
import importlib, os, runpy, signal, sys
stage, moment = sys.argv[1], sys.argv[2]
module, name = moment.split(":")
owner = importlib.import_module(module)
*inner, name = name.split(".")
for part in inner:
    owner = getattr(owner, part)
def interrupt(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
setattr(owner, name, interrupt)
sys.argv = [stage, *sys.argv[3:]]
runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
"""
FLUSHING = "finetune.outputs:sync"  # the output is written beside its place, and not yet there

MOMENTS = [
    ("prepare", FLUSHING),
    ("format", FLUSHING),
    ("train", "finetune.training.steps:Steps.on_step_end"),
    ("train", FLUSHING),
    ("reference", FLUSHING),
    ("dpo", "finetune.training.steps:Steps.on_step_end"),
    ("dpo", FLUSHING),
    ("answer", FLUSHING),
    ("evaluate", FLUSHING),
    ("export", FLUSHING),
    ("report", FLUSHING),
    ("report", "finetune.reporting.page:write"),
    ("report", "finetune.tracking:finish"),
]
PAGE = {paths.REPORT}  # no out: it may be there before the figures, by which DVC takes report for done


def outs(name: str) -> list[Path]:
    """What DVC takes the stage for done by; before it runs there is none of it on a fresh clone."""
    (stage,) = (stage for stage in pipeline(ROOT) if stage.name == name)
    return [Path(out.replace("${key}", "base")) for out in (*stage.listed("outs"), *stage.listed("metrics"))]


@pytest.mark.parametrize(("stage", "moment"), MOMENTS, ids=lambda value: value.split(":")[-1])
def test_ctrl_c_leaves_nothing_and_the_same_command_works_afterwards(tiny_copy: Path, stage: str, moment: str) -> None:
    for name in ("conf", "finetune", "stages", "hydra_plugins", "dvc.yaml"):
        (tiny_copy / name).symlink_to(ROOT / name)
    write_params(["experiment=tiny", "tracking=off"], root=tiny_copy)
    for out in outs(stage):
        shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
    before = {path for path in Path().rglob("*") if path.is_file()}

    interrupted = subprocess.run([sys.executable, "-c", PROGRAM, stage, moment], capture_output=True, text=True, check=False)
    assert interrupted.returncode == 130, interrupted.stderr
    assert "interrupted; nothing half-written was kept" in interrupted.stderr
    assert "Traceback" not in interrupted.stderr
    new = {path for path in Path().rglob("*") if path.is_file()} - before
    new = {path for path in new if "__pycache__" not in path.parts and path.parts[0] != ".resume"}  # what it goes on from
    assert new <= (PAGE if stage == "report" else set())
    assert [out for out in outs(stage) if out.exists()] == []

    again = subprocess.run([sys.executable, "-m", f"stages.{stage}"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert all(out.exists() for out in outs(stage))
    assert not Path(".resume").exists()
