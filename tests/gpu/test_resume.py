"""On CUDA too, a killed training ends with the bytes of one that was not: both loaders, 16 and 4 bits, each run in a process of its own.

python -m pytest tests/gpu/test_resume.py
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from finetune import paths
from tests.conftest import ROOT
from tests.gpu.test_training import LOADERS, LONG, OVERRIDES
from tests.tokens import write_formatted

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"), pytest.mark.timeout(900)]

# Each stage in turn; where DIES says "train 3" it is killed as that training begins its fourth step.
PROGRAM = """
import logging, os, signal, sys
logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
from stages import dpo, reference, train
from finetune.training.steps import Steps
from tests.conftest import composed
dies, _, after = os.environ["DIES"].partition(" ")
cfg = composed(*sys.argv[1:])
for name, stage in {"train": train, "reference": reference, "dpo": dpo}.items():
    if name in os.environ["ONLY"]:
        def die(self, args, state, *_, **__):
            if name == dies and state.global_step == int(after):
                os.kill(os.getpid(), signal.SIGKILL)
        Steps.on_step_begin = die
        stage.main(cfg)
"""


def run(folder: Path, *overrides: str, only: str = "train reference dpo", dies: str = "") -> str:
    """What the stages said; killed where `dies` says."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "DIES": dies, "ONLY": only}
    command = [sys.executable, "-c", PROGRAM, *OVERRIDES, "model.dtype=bfloat16", "resume.save_seconds=0", *overrides]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == (-9 if dies else 0), f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return done.stderr


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_a_killed_training_ends_with_the_same_bytes(tmp_path: Path, loader: str, method: str) -> None:
    settings = [f"model.loader={loader}", f"train={method}", "train.lora_dropout=0.1", "train.optim=adamw_8bit"]
    written = []
    for name in ("undisturbed", "killed"):
        folder = tmp_path / name
        write_formatted(folder / paths.FORMATTED, records=64, pairs=32, times=LONG)
        if name == "killed":
            run(folder, *settings, dies="train 11")  # of 8 steps an epoch: in the second one's middle
            assert "going on from" in run(folder, *settings, only="train")
            run(folder, *settings, only="reference dpo", dies="dpo 6")
            assert "going on from" in run(folder, *settings, only="dpo")
        else:
            run(folder, *settings)
        outs = [folder / out for out in (paths.TRAIN, paths.REFERENCE, paths.DPO, paths.REPORTS)]
        written.append({file.relative_to(folder): file.read_bytes() for out in outs for file in out.rglob("*") if file.is_file()})
    assert len(written[0]) >= 10
    assert written[0] == written[1]
