"""The tuned model as one set of plain weights, and the proof that they say what adapter and base say together."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from finetune.config.schema import Export, Model
from finetune.errors import ModelError

PROMPTS = 8  # of the test set; a wrong merge shows in the first
# How far a logit may move, as a share of the largest one, by the coarser of the two types. Measured on SmolLM2-135M with a trained adapter
# of r=16 (largest logit 32): float32 4e-6, float16 8e-3, bfloat16 6e-2, where 14 of 126 positions had another most likely token.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 2e-1}

Logits = list[torch.Tensor]


@torch.inference_mode()
def logits(model: PreTrainedModel | PeftModel, rows: Sequence[Sequence[int]]) -> Logits:
    """Logits of each row at each of its positions, in float32: (tokens, vocabulary)."""
    model.eval()
    return [model(input_ids=torch.tensor([[*row]], device=model.device), use_cache=False).logits[0].float().cpu() for row in rows]


def save(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], folder: Path, settings: Export
) -> None:
    """Write config, generation settings, safetensors and tokenizer, so that `from_pretrained` gives a model that knows where to stop."""
    model.generation_config.eos_token_id = ends[0] if len(ends) == 1 else list(ends)
    dtype: torch.dtype = getattr(torch, settings.dtype)
    model.to(dtype).save_pretrained(folder, max_shard_size=settings.max_shard_size)  # type: ignore[arg-type]  # annotated for a device only
    tokenizer.save_pretrained(folder)


def difference(folder: Path, model: Model, tuned: torch.dtype, rows: Sequence[Sequence[int]], expected: Logits) -> float:
    """The largest distance of a logit of the saved model, as plain transformers loads it, from the expected one of weights in `tuned`.

    Raises:
        ModelError: it is beyond the tolerance.
    """
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", device_map={"": model.device}, local_files_only=True
    )
    found = logits(loaded, rows)
    furthest = max(float((one - other).abs().max()) for one, other in zip(found, expected, strict=True))
    scale = max(float(one.abs().max()) for one in expected)
    share = max(TOLERANCE[tuned], TOLERANCE[loaded.dtype])
    if not furthest <= share * scale:  # also where it is not a number
        raise ModelError(
            f"models/export/merged: found a logit {furthest:.2g} away from the tuned model's, expected at most {share * scale:.2g} "
            f"({share:g} of the largest, {scale:.1f}); set export.dtype=float32, or export.merged=false where there is an adapter to ship"
        )
    return furthest
