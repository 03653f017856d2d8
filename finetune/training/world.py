"""Which of several processes this one is, as torch's launcher says in the environment. One process: rank 0 of 1."""

import os


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Its number on this machine, which is also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def main_process() -> bool:
    """Whether this process writes: outputs, reports, tracking, bars."""
    return rank() == 0


def leave() -> None:
    """Wait until all processes are done, then part; so that none is gone while another still computes or writes."""
    if size() > 1:
        import torch.distributed as dist  # 2 s, and only a distributed run needs it

        dist.barrier()
        dist.destroy_process_group()
