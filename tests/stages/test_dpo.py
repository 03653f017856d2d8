"""The stage dpo: starts from the bytes of models/train, is measured against them, and stops when it isn't."""

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from finetune import paths
from finetune.errors import ModelError, TrainingError
from finetune.models import adapters
from finetune.models.adapters import Tuned
from stages import dpo, reference, train
from tests.conftest import composed
from tests.tokens import write_formatted

TABLE = paths.REFERENCE / "train.parquet"


def until_dpo(*overrides: str) -> Any:
    write_formatted(paths.FORMATTED)
    cfg = composed("experiment=tiny", *overrides)
    train.main(cfg)
    reference.main(cfg)
    return cfg


@pytest.mark.parametrize(
    ("overrides", "tuned"),
    [
        (["train=lora"], Tuned("lora", "base")),
        (["train=qlora"], Tuned("qlora", "base")),
        (["train=full"], Tuned("lora", "models/train")),
        (["train=full", "dpo=full"], Tuned("full", "base")),
    ],
)
def test_the_first_loss_is_ln_2_after_every_kind_of_training_and_the_margin_grows(
    workspace: Path, overrides: list[str], tuned: Tuned
) -> None:
    cfg = until_dpo(*overrides, "dpo.learning_rate=0.005", "dpo.num_train_epochs=4")
    dpo.main(cfg)
    report = json.loads(paths.metrics("dpo").read_text())
    assert Tuned.of(paths.DPO) == tuned
    assert report["first"]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert report["first"]["margin"] == pytest.approx(0, abs=1e-5)
    assert report["steps"][0]["dpo_loss"] == pytest.approx(math.log(2), abs=1e-5)
    for step in report["steps"]:
        assert step["loss"] == pytest.approx(step["dpo_loss"] + cfg.dpo.rpo_alpha * step["nll"], abs=1e-5)
    assert report["steps"][-1]["margin"] > 0.01
    assert report["steps_total"] == len(report["steps"]) == 8
    assert (report["beta"], report["pairs"], report["world_size"]) == (cfg.dpo.beta, 16, 1)
    assert adapters.load_tuned(cfg.model, paths.DPO).dtype == torch.float32


@pytest.mark.parametrize("method", ["lora", "full"])
def test_after_full_tuning_in_16_bits_reference_and_policy_are_one_model_and_little_steps_are_kept(workspace: Path, method: str) -> None:
    cfg = until_dpo("train=full", f"dpo={method}", "model.dtype=bfloat16", "train.learning_rate=0.01")
    dpo.main(cfg)
    report = json.loads(paths.metrics("dpo").read_text())
    assert abs(report["first"]["margin"]) < 1e-4  # a reference in 16 bits all through put it at 4e-4
    before, after = (adapters.load_tuned(cfg.model, folder).state_dict() for folder in (paths.TRAIN, paths.DPO))
    moved = torch.cat([(before[name] != after[name]).flatten() for name in before if name.endswith("proj.weight")])
    assert moved.float().mean() > 0.9  # rounded to bfloat16, most weights would be where they were


def test_without_rpo_alpha_it_is_plain_dpo(workspace: Path) -> None:
    dpo.main(until_dpo("dpo.rpo_alpha=0"))
    report = json.loads(paths.metrics("dpo").read_text())
    assert report["steps"][0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert report["steps"][0]["nll"] > 1


def test_rpo_alpha_keeps_the_chosen_answers_likely(workspace: Path) -> None:
    cfg = until_dpo("dpo.learning_rate=0.005", "dpo.num_train_epochs=4")
    losses = {}
    for alpha in (0.0, 1.0):
        dpo.main(cfg.model_copy(update={"dpo": cfg.dpo.model_copy(update={"rpo_alpha": alpha})}))
        losses[alpha] = [step["nll"] for step in json.loads(paths.metrics("dpo").read_text())["steps"]]
    assert losses[1.0][0] == losses[0.0][0]
    assert losses[1.0][-1] < losses[0.0][-1]


def test_every_layer_of_the_adapter_moves_away_from_train(workspace: Path) -> None:
    dpo.main(until_dpo())
    before, after = (load_file(folder / adapters.WEIGHTS) for folder in (paths.TRAIN, paths.DPO))
    assert before.keys() == after.keys(), "the frozen copy is not saved beside it"
    assert all(not torch.equal(before[name], after[name]) for name in before)


def corrupt_all(table: pa.Table) -> pa.Table:
    moved = [[value + 0.5 for value in table["ref_chosen_logps"].to_pylist()]]
    return table.set_column(table.column_names.index("ref_chosen_logps"), "ref_chosen_logps", moved)


def swap(table: pa.Table) -> pa.Table:
    return table.rename_columns([*table.column_names[:-2], "ref_rejected_logps", "ref_chosen_logps"])


@pytest.mark.parametrize("corrupt", [corrupt_all, swap])
def test_a_reference_of_another_model_stops_it_before_the_first_update(workspace: Path, corrupt: Any) -> None:
    cfg = until_dpo()
    pq.write_table(corrupt(pq.read_table(TABLE)), TABLE)
    with pytest.raises(TrainingError, match=r"before the first update the loss is \d+\.\d{7} and the margin .*run `dvc repro`"):
        dpo.main(cfg)
    assert not paths.DPO.exists()


def test_a_trained_model_that_is_not_the_references_stops_it(workspace: Path) -> None:
    cfg = until_dpo()
    train.main(composed("experiment=tiny", "seed=99"))
    with pytest.raises(TrainingError, match="data/reference is not that of models/train"):
        dpo.main(cfg)


def test_the_first_batch_is_checked_without_dropout_and_trained_with_it(workspace: Path) -> None:
    cfg = until_dpo("train.lora_dropout=0.5", "dpo.learning_rate=0.001")
    dpo.main(cfg)
    report = json.loads(paths.metrics("dpo").read_text())
    assert report["first"]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert abs(report["steps"][0]["margin"]) > 1e-4


def unordered(*_: object, **__: object) -> None:
    torch.zeros(1).put_(torch.tensor([0]), torch.ones(1))


@pytest.mark.parametrize(
    ("stage", "place"),
    [
        (train, "finetune.training.steps.Steps.on_step_begin"),
        (train, "finetune.training.supervised.validation_loss"),
        (reference, "finetune.models.scoring._batch"),
        (dpo, "finetune.training.preference.Preference.first"),
        (dpo, "finetune.training.steps.Steps.on_step_begin"),
    ],
)
def test_an_operation_that_adds_in_any_order_stops_what_trains_and_what_scores_for_it(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, stage: ModuleType, place: str
) -> None:
    cfg = until_dpo()
    monkeypatch.setattr(place, unordered)
    with pytest.raises(TrainingError, match=r"^found put_, an operation that adds in another order each time"):
        stage.main(cfg)


def test_training_every_weight_after_an_adapter_is_refused(workspace: Path) -> None:
    cfg = until_dpo()
    full = composed("experiment=tiny", "train=full", "dpo=full")
    with pytest.raises(ModelError, match=r"dpo\.method: found full after train\.method=lora"):
        dpo.main(full)
    assert cfg.dpo.method == "lora"


def test_another_beta_needs_no_other_reference(workspace: Path) -> None:
    until_dpo()
    dpo.main(composed("experiment=tiny", "dpo.beta=0.3"))
    report = json.loads(paths.metrics("dpo").read_text())
    assert report["beta"] == 0.3
    assert report["first"]["loss"] == pytest.approx(math.log(2), abs=1e-5)
