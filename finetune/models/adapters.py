"""Tuned models: what a training stage leaves behind, and every way of loading it again.

The tuned model of a stage is, everywhere, its adapter over the 16/32-bit base, or its full weights. A folder says in tuned.json what it
holds: {"method": "lora" | "qlora" | "full", "below": "base" | "models/train"}; below is what an adapter sits on.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import peft
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune import outputs, paths
from finetune.config.schema import DpoAdapter, DpoFull, Full, Lora, Model
from finetune.errors import ModelError
from finetune.models import loaders

RECORD = "tuned.json"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
ADAPTER = "default"


@dataclass(frozen=True)
class Tuned:
    """What a training stage's folder holds."""

    method: Literal["lora", "qlora", "full"]
    below: Literal["base", "models/train"]

    @property
    def four_bit(self) -> bool:
        """Whether its adapter was trained over the 4-bit base."""
        return self.method == "qlora"

    @classmethod
    def of(cls, folder: Path) -> "Tuned":
        """Read a folder's tuned.json.

        Raises:
            ModelError: there is none.
        """
        if not (folder / RECORD).is_file():
            raise ModelError(f"{folder}: found no {RECORD}, expected a model that a training stage wrote; run `dvc repro`")
        return cls(**outputs.read_json(folder / RECORD))


def for_training(model: Model, train: Lora | Full, seed: int) -> tuple[PreTrainedModel | PeftModel, Tuned]:
    """Return the base model as `train` says: with a new adapter, or with every weight free."""
    if isinstance(train, Full):
        return loaders.load(model, full=True), Tuned("full", "base")
    base = loaders.load(model, four_bit=train.method == "qlora")
    return attach(model, base, train, seed), Tuned(train.method, "base")


def for_preferences(model: Model, start: Path, dpo: DpoAdapter | DpoFull, seed: int) -> tuple[PreTrainedModel | PeftModel, Tuned]:
    """Return the bytes of `start`, ready to train on: its own adapter, or a new one on its full weights, or those weights.

    Raises:
        ModelError: dpo.method=full after an adapter.
    """
    before = Tuned.of(start)
    if isinstance(dpo, DpoFull):
        if before.method != "full":
            raise ModelError(
                f"dpo.method: found full after train.method={before.method}, expected lora, which trains that adapter on; set dpo=lora"
            )
        return _all_weights(model, start), before
    if before.method == "full":
        return attach(_by_transformers(model), _all_weights(model, start), dpo, seed), Tuned("lora", "models/train")
    base = loaders.load(model, four_bit=before.four_bit)
    adapted = PeftModel.from_pretrained(base, start, adapter_name=ADAPTER, is_trainable=True)
    return _by_its_loader(model, adapted, dpo.gradient_checkpointing), before


def attach(model: Model, base: PreTrainedModel, settings: Lora | DpoAdapter, seed: int) -> PeftModel:
    """Return the base with a new adapter that changes nothing yet (B is zero); seeding comes before it."""
    lora = LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=settings.target_modules,
        bias="none",
        task_type="CAUSAL_LM",
    )
    if model.loader == "unsloth":
        return loaders.unsloth_adapter(base, lora, seed, settings.gradient_checkpointing)
    return get_peft_model(base, lora, adapter_name=ADAPTER)


def save(folder: Path, tuned: Tuned, trained: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, model: Model) -> None:
    """Write an adapter, or full weights and tokenizer, in float32 as they were trained, in bytes that depend on nothing but the values."""
    with outputs.folder(folder) as part:
        if isinstance(trained, PeftModel):
            tensors = peft.get_peft_model_state_dict(trained, adapter_name=ADAPTER, save_embedding_layers=False)
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(tensors, part / WEIGHTS, metadata={"format": "pt"})
            outputs.write_json(part / CONFIG, _described(trained.peft_config[ADAPTER], model))
        else:
            trained.save_pretrained(part)
            tokenizer.save_pretrained(part)
        outputs.write_json(part / RECORD, asdict(tuned))


def load_tuned(model: Model, stage_folder: Path | None, *, four_bit: bool = False, merge: bool = True) -> PreTrainedModel | PeftModel:
    """Return the tuned model of a stage, ready to evaluate; None is the base model.

    merge: into plain weights, several times faster to generate with, and by transformers whatever model.loader says, because importing
    Unsloth takes half a minute and is for training; unmerged is how dpo will see it, so by the loader that dpo uses, and its layers.
    four_bit: over the 4-bit base that a qlora adapter was trained on; then never merged, because rounding to 4 bits once more would
    give a third model.

    Raises:
        ModelError: the folder holds no tuned model.
    """
    if merge:
        model = _by_transformers(model)
    if stage_folder is None:
        return loaders.load(model, four_bit=four_bit)
    tuned = Tuned.of(stage_folder)
    if tuned.method == "full":
        return _all_weights(model, stage_folder)
    if tuned.below == "models/train":
        below = _all_weights(model, stage_folder.parent / paths.TRAIN.name)
    else:
        below = loaders.load(model, four_bit=four_bit)
    adapted = PeftModel.from_pretrained(below, stage_folder, adapter_name=ADAPTER)
    if four_bit or not merge:
        return (_by_its_loader(model, adapted) if tuned.below == "base" else adapted).eval()
    merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    merged.eval()
    return merged


def _by_its_loader(model: Model, adapted: PeftModel, checkpointing: bool = False) -> PeftModel:
    """An adapter with the layers that its loader trains with: Unsloth's round elsewhere, up to 0.5 nats an answer over 4 bits."""
    return loaders.unsloth_speed(adapted, checkpointing) if model.loader == "unsloth" else adapted


def _by_transformers(model: Model) -> Model:
    return model.model_copy(update={"loader": "transformers"})


def _all_weights(model: Model, folder: Path) -> PreTrainedModel:
    """Fully trained weights, in float32 until export rounds them; training, log-probabilities and answers autocast them to model.dtype.

    A step of full tuning moves a weight by less than bfloat16 can tell apart, so rounded weights would lose most of it (docs/log.md).
    And what runs between the layers would be rounded too, which put dpo's first margin at 0.07. By transformers whatever model.loader
    says, so that dpo's reference is that of a new adapter as well as of the weights themselves.
    """
    return loaders.load(_by_transformers(model), folder, full=True)


def _described(config: Any, model: Model) -> dict[str, Any]:
    """PEFT's own description of an adapter, without what varies: the order of its sets, the path of the base on this machine."""
    described = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    if isinstance(described["target_modules"], list):
        described["target_modules"] = sorted(described["target_modules"])
    described["base_model_name_or_path"] = model.path if model.source == "hub" else model.name
    described["revision"] = model.revision if model.source == "hub" else None
    described["inference_mode"] = True
    return described
