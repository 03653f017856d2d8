"""Our settings as TrainingArguments: each handed on, and every default of TRL that depends on the machine overruled."""

from pathlib import Path

import pytest
from trl import DPOConfig, SFTConfig

from finetune.config.schema import DpoAdapter, Lora
from finetune.training import settings
from tests.conftest import composed

OURS = {"method", "beta", "rpo_alpha", "max_steps", "warmup_ratio", "guards", "packing"}  # not handed on under their own names


def test_every_training_setting_is_handed_on(tmp_path: Path) -> None:
    cfg = composed("experiment=tiny")
    lora = {"r", "lora_alpha", "lora_dropout", "target_modules"}
    given = settings.arguments(cfg.model, cfg.train, 17, tmp_path)
    assert set(Lora.model_fields) - OURS - lora <= given.keys()
    assert set(DpoAdapter.model_fields) - OURS - lora <= given.keys()


@pytest.mark.parametrize(("dtype", "bf16", "fp16"), [("float32", False, False), ("bfloat16", True, False), ("float16", False, True)])
def test_the_arithmetic_is_that_of_model_dtype(tmp_path: Path, dtype: str, bf16: bool, fp16: bool) -> None:
    cfg = composed("experiment=tiny", f"model.dtype={dtype}")
    given = settings.arguments(cfg.model, cfg.train, 17, tmp_path)
    assert (given["bf16"], given["fp16"]) == (bf16, fp16)


def test_trl_takes_them_and_reports_to_no_one_and_saves_nothing(tmp_path: Path) -> None:
    cfg = composed("experiment=tiny", "train.max_steps=3", "train.warmup_ratio=0.2")
    sft = SFTConfig(**settings.arguments(cfg.model, cfg.train, 17, tmp_path))
    dpo = DPOConfig(**settings.arguments(cfg.model, cfg.dpo, 17, tmp_path))
    for config in (sft, dpo):
        assert config.device.type == "cpu"
        assert config.report_to == []
        assert config.save_strategy == "no"
        assert not config.bf16
        assert not config.gradient_checkpointing
        assert config.max_length is None
    assert sft.max_steps == 3
    assert sft.get_warmup_steps(100) == 20
    assert dpo.max_steps == -1


@pytest.mark.parametrize(("processes", "backend"), [("1", None), ("2", "gloo")])
def test_several_processes_on_cpus_talk_through_gloo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: str, backend: str | None
) -> None:
    monkeypatch.setenv("WORLD_SIZE", processes)
    cfg = composed("experiment=tiny")
    assert settings.arguments(cfg.model, cfg.train, 17, tmp_path)["ddp_backend"] == backend
