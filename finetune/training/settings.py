"""Our settings as transformers' TrainingArguments: every default that TRL would choose by the machine or against a CPU is said here."""

from pathlib import Path
from typing import Any

from finetune.config.schema import DpoAdapter, DpoFull, Full, Lora, Model
from finetune.training import world

HOURS = 24  # that the others wait for the first, which alone validates and saves; when one dies, torch's launcher ends them all


def arguments(model: Model, training: Lora | Full | DpoAdapter | DpoFull, seed: int, scratch: Path) -> dict[str, Any]:
    """Return keyword arguments for SFTConfig and DPOConfig alike. scratch: where a trainer may write; nothing in it is a result."""
    named = (
        "learning_rate",
        "lr_scheduler_type",
        "num_train_epochs",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "weight_decay",
        "max_grad_norm",
        "optim",
        "gradient_checkpointing",
    )
    on_cpu = model.device == "cpu"
    return {
        **{name: getattr(training, name) for name in named},
        "max_steps": training.max_steps or -1,
        "warmup_steps": training.warmup_ratio,  # transformers 5 takes a share of the steps here
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "bf16": model.dtype == "bfloat16",
        "fp16": model.dtype == "float16",
        "use_cpu": on_cpu,
        "ddp_backend": None if world.size() == 1 else "gloo" if on_cpu else "nccl",
        "ddp_find_unused_parameters": False,
        "ddp_timeout": HOURS * 3600,
        "dataloader_pin_memory": not on_cpu,
        "dataloader_num_workers": 0,
        "seed": seed % 2**32,
        "data_seed": seed,
        "max_length": None,  # format has refused or dropped what is too long; nothing is cut
        "include_num_input_tokens_seen": "non_padding",  # counted by transformers itself, under Unsloth too
        "logging_steps": 1,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # would put the mean of the steps before in place of a loss that is not finite
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "output_dir": str(scratch),
    }
