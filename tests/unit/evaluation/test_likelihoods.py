"""Rows of likelihoods: sums over what is supervised, and no number that isn't one."""

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.errors import ModelError
from finetune.evaluation import likelihoods

RECORDS = [
    {"id": "a", "slice": "seen", "input_ids": [1, 50, 51, 52, 2], "labels": [-100, -100, 51, 52, 2]},
    {"id": "b", "slice": "all", "input_ids": [60, 61], "labels": [-100, 61]},
]
PAIRS = [{"id": "p", "slice": "seen", "prompt_ids": [1, 50], "chosen_ids": [51, 52, 2], "rejected_ids": [61, 2]}]


@torch.inference_mode()
def logp(model: PreTrainedModel, prompt: list[int], answer: list[int]) -> float:
    logps = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return sum(float(logps[len(prompt) + place - 1, token]) for place, token in enumerate(answer))


def test_records_give_sums_tokens_and_bytes(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    first, second = likelihoods.of_records(model, tokenizer, RECORDS, 8, torch.float32, kind="validation_4bit")
    text = str(tokenizer.decode([51, 52]))
    assert first == {"kind": "validation_4bit", "id": "a", "slice": "seen", "logp": first["logp"], "tokens": 3, "bytes": len(text.encode())}
    assert first["logp"] == pytest.approx(logp(model, [1, 50], [51, 52, 2]), abs=1e-4)
    assert second["logp"] == pytest.approx(logp(model, [60], [61]), abs=1e-4)


def test_pairs_give_the_sums_of_both_answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    (row,) = likelihoods.of_pairs(model, tokenizer, PAIRS, 8, torch.float32)
    assert list(row) == ["kind", "id", "slice", "chosen", "rejected"]
    assert row["chosen"] == pytest.approx(logp(model, [1, 50], [51, 52, 2]), abs=1e-4)
    assert row["rejected"] == pytest.approx(logp(model, [1, 50], [61, 2]), abs=1e-4)


def test_spoilt_weights_are_refused(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    next(model.parameters()).data.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"record a: found a log-probability of nan, expected a finite one; .*learning_rate"):
        likelihoods.of_records(model, tokenizer, RECORDS, 8, torch.float32)
    with pytest.raises(ModelError, match="record p: found a log-probability of nan"):
        likelihoods.of_pairs(model, tokenizer, PAIRS, 8, torch.float32)
