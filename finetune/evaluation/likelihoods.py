"""How likely a model finds what it should say: rows of reports/likelihoods/<model>.jsonl."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.checkpoints.journal import Items, nowhere
from finetune.errors import ModelError
from finetune.models.scoring import IGNORED, label_logps, labelled

Row = dict[str, Any]


def of_records(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Row],
    batch_size: int,
    arithmetic: torch.dtype,
    kind: str = "validation",
    kept: Callable[[str], Items] = nowhere,
) -> list[Row]:
    """A row for each record: log-probability of its supervised tokens, how many they are, and the bytes of their text.

    kept: where results are kept for a stage that dies, by a name.

    Raises:
        ModelError: a log-probability is not a finite number.
    """
    pairs = [(record["input_ids"], record["labels"]) for record in records]
    logps = label_logps(model, pairs, batch_size, tokenizer.pad_token_id, f"scoring {kind} records", arithmetic, kept(kind)).tolist()
    _check(logps, records)
    rows = []
    for record, logp in zip(records, logps, strict=True):
        supervised = [label for label in record["labels"] if label != IGNORED]
        text = str(tokenizer.decode(supervised, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        place = {"kind": kind, "id": record["id"], "slice": record["slice"]}
        rows.append({**place, "logp": logp, "tokens": len(supervised), "bytes": len(text.encode())})
    return rows


def of_pairs(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Row],
    batch_size: int,
    arithmetic: torch.dtype,
    kept: Callable[[str], Items] = nowhere,
) -> list[Row]:
    """A row for each preference pair: log-probability of both answers. Raises ModelError as above."""
    logps = {}
    for side in ("chosen", "rejected"):
        rows = [labelled(pair["prompt_ids"], pair[f"{side}_ids"]) for pair in pairs]
        doing, pad_id = f"scoring {side} answers", tokenizer.pad_token_id
        logps[side] = label_logps(model, rows, batch_size, pad_id, doing, arithmetic, kept(side)).tolist()
        _check(logps[side], pairs)
    return [
        {"kind": "preference", "id": pair["id"], "slice": pair["slice"], "chosen": chosen, "rejected": rejected}
        for pair, chosen, rejected in zip(pairs, logps["chosen"], logps["rejected"], strict=True)
    ]


def _check(logps: Sequence[float], records: Sequence[Row]) -> None:
    """Refuse a model whose numbers are spoilt: weights that are not finite, or a type too small for them."""
    for logp, record in zip(logps, records, strict=True):
        if not math.isfinite(logp):
            found = f"record {record['id']}: found a log-probability of {logp}, expected a finite one"
            raise ModelError(f"{found}; train it again with a lower learning_rate, or set model.dtype=float32")
