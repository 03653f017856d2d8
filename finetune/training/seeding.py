"""One seed for everything that draws, and arithmetic that gives the same bits twice."""

import os
import random

import numpy as np
import torch
import transformers

UNORDERED = "does not have a deterministic implementation"  # in what torch says of an operation, as it refuses it


def seed_everything(seed: int, *, strict: bool = False) -> None:
    """Seed Python, NumPy and torch, and have sums in one order: before a model gets a new adapter, before a trainer is built."""
    sum_in_one_order(strict=strict)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    transformers.set_seed(seed % 2**32)


def sum_in_one_order(*, strict: bool = False) -> None:
    """Ask torch for the algorithms that give the same bits twice, where others are faster on a GPU.

    strict: an operation that has no such form is refused (RuntimeError, with UNORDERED in it) instead of warned of. What trains is strict,
    because torch takes that form of attention's backward pass only then (docs/decisions/0018).
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may choose another order of summation each time
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a pass over each new tensor, for no result
    torch.backends.cudnn.benchmark = False
