"""One seed for everything that draws, and arithmetic that gives the same bits twice."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import transformers

from finetune.errors import TrainingError

UNORDERED = "does not have a deterministic implementation"  # in what torch says of an operation, as it refuses it


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, and have sums in one order: before a model gets a new adapter, before a trainer is built."""
    sum_in_one_order()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    transformers.set_seed(seed % 2**32)


def sum_in_one_order() -> None:
    """Ask torch for the algorithms that give the same bits twice, where others are faster on a GPU; it warns of what has none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may choose another order of summation each time
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a pass over each new tensor, for no result
    torch.backends.cudnn.benchmark = False


@contextmanager
def strictly() -> Iterator[None]:
    """Have torch refuse an operation without such an algorithm: around what trains, and around what training is measured against.

    Only then it takes that form of attention's backward pass, and other kernels of its forward pass, which round elsewhere
    (docs/decisions/0018).

    Raises:
        TrainingError: there was one.
    """
    torch.use_deterministic_algorithms(True, warn_only=False)
    try:
        yield
    except RuntimeError as error:
        if UNORDERED not in str(error):
            raise
        raise TrainingError(
            f"found {str(error).partition(UNORDERED)[0].strip()}, an operation that adds in another order each time on a GPU, "
            "expected only such as give the same bits twice; take another model, or set model.device=cpu model.dtype=float32 "
            "model.loader=transformers"
        ) from error
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)
