"""Supervised fine-tuning on TRL's SFTTrainer, from token ids and labels that the stage format has written.

Import this after the model is loaded: Unsloth rewrites trl's trainers, and must come first.
"""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from finetune.checkpoints.journal import Items
from finetune.config.schema import Full, Lora, Model
from finetune.models.scoring import IGNORED, first_learned, label_logps
from finetune.training import packing, settings
from finetune.training.steps import Steps
from finetune.training.trainers import Steady, kept_in_float32, quiet

COLUMNS = ["input_ids", "labels"]


class Supervised(Steady, SFTTrainer):
    """SFTTrainer whose loss is that of supervised positions alone, which are also the only ones projected to the vocabulary.

    On a GPU that is TRL's own loss, in chunks of 256 positions that the backward pass computes again, which bounds the memory. On a CPU
    the same loss without chunks: short records have fewer positions than a chunk, and filling it up, computing it twice and measuring
    its entropy took 0.85 of the 3.0 seconds of a step.
    """

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean over the supervised tokens of the effective batch, of all processes."""
        if not self.args.use_cpu:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[no-untyped-call]
        labels = inputs["labels"]
        first = first_learned(labels)
        context = {name: inputs[name] for name in ("attention_mask", "position_ids") if name in inputs}
        # columns by their numbers, so that they are copied out: of a slice the vocabulary's matrix would be read once a record, and the
        # gradient of a slice of the logits would be filled up with zeros; together a tenth of a step
        kept = torch.arange(first - 1, labels.shape[1] - 1, device=labels.device)
        outputs = model(input_ids=inputs["input_ids"], **context, use_cache=False, logits_to_keep=kept)
        learned = labels[:, first:].flatten()
        total = cross_entropy(outputs.logits.flatten(0, 1).float(), learned, ignore_index=IGNORED, reduction="sum")
        # the gradients of several processes are averaged, while num_items_in_batch counts the tokens of all
        counted = (learned != IGNORED).sum()
        loss = total / counted if num_items_in_batch is None else total / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


def trainer(
    trained: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Dataset,
    model: Model,
    train: Lora | Full,
    seed: int,
    steps: Steps,
    scratch: Path,
) -> Supervised:
    """Return a trainer that is ready to train. records: packed rows, where train.packing says so."""
    arguments = SFTConfig(
        **settings.arguments(model, train, seed, scratch),
        dataset_kwargs={"skip_prepare_dataset": True},  # tokenised and masked already
    )
    with kept_in_float32(trained):
        built = Supervised(model=trained, args=arguments, train_dataset=records, processing_class=tokenizer, callbacks=[steps])
    if train.packing:
        built.data_collator = packing.collator(tokenizer.pad_token_id)  # not above, where TRL would leave the model's own padding alone
    quiet(built)
    return built


def validation_loss(
    trained: PreTrainedModel | PeftModel,
    records: Dataset,
    batch_size: int,
    pad_id: int,
    arithmetic: torch.dtype,
    items: Items | None = None,
) -> float:
    """Return the mean loss over all supervised tokens of the records, computed as in training; a mean of batches weighs short ones more."""
    rows = list(zip(records["input_ids"], records["labels"], strict=True))
    logps = label_logps(trained, rows, batch_size, pad_id, "validating", arithmetic, items)
    return -float(logps.double().sum()) / supervised_tokens(records)


def supervised_tokens(records: Dataset) -> int:
    """Return the number of tokens that are learned."""
    return sum(label != IGNORED for labels in records["labels"] for label in labels)
