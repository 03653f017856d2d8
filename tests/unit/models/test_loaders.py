"""Weights in memory: on the device and in the type that were asked for, or refused with what would work."""

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.config.schema import Model
from finetune.errors import ModelError
from finetune.models import adapters, loaders
from tests.conftest import ROOT, composed

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def model(**changes: Any) -> Model:
    return composed("model=tiny").model.model_copy(update=changes)


def test_a_device_that_is_not_there_is_refused_with_what_would_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"found no CUDA device.*model\.device=cpu"):
        loaders.load(model(device="cuda"))


def test_unsloth_is_refused_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"unsloth is not installed.*requirements-gpu\.lock"):
        loaders.load(model(device="cuda", loader="unsloth"))


def test_one_module_alone_imports_unsloth() -> None:
    importers = set()
    files = [*(ROOT / "finetune").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
            if any(name.split(".")[0] == "unsloth" for name in names):
                importers.add(file.relative_to(ROOT).as_posix())
    assert len(files) > 30
    assert importers == {"finetune/models/loaders.py"}


def test_a_model_is_loaded_in_its_type_and_ready_to_evaluate(workspace: Path) -> None:
    assert loaders.load(model()).dtype == torch.float32
    half = loaders.load(model(dtype="bfloat16"))
    assert half.dtype == torch.bfloat16
    assert not half.training


def test_weights_that_will_be_trained_are_float32_whatever_the_type(workspace: Path) -> None:
    assert loaders.load(model(dtype="bfloat16"), full=True).dtype == torch.float32


def test_four_bits_on_a_cpu_are_nf4_computed_in_float32_and_near_the_base(workspace: Path) -> None:
    whole, quarter = loaders.load(model()), loaders.load(model(), four_bit=True)
    layer = quarter.model.layers[0].mlp.up_proj
    assert layer.weight.quant_state.quant_type == "nf4"
    assert layer.weight.quant_state.nested
    assert layer.compute_dtype == torch.float32
    with torch.no_grad():
        apart = (whole(IDS).logits - quarter(IDS).logits).abs().max()
    assert 0 < apart < 0.5


def test_four_bits_keep_their_gradient_after_an_evaluation_on_any_cpu(workspace: Path) -> None:
    cfg = composed("experiment=tiny")
    adapted = adapters.attach(cfg.model, loaders.load(cfg.model, four_bit=True), cfg.train, cfg.seed)  # type: ignore[arg-type]

    def gradients() -> list[torch.Tensor]:
        adapted.zero_grad()
        adapted.train()(IDS, labels=IDS).loss.backward()
        return [weight.grad.clone() for weight in adapted.parameters() if weight.grad is not None]

    before = gradients()
    with torch.no_grad():
        adapted.eval()(IDS)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(gradients(), before, strict=True))
    assert any(gradient.abs().sum() > 0 for gradient in before)
