"""What both trainers share, under TRL's: the order of the records, the stop at a loss that is not finite, adapters kept in float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from peft import PeftModel
from torch.utils.data import Sampler
from transformers import PreTrainedModel, PrinterCallback, Trainer

from finetune.data.tables import table
from finetune.errors import TrainingError
from finetune.training import world
from finetune.training.order import ByLength

IDS = ("input_ids", "prompt_ids", "chosen_ids", "rejected_ids")  # columns whose lengths make up what a record costs


class Steady(Trainer):
    """Records in an order that one effective batch fixes; a loss that is not finite stops the run at once."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        effective = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * world.size()
        return ByLength(_lengths(dataset), effective, self.args.data_seed or 0)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The loss of a micro-batch.

        Raises:
            TrainingError: it is not finite.
        """
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss).all():
            raise TrainingError(
                f"step {self.state.global_step + 1}: the loss is {loss.item()}, expected a finite number; nothing was written. "
                f"Lower learning_rate (it was {self.args.learning_rate:g}), or raise warmup_ratio (it was {self.args.warmup_steps:g})"
            )
        return loss


def quiet(trainer: Trainer) -> Trainer:
    """Return the trainer without the callback that prints every step to standard output."""
    trainer.remove_callback(PrinterCallback)
    return trainer


@contextmanager
def kept_in_float32(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Undo what TRL does to the adapter of a 4-bit model as it builds a trainer: rounding it to bfloat16.

    bfloat16 is 20 times slower on a CPU without units for it, and dpo would not start from the bytes of models/train.
    """
    before = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    yield
    for name, weight in model.named_parameters():
        if name in before and weight.dtype != before[name].dtype:
            weight.data = before[name]


def read(path: Path, columns: list[str]) -> Dataset:
    """Return columns of a parquet file as a data set in memory; `datasets`' own reader leaves a copy in the home folder.

    Raises:
        DataError: the file is not there.
    """
    return Dataset(InMemoryTable(table(path, columns)))


def parameters(model: PreTrainedModel | PeftModel) -> dict[str, int]:
    """How many numbers the model has, and how many of them are trained; a 4-bit weight counts as the numbers it stands for."""
    counts = [(_numbers(weight), weight.requires_grad) for weight in model.parameters()]
    return {"parameters": sum(count for count, _ in counts), "trainable_parameters": sum(count for count, trained in counts if trained)}


def _numbers(weight: torch.nn.Parameter) -> int:
    state = getattr(weight, "quant_state", None)
    return int(state.shape.numel()) if state is not None else weight.numel()


def _lengths(dataset: Dataset) -> list[int]:
    present = [dataset[name] for name in IDS if name in dataset.column_names]
    return [sum(len(ids) for ids in row) for row in zip(*present, strict=True)]
