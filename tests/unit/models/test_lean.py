"""What a stage's start must not load, in a process of its own."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

UNUSED = ("sklearn", "scipy", "torch._inductor.compile_fx")


@pytest.mark.parametrize("stage", ["train", "reference", "answer", "export"])
def test_a_stage_starts_without_what_it_does_not_use(stage: str) -> None:
    program = f"import sys, stages.{stage}; print(*(name for name in {UNUSED!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert "gemm_4bit_forward" not in done.stderr


def test_torch_compile_is_itself_again() -> None:
    program = "import torch; before = torch.compile; from finetune.models import lean; assert torch.compile is before"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
