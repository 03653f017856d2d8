"""One seed for everything that draws, and arithmetic that gives the same bits twice."""

import os
import random

import numpy as np
import torch
import transformers

UNORDERED = "does not have a deterministic implementation"  # in what torch says of an operation, as it refuses it


def seed_everything(seed: int, *, strict: bool = False) -> None:
    """Seed Python, NumPy and torch, and ask for deterministic algorithms: before a model gets a new adapter, before a trainer is built.

    strict: an operation that has no deterministic form on a GPU is refused (RuntimeError, with UNORDERED in it) instead of warned of. What
    trains is strict, because torch takes the deterministic form of attention's backward pass only then (docs/decisions/0018).
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may choose another order of summation each time
    random.seed(seed)
    np.random.seed(seed % 2**32)
    transformers.set_seed(seed % 2**32)
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a pass over each new tensor, for no result
    torch.backends.cudnn.benchmark = False
