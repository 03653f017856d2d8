"""Hashes of what a processor computes: the same in a second process, others with other instructions, and each line of a name of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import arithmetic, instructions

ROOT = Path(__file__).resolve().parents[2]


def lines(part: list[tuple[str, str]]) -> dict[str, str]:
    found = dict(part)
    assert len(found) == len(part), "a name was used twice"
    return found


def test_what_goes_in_is_exact() -> None:
    given = arithmetic.made(40, 30)
    assert (given * 2**20).frac().abs().max() == 0
    assert given.abs().max() <= 1
    assert torch.equal(given, arithmetic.made(40, 30))


def test_one_bit_is_another_hash() -> None:
    given = arithmetic.made(3, 4)
    other = given.clone()
    other[2, 3] = torch.nextafter(other[2, 3], torch.tensor(2.0))
    assert arithmetic.digest(given) != arithmetic.digest(other)
    assert arithmetic.digest(given.T) == arithmetic.digest(given.T.contiguous())


def test_gradients_and_optimizers_are_hashed() -> None:
    found = lines([*arithmetic.backward(), *arithmetic.optimizers()])
    assert {"linear, gradient of 2", "attention with a mask, gradient of 3", "adamw_torch", "adamw_torch_fused"} <= found.keys()
    assert found == lines([*arithmetic.backward(), *arithmetic.optimizers()])


@pytest.mark.slow
def test_two_processes_say_the_same_and_the_compatible_code_another_product() -> None:
    def said(*words: str) -> dict[str, str]:
        command = [sys.executable, "-m", arithmetic.__name__, *words]
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("ATEN_", "ONEDNN_", "MKL_", "NPY_"))}
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
        return lines([(name, value) for name, _, value in (line.rpartition(" ") for line in done.stdout.splitlines())])

    first, second, other = said("avx2", "--steps", "1"), said("avx2", "--steps", "1"), said("compatible", "--steps", "1")
    assert first == second
    assert {"weights", "loss of step 1", "adapter"} <= first.keys() == other.keys()
    assert (first["weights"], first["draws of a uniform distribution"]) == (other["weights"], other["draws of a uniform distribution"])
    assert first["product 256 x 576 x 16"] != other["product 256 x 576 x 16"]


def test_a_cost_is_the_time_of_a_turn_against_natives() -> None:
    seconds = {"native": [2.0, 4.0], "avx2": [3.0, 4.0], "compatible": [4.0, 12.0]}
    samples = instructions.results(seconds, {"native": {"a"}, "avx2": {"b", "c"}, "compatible": {"d"}})
    assert (samples["cost.avx2"], samples["cost.compatible"]) == ([1.5, 1.0], [2.0, 3.0])
    assert (samples["bytes.avx2"], samples["bytes.compatible"], samples["seconds.native"]) == ([2], [1], [2.0, 4.0])
