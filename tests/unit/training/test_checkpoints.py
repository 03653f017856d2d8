"""A training's state comes back from its files as it was, and is written when it is due."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from finetune.training import checkpoints
from finetune.training.checkpoints import Saving


def test_state_comes_back_exactly_with_the_kinds_of_its_keys(tmp_path: Path) -> None:
    weight = torch.randn(3, 4)
    state: dict[str, Any] = {
        "state": {0: {"exp_avg": weight, "step": torch.tensor(3.0)}, 7: {"state1": weight.to(torch.uint8), "half": weight.bfloat16()}},
        "groups": [{"lr": 1 / 3, "betas": (0.9, 0.999), "params": [0, 7], "foreach": None, "capturable": False}],
        "view": weight[:, 1],
        "same": weight,
    }
    checkpoints.write(tmp_path, state)
    found = checkpoints.read(tmp_path)
    assert list(found["state"]) == [0, 7]
    assert found["groups"] == state["groups"]
    assert isinstance(found["groups"][0]["betas"], tuple)
    pairs = [(found["state"][0]["exp_avg"], weight), (found["state"][7]["half"], weight.bfloat16()), (found["view"], weight[:, 1])]
    for one, other in pairs:
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_what_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a checkpoint can't hold a set"):
        checkpoints.write(tmp_path, {"seen": {1, 2}})


def test_every_generator_goes_on_where_it_was(tmp_path: Path) -> None:
    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    np.random.normal()  # of which NumPy keeps a second one for the next time
    checkpoints.write(tmp_path, checkpoints.generators())
    first = drawn()
    normal = np.random.normal()
    checkpoints.set_generators(checkpoints.read(tmp_path))
    assert (drawn(), np.random.normal()) == (first, normal)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the time is: `clock[0] += 5`."""
    now = [100.0]
    monkeypatch.setattr("finetune.training.checkpoints.time.monotonic", lambda: now[0])
    return now


def asks(saving: Saving, clock: list[float], seconds: float, cost: float = 0.0, state: TrainerState | None = None) -> bool:
    """Whether a checkpoint is asked for after a step of this many seconds; if so it takes `cost`."""
    clock[0] += seconds
    args, state, control = TrainingArguments(report_to=[], use_cpu=True), state or TrainerState(), TrainerControl()
    saving.on_step_end(args, state, control)
    if control.should_save:
        clock[0] += cost
        saving.on_save(args, state, control)
    return control.should_save


def test_checkpoints_come_by_the_clock(clock: list[float]) -> None:
    saving = Saving(60, lambda: None)
    assert [asks(saving, clock, 25) for _ in range(7)] == [False, False, True, False, False, True, False]
    assert not asks(Saving(None, lambda: None), clock, 1e6)
    every = Saving(0, lambda: None)
    assert [asks(every, clock, 1, cost=9) for _ in range(3)] == [True, True, True]


def test_the_last_step_is_kept_for_what_follows_it(clock: list[float]) -> None:
    ended = TrainerState(global_step=7, max_steps=7)
    assert asks(Saving(60, lambda: None), clock, 1, state=ended)
    assert not asks(Saving(None, lambda: None), clock, 1, state=ended)
    assert not asks(Saving(60, lambda: None), clock, 1, state=TrainerState(global_step=6, max_steps=7))


def test_costly_checkpoints_come_more_seldom_but_none_loses_more_than_five_minutes(clock: list[float]) -> None:
    saving = Saving(60, lambda: None)
    assert asks(saving, clock, 60, cost=3)
    assert [asks(saving, clock, 50, cost=30) for _ in range(3)] == [False, False, True], "50 times what it took"
    assert [asks(saving, clock, 100) for _ in range(3)] == [False, False, True], "50 times 30 would be 25 minutes"


def test_a_stage_that_is_told_to_end_saves_at_once_and_stops(clock: list[float]) -> None:
    saving = Saving(None, lambda: "SIGTERM")
    control = TrainerControl()
    saving.on_step_end(TrainingArguments(report_to=[], use_cpu=True), TrainerState(), control)
    assert (control.should_save, control.should_training_stop, saving.ended) == (True, True, "SIGTERM")
