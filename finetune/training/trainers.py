"""What both trainers share, under TRL's: the order of the records, checkpoints, the stop at numbers that are not finite."""

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from peft import PeftModel
from torch.utils.data import Sampler
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState

from finetune.checkpoints.kept import Kept
from finetune.data.tables import table
from finetune.ending import Terminated, put_off
from finetune.errors import SHOWN, TrainingError
from finetune.training import checkpoints, world
from finetune.training.checkpoints import Saving, generators, of_all
from finetune.training.order import ByLength

log = logging.getLogger(__name__)

IDS = ("input_ids", "prompt_ids", "chosen_ids", "rejected_ids")  # columns whose lengths make up what a record costs


class Steady(Trainer):
    """Records in an order that one effective batch fixes; checkpoints from which the rest of the run is as if nothing had been.

    A loss or a gradient that is not finite stops the run at once, before an optimizer step is taken on it.
    """

    def train_through(self, kept: Kept, names: Callable[[Iterable[int]], list[str]]) -> None:
        """Train to the end, from the newest checkpoint if there is one.

        names: of the records behind rows of the data set, for the error that a number is not finite.

        Raises:
            TrainingError: a number is not finite.
            Terminated: the stage was told to end; what it did is in a checkpoint.
        """
        self._kept, self._names = kept, names
        newest = of_all(kept.newest() if world.main_process() else None)[0]
        if newest is not None and world.main_process():
            log.info("going on from %s", newest)
        if newest is not None and self._trained_whole(newest):
            return
        with put_off() as told:
            saving = Saving(kept.settings.save_seconds, told)
            self.add_callback(saving)
            self.add_callback(Epoch(self))
            self.train(resume_from_checkpoint=None if newest is None else str(newest))
            if saving.ended:  # perhaps another of several processes was told
                raise Terminated(saving.ended)

    def _trained_whole(self, checkpoint: Path) -> bool:
        """Take over a checkpoint of the last step, if it is one: transformers would begin another step where max_steps cuts an epoch."""
        position = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        if position.global_step < position.max_steps:
            return False
        self.state = position
        self._load_from_checkpoint(str(checkpoint))
        self._restore_callbacks()
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        return True

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        effective = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * world.size()
        self._order = ByLength(_lengths(dataset), effective, self.args.data_seed or 0)
        return self._order

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The loss of a micro-batch. Raises TrainingError when it is not finite."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if wrong := [value for value in of_all(loss.item()) if not math.isfinite(value)]:  # perhaps another process's: all stop as one
            self._stop("the loss", wrong[0])
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """The norm of the gradient, asked for before each optimizer step. Raises TrainingError when it is not finite."""
        norm = super()._get_grad_norm(*args, **kwargs)  # type: ignore[no-untyped-call]
        value = float(norm)
        if not math.isfinite(value) and not self.args.fp16:  # in float16 the scaler leaves such steps out, and tries a smaller scale
            self._stop("the norm of the gradient", value)
        return norm

    def _stop(self, what: str, value: float) -> NoReturn:
        step = self.state.global_step
        records = self._names(self._order.step(step))
        newest = of_all(self._kept.newest() if world.main_process() else None)[0]
        last = f"the last good checkpoint is {newest}" if newest else "there is no checkpoint before it"
        raise TrainingError(
            f"step {step + 1}: {what} is {value}, expected a finite number; no optimizer step was taken on it, and {last}. "
            f"Its records: {', '.join(records[:SHOWN])}{f' and {len(records) - SHOWN:,} more' if len(records) > SHOWN else ''}. "
            f"Look at them, lower learning_rate (it was {self.args.learning_rate:g}), "
            f"or raise warmup_ratio (it was {self.args.warmup_steps:g})"
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        drawn = of_all(generators())
        if not world.main_process():
            return
        named: Any = self.state.stateful_callbacks  # a dict, once the state is made
        named |= {type(callback).__name__: callback.state() for callback in self._stateful()}
        optimizer, schedule = self._trained_by()
        weights = {name: weight for name, weight in self._bare().named_parameters() if weight.requires_grad}
        scaler = self.accelerator.scaler
        state = {
            "weights": weights,
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "generators": drawn,
        }

        def write(folder: Path) -> None:
            checkpoints.write(folder, state)
            position = dataclasses.replace(self.state, log_history=[])  # Steps has what we need of it
            position.save_to_json(str(folder / TRAINER_STATE_NAME))

        self._kept.save(self.state.global_step, write)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._saved = checkpoints.read(Path(resume_from_checkpoint))
        weights = dict(self._bare().named_parameters())
        with torch.no_grad():
            for name, saved in self._saved["weights"].items():
                weights[name].copy_(saved)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        optimizer, schedule = self._trained_by()
        optimizer.load_state_dict(self._saved["optimizer"])
        schedule.load_state_dict(self._saved["schedule"])
        self._saved = {name: self._saved[name] for name in ("scaler", "generators")}  # the rest takes as much memory as the training
        self._restore_callbacks()

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self._saved["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(self._saved["scaler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.set_generators(self._saved["generators"][world.rank()])

    def _restore_callbacks(self) -> None:
        named: Any = self.state.stateful_callbacks
        for callback in self._stateful():
            for name, value in named[type(callback).__name__]["attributes"].items():
                setattr(callback, name, value)

    def _bare(self) -> torch.nn.Module:
        """The model without what distributed training puts round it, which changes the names of weights."""
        bare: torch.nn.Module = self.accelerator.unwrap_model(self.model)
        return bare

    def _trained_by(self) -> tuple[Any, Any]:
        """Optimizer and schedule, which are there once training has begun."""
        return self.optimizer, self.lr_scheduler

    def _stateful(self) -> list[Any]:
        return [callback for callback in self.callback_handler.callbacks if isinstance(callback, ExportableState)]


class Epoch(TrainerCallback):
    """Tells the order which epoch begins: accelerate's loader forgets to where it skips batches for one of several processes."""

    def __init__(self, trainer: Steady) -> None:
        self._trainer = trainer

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Set it; after a whole epoch `state.epoch` is a whole number."""
        self._trainer._order.set_epoch(int(state.epoch or 0))


def names(path: Path, rows: Sequence[Sequence[int]] | None) -> Callable[[Iterable[int]], list[str]]:
    """What names the records behind rows of a data set, when it is asked to.

    rows: the records that each row was packed from; None: row and record are one.
    """

    def named(wanted: Iterable[int]) -> list[str]:
        ids = table(path, ["id"])["id"]
        return [ids[record].as_py() for row in wanted for record in ([row] if rows is None else rows[row])]

    return named


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
