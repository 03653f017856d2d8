"""A manifest says what is in an export and what it was made from, by hashes."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file

from finetune.exporting import manifest
from finetune.models.adapters import Tuned
from tests.conftest import composed


def test_every_file_has_its_hash_and_size(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "two.bin").write_bytes(b"two")
    (tmp_path / "one.txt").write_bytes(b"")
    assert manifest.files(tmp_path) == {
        "b/c/two.bin": {"sha256": hashlib.sha256(b"two").hexdigest(), "bytes": 3},
        "one.txt": {"sha256": hashlib.sha256(b"").hexdigest(), "bytes": 0},
    }


def test_parameters_are_counted_over_all_shards(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(())}, tmp_path / "model-1.safetensors")
    save_file({"c": torch.zeros(5, dtype=torch.bfloat16)}, tmp_path / "model-2.safetensors")
    assert manifest.parameters(tmp_path) == 12 + 1 + 5


def test_it_names_the_base_model_the_data_and_every_setting_that_decided_the_model(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.parquet").write_bytes(b"rows")
    (tmp_path / "out").mkdir()
    cfg = composed("train.r=4", "seed=3")
    found = manifest.describe(cfg, Tuned("lora", "base"), {"adapter": 7}, tmp_path / "out", tmp_path / "data")
    assert found["base_model"]["revision"] == cfg.model.revision
    assert found["base_model"]["sha256"] == cfg.model.sha256
    assert list(found["data"].values()) == [hashlib.sha256(b"rows").hexdigest()]
    assert (found["seed"], found["settings"]["train"]["r"], found["parameters"], found["method"]) == (3, 4, {"adapter": 7}, "lora")
    assert not {"threads", "instructions", "tracking", "launch", "conf_sha"} & set(found["settings"])
