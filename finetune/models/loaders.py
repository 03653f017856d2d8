"""Weights in memory: by transformers, or by Unsloth on CUDA. The only module that imports unsloth.

Unsloth rewrites trl's trainers as it is imported, so a stage loads its model first and imports trl's trainers after that.
What is trained is always float32, adapter or full weights; `model.dtype` is the type of the base model's weights, and of the arithmetic.
"""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from finetune import paths
from finetune.config.schema import Model
from finetune.errors import ModelError
from finetune.models.base import fetch
from finetune.training import world

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel


def load(model: Model, folder: Path | None = None, *, four_bit: bool = False, full: bool = False) -> PreTrainedModel:
    """Return the base model, or the one in `folder`, on its device and ready to evaluate.

    four_bit: linear layers as nf4 with double quantisation. full: every weight will be trained, so float32 whatever model.dtype is.

    Raises:
        ModelError: model.device=cuda and there is none; model.loader=unsloth and it isn't installed.
    """
    _refuse(model)
    folder = folder or fetch(model)
    dtype = torch.float32 if full else compute_dtype(model)
    device = f"cuda:{world.local_rank()}" if model.device == "cuda" else "cpu"
    if model.loader == "unsloth":
        loaded = _unsloth(folder, dtype, device, four_bit, full)
    else:
        loaded = _transformers(folder, dtype, device, four_bit)
    loaded.eval()
    return loaded


def compute_dtype(model: Model) -> torch.dtype:
    """model.dtype as torch names it."""
    dtype: torch.dtype = getattr(torch, model.dtype)
    return dtype


def unsloth_adapter(base: PreTrainedModel, lora: "LoraConfig", seed: int, checkpointing: bool) -> "PeftModel":
    """Return the base with a new adapter, through Unsloth's own faster layers."""
    from unsloth import FastLanguageModel

    adapted: PeftModel = FastLanguageModel.get_peft_model(
        base,
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=lora.target_modules,
        use_gradient_checkpointing=checkpointing,
        random_state=seed,
    )
    return adapted


def unsloth_speed(adapted: "PeftModel", checkpointing: bool) -> "PeftModel":
    """Return a model whose adapter PEFT loaded, with Unsloth's faster layers put in."""
    from unsloth import FastLanguageModel

    faster: PeftModel = FastLanguageModel.patch_peft_model(adapted, use_gradient_checkpointing=checkpointing)
    return faster


def _refuse(model: Model) -> None:
    if model.device == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "model.device: found no CUDA device, expected one; set model.device=cpu model.dtype=float32 model.loader=transformers"
        )
    if model.loader == "unsloth" and importlib.util.find_spec("unsloth") is None:
        raise ModelError("model.loader: unsloth is not installed; install requirements-gpu.lock, or set model.loader=transformers")


def _transformers(folder: Path, dtype: torch.dtype, device: str, four_bit: bool) -> PreTrainedModel:
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    extra: dict[str, Any] = {"quantization_config": quantisation} if four_bit else {}
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, device_map={"": device}, use_safetensors=True, trust_remote_code=False, local_files_only=True, **extra
    )
    for module in loaded.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # bitsandbytes 0.50: on CPUs with AVX512-BF16 an evaluation would repack the weights for a bfloat16 kernel that has no gradient
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]  # a plain attribute of Linear4bit
    return loaded


def _unsloth(folder: Path, dtype: torch.dtype, device: str, four_bit: bool, full: bool) -> PreTrainedModel:
    os.environ["UNSLOTH_COMPILE_LOCATION"] = str(paths.home() / ".cache" / "unsloth")  # else a folder of its own where the stage runs
    os.environ["UNSLOTH_DISABLE_AUTO_PADDING_FREE"] = "1"  # else it decides about padding by what it finds
    os.environ["UNSLOTH_CE_LOSS_TARGET_GB"] = "1"  # else it cuts the loss into pieces by the memory that is free, and adds them

    from transformers import AutoConfig
    from unsloth import FastLanguageModel

    loaded, _ = FastLanguageModel.from_pretrained(
        str(folder),
        max_seq_length=AutoConfig.from_pretrained(folder).max_position_embeddings,
        dtype=dtype,
        load_in_4bit=four_bit,
        full_finetuning=full,
        device_map={"": device},
        use_exact_model_name=True,  # else a 4-bit upload from the hub takes the place of the pinned weights
        use_gradient_checkpointing=False,
        trust_remote_code=False,
    )
    model: PreTrainedModel = loaded
    return model
