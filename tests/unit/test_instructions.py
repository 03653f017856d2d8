"""One setting decides the CPU's instructions, before any library is loaded, and a stage refuses to compute with others."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from finetune import instructions
from finetune.config.compose import write_params
from finetune.config.schema import Config
from finetune.errors import ConfigError, SetupError

ROOT = Path(__file__).resolve().parents[2]
FUSED = ("train.optim=adamw_torch_fused", "dpo.optim=adamw_torch_fused")
PINNED = tuple(name for name, variables in instructions.VARIABLES.items() if variables)
# what a stage would compute with, and bits of a product and of an exponential
COMPUTE = """
import stages
import hashlib, numpy, torch
from numpy._core._multiarray_umath import __cpu_features__ as features
torch.set_num_threads(1)
left = torch.arange(64 * 576, dtype=torch.float32).reshape(64, 576).sin()
product = hashlib.sha256((left @ left.T).numpy().tobytes()).hexdigest()
print(torch.backends.cpu.get_cpu_capability(), features["X86_V4"], product)
"""


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any of the variables, put back afterwards."""
    for name in instructions.VARIABLES["compatible"]:
        monkeypatch.setenv(name, "")  # noted as set, so that what `pin` sets is undone
        monkeypatch.delenv(name)
    return monkeypatch


def compute(folder: Path, *words: str) -> list[str]:
    """Capability of torch, whether NumPy uses AVX-512, and the hash of a product, in a process that began as a stage does."""
    variables = {name: value for name, value in os.environ.items() if name not in instructions.VARIABLES["compatible"]}
    variables["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [sys.executable, "-c", COMPUTE, *words], cwd=folder, env=variables, capture_output=True, text=True, check=True
    ).stdout.split()


def test_the_settings_are_those_that_have_variables() -> None:
    assert get_args(Config.model_fields["instructions"].annotation) == tuple(instructions.VARIABLES)
    assert PINNED == ("avx2", "compatible")
    assert len({tuple(variables) for variables in (instructions.VARIABLES[name] for name in PINNED)}) == 1


@pytest.mark.parametrize(
    ("line", "overrides", "expected"),
    [
        ("instructions: avx2", [], "avx2"),
        ("instructions: 'avx2'  # a reason", [], "avx2"),
        ("other:\n  instructions: avx2", [], "native"),
        ("instructions: avx2", ["train.r=8", "instructions=compatible"], "compatible"),
        ("instructions: avx2", ["++instructions=native"], "native"),
        ("instructions: avx2", ["instructions=compatible", "instructions=native"], "native"),
        ("instructions: avx2", ["model.instructions=native"], "avx2"),
    ],
)
def test_the_setting_is_found_in_a_line_or_on_the_command_line(tmp_path: Path, line: str, overrides: list[str], expected: str) -> None:
    (tmp_path / "params.yaml").write_text(f"seed: 17\n{line}\nthreads: 2\n")
    assert instructions.asked(tmp_path / "params.yaml", overrides) == expected


def test_what_conf_composes_to_has_the_line(repository: Path) -> None:
    for name in instructions.VARIABLES:
        write_params([f"instructions={name}", *FUSED], root=repository)
        assert instructions.asked(repository / "params.yaml", []) == name
    assert instructions.asked(repository / "elsewhere.yaml", []) == "native"


def test_an_optimizer_whose_square_roots_are_the_processors_is_refused(repository: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        write_params(["instructions=avx2", "train.optim=adamw_torch_fused", "dpo.optim=adamw_8bit"], root=repository)
    (problem,) = refused.value.problems
    assert problem.startswith("dpo.optim: found 'adamw_8bit' with instructions=avx2, expected 'adamw_torch_fused'")
    write_params(["instructions=compatible", *FUSED], root=repository)
    write_params(["instructions=avx2", "model.device=cuda"], root=repository)


def test_a_processor_without_avx2_is_refused(tmp_path: Path, clean: pytest.MonkeyPatch) -> None:
    clean.setattr(instructions, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("model name\t: an old one\nflags\t\t: fpu sse2 fma\n\nflags\t\t: avx2\n")
    said = instructions.pin(tmp_path / "params.yaml", ["instructions=compatible"])
    assert "found 'compatible', and this processor" in said
    assert "lacks avx2; expected one that has avx2 and fma; set instructions=native" in said
    assert "ATEN_CPU_CAPABILITY" not in os.environ
    assert instructions.pin(tmp_path / "params.yaml", ["instructions=native"]) == ""


@pytest.mark.parametrize("name", PINNED)
def test_pinned_is_what_verifies(tmp_path: Path, clean: pytest.MonkeyPatch, name: str) -> None:
    clean.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    (tmp_path / "cpuinfo").write_text("flags\t\t: avx2 fma\n")
    clean.setattr(instructions, "CPUINFO", tmp_path / "cpuinfo")
    instructions.verify("native")
    assert instructions.pin(tmp_path / "params.yaml", [f"instructions={name}"]) == ""
    instructions.verify(name)
    with pytest.raises(SetupError, match="found ATEN_CPU_CAPABILITY='avx2', expected none"):
        instructions.verify("native")
    other = next(another for another in PINNED if another != name)
    with pytest.raises(SetupError, match="found MKL_CBWR="):
        instructions.verify(other)
    clean.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    with pytest.raises(SetupError, match="torch uses AVX512, expected AVX2"):
        instructions.verify(name)


def test_the_libraries_do_as_they_are_told(tmp_path: Path) -> None:
    found = {name: compute(tmp_path, f"instructions={name}") for name in PINNED}
    assert {words[0] for words in found.values()} == {"AVX2"}
    assert {words[1] for words in found.values()} == {"False"}
    assert found["avx2"][2] != found["compatible"][2], "MKL's compatible code has no fused multiply-add"


def test_a_stage_refuses_instructions_that_its_settings_did_not_ask_for(repository: Path) -> None:
    write_params(["experiment=tiny", "tracking=off"], root=repository)
    command = [sys.executable, "-m", "stages.evaluate"]
    done = subprocess.run(
        command, env={**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}, cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "instructions=native does not hold in this process:\n  found ATEN_CPU_CAPABILITY='avx2', expected none" in done.stderr


def test_a_stage_takes_them_from_its_command_line(repository: Path) -> None:
    write_params(["experiment=tiny", "tracking=off"], root=repository)
    command = [sys.executable, "-m", "stages.evaluate", "instructions=avx2", *FUSED]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert "evaluate: a model was not asked" in done.stderr, "it began to work"
