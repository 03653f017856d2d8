"""Tensors compared by bits: what parts is found, named, and measured."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from finetune.proving import tensors
from finetune.proving.difference import Difference

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def weights() -> Tensors:
    """Three tensors, of which two are numbered so that the alphabet would have them the wrong way round."""
    torch.manual_seed(0)
    return {f"layers.{number}.weight": torch.randn(3, 5) for number in (10, 2)} | {"head": torch.ones(4, dtype=torch.bfloat16)}


def compared(folder: Path, first: Tensors, second: Tensors, notes: dict[str, str] | None = None) -> Difference | None:
    save_file(first, folder / "first")
    save_file(second, folder / "second", notes)
    return tensors.compare("w.safetensors", folder / "first", folder / "second")


def changed(weights: Tensors, name: str, place: tuple[int, ...], value: float) -> Tensors:
    copy = weights[name].clone()
    copy[place] = value
    return weights | {name: copy}


def test_the_same_tensors_do_not_part(tmp_path: Path, weights: Tensors) -> None:
    assert compared(tmp_path, weights, weights) is None


def test_a_change_by_one_ulp_is_found_with_its_place_and_size(tmp_path: Path, weights: Tensors) -> None:
    before = weights["layers.2.weight"][1, 3]
    after = torch.nextafter(before, torch.tensor(math.inf))
    found = compared(tmp_path, weights, changed(weights, "layers.2.weight", (1, 3), after.item()))
    assert found == Difference(
        "w.safetensors",
        "tensor layers.2.weight at [1, 3]",
        repr(before.item()),
        repr(after.item()),
        1,
        3,
        "tensors",
        (after.double() - before.double()).item(),
        "tensor layers.2.weight",
    )
    assert 0 < (found.largest or 0) < 1e-6


def test_the_first_is_told_in_the_order_of_layers_and_the_largest_wherever_it_is(tmp_path: Path, weights: Tensors) -> None:
    second = changed(changed(weights, "layers.10.weight", (0, 0), 100.0), "layers.2.weight", (2, 4), 9.0)
    found = compared(tmp_path, weights, second)
    assert found is not None
    assert (found.at, found.parted, found.largest_at) == ("tensor layers.2.weight at [2, 4]", 2, "tensor layers.10.weight")
    assert found.largest == abs(100.0 - weights["layers.10.weight"][0, 0].double().item())


def test_nan_is_itself_and_the_largest_difference_from_a_number(tmp_path: Path, weights: Tensors) -> None:
    missing = changed(weights, "layers.2.weight", (0, 1), math.nan)
    assert compared(tmp_path, missing, missing) is None
    found = compared(tmp_path, weights, missing)
    assert found is not None
    assert found.at == "tensor layers.2.weight at [0, 1]"
    assert math.isnan(found.largest or 0)
    assert found.as_dict()["largest"] == "nan"


def test_a_zero_of_the_other_sign_parts_by_nothing(tmp_path: Path) -> None:
    found = compared(tmp_path, {"a": torch.zeros(2)}, {"a": torch.tensor([0.0, -0.0])})
    assert found is not None
    assert (found.at, found.first, found.second, found.largest) == ("tensor a at [1]", "0.0", "-0.0", 0.0)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool])
def test_every_type_is_compared(tmp_path: Path, kind: torch.dtype) -> None:
    first = torch.ones(5, dtype=kind)
    second = first.clone()
    second[4] = 0
    found = compared(tmp_path, {"a": first}, {"a": second})
    assert found is not None
    assert (found.at, found.largest) == ("tensor a at [4]", 1.0)


def test_large_tensors_are_compared_in_pieces_to_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "BLOCK", 7)
    first = torch.arange(20, dtype=torch.float32).reshape(4, 5)
    second = first.clone()
    second[3, 4] += 2
    found = compared(tmp_path, {"a": first}, {"a": second})
    assert found is not None
    assert (found.at, found.largest) == ("tensor a at [3, 4]", 2.0)


@pytest.mark.parametrize(
    ("second", "at", "values"),
    [
        ({"a": torch.ones(2, 3)}, "tensor a", ("torch.float32 [3, 2]", "torch.float32 [2, 3]")),
        ({"a": torch.ones(3, 2, dtype=torch.float64)}, "tensor a", ("torch.float32 [3, 2]", "torch.float64 [3, 2]")),
        ({"a": torch.ones(3, 2), "b": torch.ones(1)}, "tensor b", (None, "there")),
    ],
)
def test_another_shape_type_or_name_is_told(tmp_path: Path, second: Tensors, at: str, values: tuple[str | None, str]) -> None:
    found = compared(tmp_path, {"a": torch.ones(3, 2)}, second)
    assert found is not None
    assert (found.at, (found.first, found.second), found.largest) == (at, values, None)


def test_the_notes_of_a_file_are_compared_where_its_tensors_are_the_same(tmp_path: Path, weights: Tensors) -> None:
    found = compared(tmp_path, weights, weights, {"format": "pt"})
    assert found is not None
    assert (found.at, found.parted) == ("the file's own notes", 0)
