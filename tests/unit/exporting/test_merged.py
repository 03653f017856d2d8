"""Merged weights load without this project and say what the tuned model says, or are refused."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from finetune.config.schema import Config
from finetune.errors import ModelError
from finetune.exporting import merged
from finetune.models import loaders
from finetune.models.base import load_tokenizer
from tests.conftest import composed

ROWS = [[1, 40, 41, 42, 2], [1, 60, 2]]


@pytest.fixture
def cfg(workspace: Path) -> Config:
    return composed("experiment=tiny")


@pytest.fixture
def model(cfg: Config) -> PreTrainedModel:
    return loaders.load(cfg.model)


def save(model: PreTrainedModel, cfg: Config, folder: Path, ends: list[int] | None = None) -> None:
    merged.save(model, load_tokenizer(cfg.model), ends or [2], folder, cfg.export)


def test_saved_weights_say_the_same(model: PreTrainedModel, cfg: Config, tmp_path: Path) -> None:
    expected = merged.logits(model, ROWS)
    assert [tuple(one.shape) for one in expected] == [(5, 512), (3, 512)]
    save(model, cfg, tmp_path)
    assert merged.difference(tmp_path, cfg.model, torch.float32, ROWS, expected) < 1e-6


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_smaller_type_is_within_its_own_tolerance(model: PreTrainedModel, dtype: str, tmp_path: Path) -> None:
    cfg = composed("experiment=tiny", f"export.dtype={dtype}")
    expected = merged.logits(model, ROWS)
    save(model, cfg, tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").dtype == getattr(torch, dtype)
    assert 0 < merged.difference(tmp_path, cfg.model, torch.float32, ROWS, expected) < 0.1


def test_the_coarser_of_both_types_says_how_far_a_logit_may_move(model: PreTrainedModel, cfg: Config, tmp_path: Path) -> None:
    expected = [one * 1.01 for one in merged.logits(model, ROWS)]
    save(model, cfg, tmp_path)
    assert merged.difference(tmp_path, cfg.model, torch.bfloat16, ROWS, expected) > 0
    with pytest.raises(ModelError, match=r"models/export/merged: found a logit .* expected at most .*set export\.dtype=float32"):
        merged.difference(tmp_path, cfg.model, torch.float32, ROWS, expected)


@pytest.mark.parametrize("spoil", [1.05, float("nan")])
def test_weights_that_say_something_else_are_refused(model: PreTrainedModel, cfg: Config, spoil: float, tmp_path: Path) -> None:
    expected = merged.logits(model, ROWS)
    next(model.model.layers[1].mlp.parameters()).data.mul_(spoil)
    save(model, cfg, tmp_path)
    with pytest.raises(ModelError, match="found a logit"):
        merged.difference(tmp_path, cfg.model, torch.float32, ROWS, expected)


def test_the_saved_model_stops_where_the_answers_of_its_training_stop(model: PreTrainedModel, cfg: Config, tmp_path: Path) -> None:
    save(model, cfg, tmp_path, ends=[2, 7])
    assert AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.eos_token_id == [2, 7]


def test_large_weights_are_cut_into_files(model: PreTrainedModel, tmp_path: Path) -> None:
    cfg = composed("experiment=tiny", "export.max_shard_size=1MB")
    model.resize_token_embeddings(6000)
    save(model, cfg, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert all(file.stat().st_size < 2_000_000 for file in tmp_path.glob("*.safetensors"))
