"""The order in which records are learned: shuffled, with records of like length together, so that little is padding."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

POOL = 50  # effective batches that are sorted by length together; more: less padding, less chance in who meets whom


class ByLength(Sampler[int]):
    """Indices of an epoch, a function of seed, epoch, lengths and effective batch alone.

    So the micro-batch, accumulation and number of processes that make up one effective batch don't change which records an optimizer
    step sees, and an epoch can be entered in its middle. transformers' own sampler keeps a generator between epochs and knows only its
    own process's batch.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed = list(lengths), batch, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; accelerate's data loader calls this."""
        self.epoch = epoch

    def step(self, number: int) -> list[int]:
        """The indices of an optimizer step, counted from 0 over all epochs."""
        each = -(-len(self.lengths) // self.batch)
        place = number % each * self.batch
        return list(self)[place : place + self.batch]

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        shuffled = torch.randperm(len(self.lengths), generator=draw).tolist()
        whole = len(shuffled) - len(shuffled) % self.batch
        pools = [shuffled[start : min(start + POOL * self.batch, whole)] for start in range(0, whole, POOL * self.batch)]
        sorted_pools = [sorted(pool, key=lambda row: (-self.lengths[row], row)) for pool in pools]
        batches = [pool[start : start + self.batch] for pool in sorted_pools for start in range(0, len(pool), self.batch)]
        for chosen in torch.randperm(len(batches), generator=draw).tolist():
            yield from batches[chosen]
        yield from shuffled[whole:]  # the last, smaller batch
