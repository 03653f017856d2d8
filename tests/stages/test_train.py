"""The stage train: formatted records and a base model in; a tuned model and every step's numbers out."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune import paths
from finetune.errors import ModelError, OutputError
from finetune.models import adapters
from finetune.models.adapters import Tuned
from stages import train
from tests.conftest import composed
from tests.tokens import write_formatted


@pytest.fixture
def formatted(workspace: Path) -> Path:
    return write_formatted(paths.FORMATTED)


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_every_method_learns_and_leaves_a_model_that_can_be_loaded(formatted: Path, method: str) -> None:
    cfg = composed("experiment=tiny", f"train={method}", "train.num_train_epochs=4", "train.learning_rate=0.01")
    train.main(cfg)
    report = json.loads(paths.metrics("train").read_text())
    assert Tuned.of(paths.TRAIN) == Tuned(method, "base")  # type: ignore[arg-type]
    assert report["steps_total"] == len(report["steps"]) == 12
    assert report["steps"][-1]["loss"] < report["steps"][0]["loss"]
    assert adapters.load_tuned(cfg.model, paths.TRAIN).dtype == torch.float32
    assert not list(Path.cwd().glob("trainer_output")), "no stray files"


def test_the_report_has_what_the_metrics_are_read_from(formatted: Path) -> None:
    train.main(composed("experiment=tiny"))
    report = json.loads(paths.metrics("train").read_text())
    assert report["records"] == 24
    assert report["world_size"] == 1
    assert report["supervised_tokens"] > 0
    assert 0 < report["trainable_parameters"] < report["parameters"]
    assert 4 < report["validation_loss"] < 8  # ln 512 is 6.2
    assert set(report["steps"][0]) == {"step", "epoch", "loss", "learning_rate", "grad_norm"}


def test_packed_records_train_in_fewer_steps_and_the_fill_is_reported(formatted: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        train.main(composed("experiment=tiny", "train.packing=true"))
    report = json.loads(paths.metrics("train").read_text())
    packed = report["packing"]
    assert report["records"] == 24
    assert packed["rows"] < 24
    assert packed["records_per_row"] == 24 / packed["rows"]
    assert 0 < packed["fill"] <= 1
    assert "packed 24 records into" in caplog.text

    train.main(composed("experiment=tiny"))
    unpacked = json.loads(paths.metrics("train").read_text())
    assert "packing" not in unpacked
    assert unpacked["steps_total"] >= report["steps_total"]
    assert unpacked["supervised_tokens"] == report["supervised_tokens"]


def test_each_layer_has_an_adapter_that_moved(formatted: Path) -> None:
    train.main(composed("experiment=tiny"))
    weights = load_file(paths.TRAIN / adapters.WEIGHTS)
    assert len(weights) == 2 * 7 * 2  # layers × linear modules × A and B
    assert all(weight.abs().sum() > 0 for weight in weights.values())


def test_a_small_last_batch_and_a_data_set_of_one_record_train(workspace: Path) -> None:
    write_formatted(paths.FORMATTED, records=1)
    train.main(composed("experiment=tiny"))
    assert json.loads(paths.metrics("train").read_text())["steps_total"] == 1


def test_a_full_disk_leaves_no_half_model(formatted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(adapters, "save_file", full)
    with pytest.raises(OutputError, match="models/train: the disk is full"):
        train.main(composed("experiment=tiny"))
    assert not list(Path("models").rglob("*"))
    assert not paths.metrics("train").exists()


def test_ctrl_c_while_training_leaves_nothing_and_the_same_command_then_works(formatted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune.training.trainers import Steady

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Steady, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.main(composed("experiment=tiny"))
    assert not Path("models").exists()
    train.main(composed("experiment=tiny"))
    assert (paths.TRAIN / adapters.WEIGHTS).is_file()


def test_a_device_that_is_not_there_is_refused_before_anything_loads(formatted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"model\.device: found no CUDA device"):
        train.main(composed("experiment=tiny", "model.device=cuda"))
