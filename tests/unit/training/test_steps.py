"""What a run says of itself: every step's numbers in full, once, and on the main process alone to tracking."""

from typing import Any

import pytest
from transformers import TrainerControl, TrainerState

from finetune import tracking
from finetune.training.steps import PREFERENCE, SUPERVISED, Steps

LOGS = {"loss": 0.1234567890123, "learning_rate": 1e-3, "grad_norm": 2.0, "entropy": 1.0}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, dict[str, Any]]]:
    rows: list[tuple[int, dict[str, Any]]] = []
    monkeypatch.setattr(tracking, "metrics", lambda values, step: rows.append((step, values)))
    return rows


def drive(steps: Steps, count: int, logs: dict[str, float] | None = None) -> None:
    state, control = TrainerState(max_steps=count), TrainerControl()
    steps.on_train_begin(None, state, control)  # type: ignore[arg-type]
    for step in range(1, count + 1):
        state.global_step, state.epoch, state.num_input_tokens_seen = step, step / count, 100 * step
        steps.on_step_end(None, state, control)  # type: ignore[arg-type]
        steps.on_log(None, state, control, logs=logs or LOGS)  # type: ignore[arg-type]
    steps.on_log(None, state, control, logs={"train_runtime": 1.0})  # type: ignore[arg-type]


def test_each_step_is_kept_at_full_precision_and_the_closing_summary_is_not_a_step(sent: list[Any]) -> None:
    steps = Steps("training", SUPERVISED)
    drive(steps, 3)
    expected = {"loss": 0.1234567890123, "learning_rate": 1e-3, "grad_norm": 2.0}
    assert steps.rows == [{"step": step, "epoch": step / 3, **expected} for step in (1, 2, 3)]


def test_tracking_gets_speed_and_memory_that_the_report_leaves_out(sent: list[Any]) -> None:
    drive(Steps("training", SUPERVISED), 2)
    assert [step for step, _ in sent] == [1, 2]
    assert sent[0][1]["tokens_per_second"] > 0
    assert 0.01 < sent[0][1]["peak_memory_gib"] < 64


def test_other_processes_send_nothing(sent: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    steps = Steps("training", SUPERVISED)
    drive(steps, 2)
    assert not sent
    assert len(steps.rows) == 2


def test_a_preference_step_has_rewards(sent: list[Any]) -> None:
    rewards = {"rewards/margins": 0.5, "rewards/accuracies": 1.0, "rewards/chosen": 0.2, "rewards/rejected": -0.3}
    steps = Steps("preferring", PREFERENCE)
    drive(steps, 1, LOGS | rewards)
    assert steps.rows[0].items() >= {"margin": 0.5, "accuracy": 1.0, "chosen": 0.2, "rejected": -0.3}.items()


def test_the_reported_loss_is_the_mean_of_the_last_ten_steps() -> None:
    steps = Steps("training", SUPERVISED)
    steps.rows = [{"loss": float(step)} for step in range(30)]
    assert steps.at_the_end("loss") == 24.5
