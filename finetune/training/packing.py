"""Several records in one row, so that little is padding: first-fit decreasing, positions restarted, no attention across records.

Import this after the model is loaded, as finetune.training.supervised.
The plan is our own: TRL's pack_dataset packs each thousand records by themselves, cuts what is longer than a row without a word, and takes
the best fit. Its collator makes ids, labels and positions; its padding-free batch is one row, whose attention costs the square of the
whole batch where no flash attention is installed. transformers (masking_utils) makes the mask: where a batch has positions and no
attention_mask, and no cache is used, each restart of the positions begins a block that sees itself alone, in each row of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from peft import PeftModel
from transformers import PreTrainedModel
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from finetune.errors import TrainingError
from finetune.models.scoring import IGNORED

EXACT, ROUNDED = 1e-3, 0.05  # how far logits may move, as a share of their norm, in float32 and in 16 or 4 bits; mixed records move 0.1


@dataclass(frozen=True)
class Plan:
    """Which records share a row."""

    rows: list[list[int]]
    """Places of the records, the longest first."""
    tokens: int
    """Of all records."""
    max_length: int
    """Tokens that a row has room for."""

    def report(self) -> dict[str, float]:
        """fill: share of the rows' room that is taken."""
        count, records = len(self.rows), sum(map(len, self.rows))
        return {"rows": count, "records_per_row": records / count, "fill": self.tokens / (count * self.max_length)}

    def __str__(self) -> str:
        """`packed 500 records into 98 rows of at most 256 tokens: 5.1 a row, 97.2 % full`."""
        report = self.report()
        return (
            f"packed {sum(map(len, self.rows)):,} records into {len(self.rows):,} rows of at most {self.max_length:,} tokens: "
            f"{report['records_per_row']:.1f} a row, {report['fill']:.1%} full"
        )


def plan(lengths: Sequence[int], max_length: int) -> Plan:
    """Pack by first-fit decreasing: the longest record first, each into the first row with room; of equal lengths the earlier first.

    Records of one length are placed at once: each row in turn takes as many as fit, which is where first fit puts them one by one.

    Raises:
        TrainingError: a record is longer than a row.
    """
    if max(lengths) > max_length:
        raise TrainingError(
            f"train.max_length: found {max_length}, expected at least the {max(lengths)} tokens of the longest record, "
            "which packing never cuts; raise it, or run `dvc repro`"
        )
    sizes = np.asarray(lengths, dtype=np.int64)
    by_size = np.argsort(-sizes, kind="stable")
    rows: list[list[int]] = []
    free = np.empty(0, dtype=np.int64)
    for same in np.split(by_size, np.flatnonzero(np.diff(sizes[by_size])) + 1):
        size = int(sizes[same[0]])
        missing = len(same) - int((free // size).sum())
        opened = max(0, -(-missing // (max_length // size)))
        free = np.append(free, np.full(opened, max_length))
        rows += [[] for _ in range(opened)]
        chosen = np.repeat(np.arange(len(free)), free // size)[: len(same)]
        free -= size * np.bincount(chosen, minlength=len(free))
        for row, record in zip(chosen.tolist(), same.tolist(), strict=True):
            rows[row].append(record)
    return Plan(rows, int(sizes.sum()), max_length)


def pack(records: Dataset, planned: Plan) -> Dataset:
    """Return the rows: input_ids, labels, and in seq_lengths the length of each record, as TRL's collator reads it."""
    taken = records.data.table.take([record for row in planned.rows for record in row]).combine_chunks()
    lengths = np.diff(taken["input_ids"].chunk(0).offsets)
    ends = np.cumsum([0, *map(len, planned.rows)], dtype=np.int32)  # of the rows, in records
    tokens = np.concatenate([[0], np.cumsum(lengths)])[ends].astype(np.int32)  # the same, in tokens
    columns = {name: pa.ListArray.from_arrays(tokens, taken[name].chunk(0).flatten()) for name in ("input_ids", "labels")}
    return Dataset(InMemoryTable(pa.table(columns | {"seq_lengths": pa.ListArray.from_arrays(ends, lengths.astype(np.int32))})))


class Collator(DataCollatorForLanguageModeling):
    """input_ids, labels and position_ids of rows, padded on the right; each token of the padding is a block of its own.

    Without attention_mask, which would keep transformers from looking at the positions. A record's first token is nobody's target: the
    token before it belongs to another.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch of some rows."""
        batch: dict[str, torch.Tensor] = super().torch_call(examples)
        del batch["attention_mask"]
        batch["labels"][batch["position_ids"] == 0] = IGNORED
        return batch


def collator(pad_id: int) -> Collator:
    """Return what makes batches of packed rows."""
    return Collator(pad_token_id=pad_id, return_position_ids=True)


def refuse_mixing(model: PreTrainedModel | PeftModel, rows: Dataset, arithmetic: torch.dtype) -> None:
    """Refuse a model that tells a record after another one from the same record alone: it attends across, or counts positions on.

    Which models do can't be read off their settings: recurrent layers carry a state over, and older attention makes its own mask.
    So the last record of the first row that has several is tried both ways, before anything is trained.

    Raises:
        TrainingError: the logits differ by more than rounding.
    """
    row = next((row for row in rows if len(row["seq_lengths"]) > 1), None)
    if row is None:
        return
    *_, last = row["seq_lengths"]
    alone = {"input_ids": row["input_ids"][-last:], "labels": row["labels"][-last:], "seq_lengths": [last]}
    together, by_itself = (_logits(model, example, arithmetic)[-last:] for example in (row, alone))
    moved = float((together - by_itself).norm() / by_itself.norm())
    allowed = EXACT if arithmetic == torch.float32 and not getattr(model, "is_loaded_in_4bit", False) else ROUNDED
    if not moved <= allowed:
        raise TrainingError(
            f"train.packing: found a model ({model.config.model_type}) whose logits of a record move by {moved:.2g} of their norm when "
            f"another stands before it in the row, expected at most {allowed:g}: it would learn across records; set train.packing=false"
        )


@torch.inference_mode()
def _logits(model: PreTrainedModel | PeftModel, row: dict[str, Any], arithmetic: torch.dtype) -> torch.Tensor:
    """Return the logits of one row; tokens × vocabulary, float32."""
    batch = collator(0)([row])
    model.eval()
    with torch.autocast(model.device.type, dtype=arithmetic, enabled=arithmetic != torch.float32):
        given = {name: batch[name].to(model.device) for name in ("input_ids", "position_ids")}
        logits: torch.Tensor = model(**given, use_cache=False).logits[0]
    return logits.float()
