"""Guard rails: too many passes are refused, more than usual are warned of, and a recorded setting overrules."""

from collections.abc import Callable

import pytest

from finetune.config.schema import Config
from finetune.errors import TrainingError
from finetune.training import guards

Compose = Callable[..., Config]


@pytest.mark.parametrize(
    ("overrides", "processes", "expected"),
    [
        (["train.num_train_epochs=2.5"], 1, 2.5),
        (["train.num_train_epochs=2", "train.max_steps=50"], 1, 4.0),
        (["train.max_steps=50", "train.gradient_accumulation_steps=2"], 1, 8.0),
        (["train.max_steps=50"], 2, 8.0),
    ],
)
def test_passes_are_epochs_or_what_the_steps_come_to(compose: Compose, overrides: list[str], processes: int, expected: float) -> None:
    assert guards.passes(compose(*overrides).train, 100, processes) == expected


def test_too_many_passes_are_refused_until_a_setting_overrules(compose: Compose) -> None:
    with pytest.raises(TrainingError, match=r"train\.num_train_epochs: found 6 passes over 40 records, .* train\.guards\.max_passes=6"):
        guards.judge_passes("train", compose("train.num_train_epochs=6").train, 40, 1)
    guards.judge_passes("train", compose("train.num_train_epochs=6", "train.guards.max_passes=6").train, 40, 1)
    with pytest.raises(TrainingError, match=r"dpo\.max_steps=99: found 7\.92 passes over 100 records"):
        guards.judge_passes("dpo", compose("dpo.max_steps=99").dpo, 100, 1)


def test_more_than_usual_is_warned_of(compose: Compose, caplog: pytest.LogCaptureFixture) -> None:
    guards.judge_passes("train", compose("train.num_train_epochs=3").train, 40, 1)
    assert not caplog.records
    guards.judge_passes("train", compose("train.num_train_epochs=4").train, 40, 1)
    assert "found 4 passes over 40 records; 3 or fewer are usual" in caplog.text
