"""What a run says of itself while it runs: every step's numbers at full precision, kept for the report and sent to tracking."""

import resource
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from finetune import tracking
from finetune.progress import progress
from finetune.training import world

SUPERVISED = {"loss": "loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm"}
PREFERENCE = SUPERVISED | {
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
    "chosen": "rewards/chosen",
    "rejected": "rewards/rejected",
    "dpo_loss": "dpo_loss",
    "nll": "nll",
}
LAST = 10  # steps that a reported loss is the mean of


class Steps(TrainerCallback, ExportableState):
    """Records each optimizer step, and is in checkpoints with them; on the main process also moves the bar and feeds tracking.

    names: key of a step in the report → the trainer's name for it.
    """

    def __init__(self, doing: str, names: Mapping[str, str]) -> None:
        self.doing, self.names = doing, names
        self.rows: list[dict[str, Any]] = []
        self._bar: Iterator[int] = iter(())
        self._clock, self._tokens = 0.0, 0.0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"args": {}, "attributes": {"rows": self.rows}}

    def at_the_end(self, name: str) -> float:
        """Mean of the last ten steps."""
        last = [row[name] for row in self.rows[-LAST:]]
        return float(sum(last) / len(last))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start bar and clock; the steps that a checkpoint has are told to tracking, whose run then has the whole curve."""
        if world.main_process():
            left = range(state.global_step, state.max_steps)
            self._bar = iter(progress(left, self.doing, total=len(left), unit="steps"))
            next(self._bar, None)
            for row in self.rows:
                tracking.metrics({key: row[key] for key in self.names if key in row}, step=row["step"])
        self._clock, self._tokens = time.monotonic(), float(state.num_input_tokens_seen)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        next(self._bar, None)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        """Keep a step's numbers; the summary at the end has no loss of a step and is left out."""
        if logs is None or "loss" not in logs:
            return
        row = {key: float(logs[name]) for key, name in self.names.items() if name in logs}
        self.rows.append({"step": state.global_step, "epoch": float(state.epoch or 0), **row})
        if world.main_process():
            now, tokens = time.monotonic(), float(state.num_input_tokens_seen)
            speed = (tokens - self._tokens) / max(now - self._clock, 1e-9)
            self._clock, self._tokens = now, tokens
            tracking.metrics({**row, "tokens_per_second": speed, "peak_memory_gib": _peak_memory()}, step=state.global_step)


def _peak_memory() -> float:
    """The most memory that this process has held, in GiB: the GPU's where it trains on one."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_reserved() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
