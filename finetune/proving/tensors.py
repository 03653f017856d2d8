"""Two safetensors files compared tensor by tensor, by bits: of NaN, of zeros with a sign, and of any type."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from finetune.proving.difference import Difference, Largest, both, shown, there

BLOCK = 1 << 22  # numbers looked at in one go, 32 MiB as float64


@dataclass(frozen=True)
class _Parted:
    """How two tensors of one shape and type part."""

    at: list[int]
    first: str
    second: str
    largest: float


def compare(name: str, first: Path, second: Path) -> Difference | None:
    """The first tensor that parts, layer 2 before layer 10, and the largest difference in all of them; None: all are the same."""
    largest, parted, met = Largest(), 0, None
    with safe_open(first, framework="pt") as one, safe_open(second, framework="pt") as other:
        names, others = set(one.keys()), set(other.keys())
        every = sorted(names | others, key=_by_number)
        for key in every:
            found = None
            if key not in others or key not in names:
                found = Difference(name, f"tensor {key}", *there(key, names, others))
            else:
                a, b = one.get_tensor(key), other.get_tensor(key)
                if a.dtype != b.dtype or a.shape != b.shape:
                    found = Difference(name, f"tensor {key}", *both(_kind, a, b))
                elif part := _part(a, b):
                    found = Difference(name, f"tensor {key} at {part.at}", part.first, part.second)
                    largest.see(part.largest, f"tensor {key}")
            if found is not None:
                parted, met = parted + 1, met or found
        if met is None and one.metadata() != other.metadata():
            met = Difference(name, "the file's own notes", shown(one.metadata()), shown(other.metadata()))
    if met is None:
        return None
    return Difference(name, met.at, met.first, met.second, parted, len(every), "tensors", largest.value, largest.at)


def _by_number(name: str) -> list[tuple[int, str]]:
    """`layers.2` before `layers.10`."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in name.split(".")]


def _part(a: torch.Tensor, b: torch.Tensor) -> _Parted | None:
    """Where two tensors part first, and by how much at most; None: they are the same, bit for bit."""
    met, largest = None, Largest()
    for start, x, y in _blocks(a, b):
        size = x.element_size()
        bits = (x.view(torch.uint8).view(-1, size) != y.view(torch.uint8).view(-1, size)).any(dim=1)
        if not bits.any():
            continue
        if met is None:
            index = int(bits.nonzero()[0])
            met = _place(start + index, list(a.shape)), x[index].item(), y[index].item()
        u, v = (tensor[bits].to(torch.complex128 if tensor.is_complex() else torch.float64) for tensor in (x, y))
        apart = (u - v).abs()
        apart[(u == v) | (u.isnan() & v.isnan())] = 0  # the same infinity, or nan in both, whatever its bits
        largest.see(float(apart.max()), "")  # nan wins over numbers in max() too
    if met is None or largest.value is None:
        return None
    return _Parted(met[0], repr(met[1]), repr(met[2]), largest.value)


def _blocks(a: torch.Tensor, b: torch.Tensor) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Stretches of both, flat, so that a large tensor is not held several times over in float64."""
    flat, other = a.contiguous().reshape(-1), b.contiguous().reshape(-1)
    for start in range(0, flat.numel(), BLOCK):
        yield start, flat[start : start + BLOCK], other[start : start + BLOCK]


def _place(flat: int, shape: list[int]) -> list[int]:
    """`[3, 0]` from the position of a number in memory."""
    place = []
    for size in reversed(shape):
        flat, rest = divmod(flat, size)
        place.append(rest)
    return place[::-1]


def _kind(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"
