"""What a training stage leaves behind, and every way of loading it again."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from peft import PeftModel

from finetune import paths
from finetune.config.schema import Config, Model
from finetune.errors import ModelError
from finetune.models import adapters, loaders
from finetune.models.adapters import Tuned
from finetune.models.base import load_tokenizer
from finetune.training.seeding import seed_everything
from tests.conftest import composed

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(IDS).logits
    return found


def trained(cfg: Config) -> tuple[Any, Tuned]:
    """A model as after training: every trainable weight moved."""
    seed_everything(cfg.seed)
    model, tuned = adapters.for_training(cfg.model, cfg.train, cfg.seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.05)
    return model, tuned


def saved(cfg: Config, folder: Path = paths.TRAIN) -> Any:
    model, tuned = trained(cfg)
    adapters.save(folder, tuned, model, load_tokenizer(cfg.model), cfg.model)
    return model


@pytest.fixture
def lora(workspace: Path) -> Config:
    return composed("experiment=tiny", "train.r=4")


def test_an_adapter_is_saved_without_a_path_a_time_or_an_order_that_varies(lora: Config) -> None:
    saved(lora)
    assert sorted(file.name for file in paths.TRAIN.iterdir()) == ["adapter_config.json", "adapter_model.safetensors", "tuned.json"]
    text = (paths.TRAIN / "adapter_config.json").read_text()
    described = json.loads(text)
    assert described["base_model_name_or_path"] == "tiny"
    assert described["target_modules"] == sorted(described["target_modules"])
    assert described["r"] == 4
    assert str(Path.cwd()) not in text
    assert json.loads((paths.TRAIN / "tuned.json").read_text()) == {"method": "lora", "below": "base"}


def test_an_adapter_of_a_hub_model_names_its_repository_and_revision(lora: Config) -> None:
    model, tuned = trained(lora)
    hub = composed("model=qwen3_0_6b").model
    adapters.save(paths.TRAIN, tuned, model, load_tokenizer(lora.model), hub)
    described = json.loads((paths.TRAIN / "adapter_config.json").read_text())
    assert (described["base_model_name_or_path"], described["revision"]) == ("Qwen/Qwen3-0.6B", hub.revision)


@pytest.mark.parametrize("merge", [False, True])
def test_a_tuned_model_says_what_the_trained_one_said(lora: Config, merge: bool) -> None:
    expected = logits(saved(lora))
    again = adapters.load_tuned(lora.model, paths.TRAIN, merge=merge)
    assert isinstance(again, PeftModel) is not merge
    assert not again.training
    assert torch.allclose(logits(again), expected, atol=1e-5)
    assert not torch.allclose(logits(adapters.load_tuned(lora.model, None)), expected, atol=1e-2)


def test_full_weights_are_saved_with_their_tokenizer_and_loaded_as_they_were(workspace: Path) -> None:
    cfg = composed("experiment=tiny", "train=full", "train.num_train_epochs=1")
    expected = logits(saved(cfg))
    assert {"config.json", "model.safetensors", "tokenizer.json", "tuned.json"} <= {file.name for file in paths.TRAIN.iterdir()}
    assert str(workspace) not in (paths.TRAIN / "config.json").read_text()
    assert torch.equal(logits(adapters.load_tuned(cfg.model, paths.TRAIN)), expected)


def test_a_qlora_adapter_sits_on_four_bits_where_asked_and_on_the_whole_base_else(workspace: Path) -> None:
    cfg = composed("experiment=tiny", "train=qlora")
    expected = logits(saved(cfg))
    tuned = Tuned.of(paths.TRAIN)
    assert (tuned.method, tuned.four_bit) == ("qlora", True)
    quarter = adapters.load_tuned(cfg.model, paths.TRAIN, four_bit=True)
    assert isinstance(quarter, PeftModel), "never merged: rounding to 4 bits again would give a third model"
    assert torch.allclose(logits(quarter), expected, atol=1e-5)
    assert not torch.allclose(logits(adapters.load_tuned(cfg.model, paths.TRAIN)), expected, atol=1e-4)


@pytest.mark.parametrize("train", ["lora", "qlora"])
def test_dpo_trains_the_adapter_of_train_on_from_its_very_bytes(workspace: Path, train: str) -> None:
    cfg = composed("experiment=tiny", f"train={train}")
    before = {name: weight.clone() for name, weight in saved(cfg).named_parameters() if weight.requires_grad}
    model, tuned = adapters.for_preferences(cfg.model, paths.TRAIN, cfg.dpo, cfg.seed)
    after = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert tuned == Tuned(train, "base")  # type: ignore[arg-type]


def test_dpo_with_an_adapter_after_full_tuning_puts_a_new_one_on_the_trained_weights(workspace: Path) -> None:
    cfg = composed("experiment=tiny", "train=full", "dpo.r=4")
    expected = logits(saved(cfg))
    seed_everything(cfg.seed)
    model, tuned = adapters.for_preferences(cfg.model, paths.TRAIN, cfg.dpo, cfg.seed)
    assert torch.equal(logits(model), expected), "a new adapter changes nothing yet"
    assert tuned == Tuned("lora", "models/train")

    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.02)
    adapters.save(paths.DPO, tuned, model, load_tokenizer(cfg.model), cfg.model)
    assert torch.allclose(logits(adapters.load_tuned(cfg.model, paths.DPO)), logits(model), atol=1e-5)


def test_what_lies_on_fully_trained_weights_finds_them_in_float32_by_transformers_whatever_trains(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = composed("experiment=tiny", "train=full")
    saved(cfg)
    seed_everything(cfg.seed)
    model, tuned = adapters.for_preferences(cfg.model, paths.TRAIN, cfg.dpo, cfg.seed)
    adapters.save(paths.DPO, tuned, model, load_tokenizer(cfg.model), cfg.model)

    asked: list[tuple[str, bool]] = []

    def load(model: Model, folder: Path | None = None, *, four_bit: bool = False, full: bool = False) -> Any:
        asked.append((model.loader, full))
        return real(model, folder, four_bit=four_bit, full=full)

    real = loaders.load
    monkeypatch.setattr(loaders, "load", load)
    unsloth = cfg.model.model_copy(update={"loader": "unsloth", "dtype": "bfloat16"})
    for folder in (paths.TRAIN, paths.DPO):
        for merge in (False, True):
            assert adapters.load_tuned(unsloth, folder, merge=merge).dtype == torch.float32
    assert asked == [("transformers", True)] * 4


def test_dpo_and_what_it_is_measured_against_have_the_layers_of_the_loader(lora: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsloth's round elsewhere over 4 bits: with them on one side only, dpo's first margin was 0.1."""
    saved(lora)
    real, sped = loaders.load, Mock(side_effect=lambda adapted, _: adapted)
    monkeypatch.setattr(loaders, "load", lambda model, *words, **names: real(lora.model, *words, **names))
    monkeypatch.setattr(loaders, "unsloth_speed", sped)
    unsloth = lora.model.model_copy(update={"loader": "unsloth"})
    adapters.for_preferences(unsloth, paths.TRAIN, lora.dpo.model_copy(update={"gradient_checkpointing": True}), lora.seed)
    assert not adapters.load_tuned(unsloth, paths.TRAIN, merge=False).training
    assert [checkpointing for (_, checkpointing), _ in sped.call_args_list] == [True, False]
    adapters.load_tuned(unsloth, paths.TRAIN)
    assert sped.call_count == 2, "merged, it is evaluated by transformers"


def test_dpo_of_every_weight_starts_from_the_trained_weights(workspace: Path) -> None:
    cfg = composed("experiment=tiny", "train=full", "dpo=full")
    expected = logits(saved(cfg))
    model, tuned = adapters.for_preferences(cfg.model, paths.TRAIN, cfg.dpo, cfg.seed)
    assert torch.equal(logits(model), expected)
    assert all(weight.requires_grad for weight in model.parameters())
    assert tuned == Tuned("full", "base")


def test_dpo_of_every_weight_after_an_adapter_is_refused(lora: Config) -> None:
    saved(lora)
    full = composed("experiment=tiny", "train=full", "dpo=full").dpo
    with pytest.raises(ModelError, match=r"found full after train\.method=lora.*set dpo=lora"):
        adapters.for_preferences(lora.model, paths.TRAIN, full, lora.seed)


def test_a_folder_without_a_tuned_model_is_refused_with_the_command_that_makes_one(workspace: Path) -> None:
    with pytest.raises(ModelError, match=r"models/train: found no tuned\.json.*run `dvc repro`"):
        adapters.load_tuned(composed("model=tiny").model, paths.TRAIN)


def test_modules_by_name_get_an_adapter_and_no_others(workspace: Path) -> None:
    cfg = composed("experiment=tiny", "train.target_modules=[q_proj, v_proj]")
    model = adapters.attach(cfg.model, loaders.load(cfg.model), cfg.train, cfg.seed)  # type: ignore[arg-type]
    touched = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name, weight in model.named_parameters() if weight.requires_grad}
    assert touched == {"q_proj", "v_proj"}
