"""One seed for everything that draws, and one order for everything that adds."""

import random

import numpy as np
import pytest
import torch

from finetune.errors import TrainingError
from finetune.training.seeding import UNORDERED, seed_everything, strictly


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_the_same_seed_draws_the_same_from_every_source_and_another_seed_something_else() -> None:
    seed_everything(17)
    first = drawn()
    seed_everything(17)
    assert drawn() == first
    seed_everything(18)
    assert all(mine != theirs for mine, theirs in zip(drawn(), first, strict=True))


def test_any_seed_that_the_schema_takes_is_taken() -> None:
    seed_everything(2**63)
    assert torch.are_deterministic_algorithms_enabled()


def test_what_adds_in_any_order_is_refused_where_a_model_is_trained_and_warned_of_elsewhere() -> None:
    place, value = torch.tensor([0]), torch.ones(1)
    seed_everything(17)
    for _ in range(2):
        with pytest.warns(UserWarning, match=UNORDERED):
            torch.zeros(1).put_(place, value)
        with pytest.raises(TrainingError, match=r"^found put_, an operation that adds.*set model\.device=cpu"), strictly():
            torch.zeros(1).put_(place, value)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="of another kind"), strictly():
        raise RuntimeError("of another kind")
    assert torch.is_deterministic_algorithms_warn_only_enabled()
