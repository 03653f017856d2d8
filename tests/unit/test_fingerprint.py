"""An environment has one fingerprint, whoever asks; another one is told apart, and the difference said in lines."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune import fingerprint, instructions
from finetune.environment import LOCKS, installed, pins
from finetune.fingerprint import Fingerprint

ROOT = Path(__file__).resolve().parents[2]
X86 = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8480C
flags\t\t: fpu avx2 fma {more}

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
Machine = Callable[[str], Fingerprint]


@pytest.fixture
def on_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """`on_a_machine(text)`: the fingerprint where /proc/cpuinfo says that."""
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(instructions, "CPUINFO", tmp_path / "cpuinfo")

    def ask(text: str) -> Fingerprint:
        (tmp_path / "cpuinfo").write_text(text)
        return Fingerprint.of_this_machine(ROOT)

    return ask


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put an `nvidia-smi` of this text first in the path."""
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_it_says_what_is_here_and_comes_back_from_json() -> None:
    found = Fingerprint.of_this_machine(ROOT)
    assert found == Fingerprint.of_this_machine(ROOT)
    assert Fingerprint.from_dict(json.loads(json.dumps(found.as_dict()))) == found
    assert len(found.id) == 12
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert found.libraries["torch"] == installed()["torch"]
    assert found.lock is not None
    assert found.lock["sha256"] == hashlib.sha256((ROOT / found.lock["name"]).read_bytes()).hexdigest()


def test_it_comes_back_from_the_tags_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Fingerprint.of_this_machine(ROOT)
    tags = found.as_tags()
    assert tags["environment"] == found.id
    assert tags["environment.cpu"] == found.cpu
    assert Fingerprint.from_tags({**tags, "stage": "train"}) == found
    assert Fingerprint.from_tags({"stage": "train"}) is None
    bare = dataclasses.replace(found, gpu=("NVIDIA H200",), driver="1", lock=None)
    assert Fingerprint.from_tags(bare.as_tags()) == bare


def test_every_package_of_ours_that_decides_bytes_is_named_as_the_locks_name_it() -> None:
    locked = {name for lock in LOCKS for name in pins(ROOT / lock)}
    assert set(fingerprint.LIBRARIES) - locked == set()
    assert list(fingerprint.LIBRARIES) == sorted(set(fingerprint.LIBRARIES))


@pytest.mark.parametrize("wanted", [None, "avx2", "default"])
def test_the_instructions_are_those_that_torch_uses(wanted: str | None) -> None:
    program = "import torch; from finetune.fingerprint import Fingerprint as Found; "
    program += "print(torch.backends.cpu.get_cpu_capability(), Found.of_this_machine().instructions)"
    variables = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY"}
    if wanted:
        variables["ATEN_CPU_CAPABILITY"] = wanted
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    torchs, ours = done.stdout.split()
    assert torchs == ours


def test_a_processor_has_its_numbers_beside_its_name(on_a_machine: Machine) -> None:
    found = on_a_machine(X86.format(more="avx512vl avx512bw avx512dq"))
    assert (found.cpu, found.instructions) == ("Intel(R) Xeon(R) Platinum 8480C (family 6, model 143)", "AVX512")
    assert on_a_machine(X86.format(more="avx512vl")).instructions == "AVX2"
    assert on_a_machine("CPU implementer\t: 0x41\n").instructions == "DEFAULT"
    assert on_a_machine("").cpu == "x86_64"


@pytest.fixture(autouse=True)
def _no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has."""
    monkeypatch.setattr(fingerprint, "NVIDIA", tmp_path / "none")


def test_gpus_are_named_as_often_as_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch, "echo 'NVIDIA H100 80GB HBM3, 580.95.05'\necho 'NVIDIA H100 80GB HBM3, 580.95.05'")
    found = Fingerprint.of_this_machine(ROOT)
    assert (found.gpu, found.driver) == (("NVIDIA H100 80GB HBM3",) * 2, "580.95.05")
    assert Fingerprint.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_gpus_that_the_kernel_names_cost_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch, "echo 'asked, 1'")
    monkeypatch.setattr(fingerprint, "NVIDIA", tmp_path / "nvidia")
    for bus in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "nvidia/gpus" / bus).mkdir(parents=True)
        (tmp_path / "nvidia/gpus" / bus / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 43\n")
    version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (x@y)  Tue Sep 23\nGCC version:  gcc 12\n"
    (tmp_path / "nvidia/version").write_text(version)
    found = Fingerprint.of_this_machine(ROOT)
    assert (found.gpu, found.driver) == (("NVIDIA H100 80GB HBM3",) * 2, "580.95.05")
    (tmp_path / "nvidia/version").write_text("")
    assert Fingerprint.of_this_machine(ROOT).gpu == ("asked",)


def test_a_process_that_no_stage_began_answers_for_the_settings(on_a_machine: Machine, tmp_path: Path) -> None:
    on_a_machine(X86.format(more="avx512vl avx512bw avx512dq"))
    (tmp_path / "params.yaml").write_text("threads: 2\ninstructions: compatible\n")
    assert Fingerprint.of_this_machine(tmp_path).instructions == "AVX2"
    (tmp_path / "params.yaml").write_text("threads: 2\ninstructions: native\n")
    assert Fingerprint.of_this_machine(tmp_path).instructions == "AVX512"


def test_a_driver_that_does_not_answer_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch, 'echo "NVIDIA-SMI has failed because it couldn\'t communicate with the NVIDIA driver."; exit 9')
    found = Fingerprint.of_this_machine(ROOT)
    assert (found.gpu, found.driver) == (None, None)


def test_without_a_lock_there_is_none(tmp_path: Path) -> None:
    assert Fingerprint.of_this_machine(tmp_path).lock is None


def test_what_differs_is_said_in_lines(on_a_machine: Machine) -> None:
    here = on_a_machine(X86.format(more=""))
    there = dataclasses.replace(
        here,
        cpu="AMD EPYC (family 26, model 2)",
        gpu=("NVIDIA H200",),
        libraries={**here.libraries, "torch": "2.11.0", "unsloth": "2026.10.7"},
        lock={"name": "requirements-gpu.lock", "sha256": "ab" * 32},
    )
    assert here.differences(here) == []
    assert here.id != there.id
    assert here.lock is not None
    assert here.differences(there) == [
        "cpu: Intel(R) Xeon(R) Platinum 8480C (family 6, model 143) → AMD EPYC (family 26, model 2)",
        f"lock requirements.lock: {here.lock['sha256'][:12]} → none",
        f"torch: {here.libraries['torch']} → 2.11.0",
        "gpu: none → NVIDIA H200",
        "lock requirements-gpu.lock: none → abababababab",
        "unsloth: none → 2026.10.7",
    ]
    assert here.differences(dataclasses.replace(here, lock=None)) == [f"lock requirements.lock: {here.lock['sha256'][:12]} → none"]
