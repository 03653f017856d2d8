"""Direct preference optimisation on TRL's DPOTrainer, from token ids and the log-probabilities that the stage reference has written.

Import this after the model is loaded: Unsloth rewrites trl's trainers, and must come first.
Method: Rafailov et al. 2023, https://arxiv.org/abs/2305.18290; with rpo_alpha above 0, Pang et al. 2024, https://arxiv.org/abs/2404.19733.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer
from trl.models.utils import _ForwardRedirection

from finetune.config.schema import DpoAdapter, DpoFull, Model
from finetune.errors import TrainingError
from finetune.training import settings
from finetune.training.steps import Steps
from finetune.training.trainers import Steady, kept_in_float32, quiet

COLUMNS = ["prompt_ids", "chosen_ids", "rejected_ids", "ref_chosen_logps", "ref_rejected_logps"]
EXACT, ROUNDED = 1e-5, 0.02  # how far the first loss may lie from ln 2 in float32, and in 16 or 4 bits, where rewards are below 1


@dataclass(frozen=True)
class First:
    """The first batch before the first update, dropout off: a model compared with itself."""

    loss: float
    margin: float
    nats: float
    """Mean over the pairs of what both answers cost the reference: their log-probabilities without the sign, added."""


class Preference(Steady, DPOTrainer):
    """DPOTrainer that takes pairs as they are: tokenised, each with its reference log-probabilities.

    TRL would compute those again, in every run and for every beta; and it would project every position to the vocabulary, where the
    positions of the answers are enough (its chunked path does that, but is only offered where the liger kernels are installed, which
    it doesn't use).

    rpo_alpha: weight of the mean loss a token of each chosen answer, added to DPO's. TRL's own loss "sft" takes the mean over the tokens of
    a micro-batch, so that the split into micro-batches would decide what is learned.
    """

    def __init__(self, rpo_alpha: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.rpo_alpha = rpo_alpha
        self.use_liger_kernel, self._forward_redirection = True, _ForwardRedirection()
        if isinstance(self.model, PeftModel) and "ref" in self.model.peft_config:
            self.model.delete_adapter("ref")  # TRL's frozen copy; its log-probabilities are in the data

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _get_per_token_logps_and_entropies(self, *args: Any) -> tuple[torch.Tensor, torch.Tensor, Any]:
        logps, entropies, outputs = super()._get_per_token_logps_and_entropies(*args)  # type: ignore[no-untyped-call]
        self._chosen_logps = logps.chunk(2)[0]  # a batch is chosen, then rejected; 0 where there is no answer
        return logps, entropies, outputs

    def _compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool) -> torch.Tensor:
        preference: torch.Tensor = super()._compute_loss(model, inputs, return_outputs)  # type: ignore[no-untyped-call]
        lengths = inputs["completion_mask"].chunk(2)[0].sum(dim=1)
        nll = -(self._chosen_logps.sum(dim=1) / lengths).mean()
        del self._chosen_logps
        mode = "train" if model.training else "eval"
        for name, part in (("dpo_loss", preference), ("nll", nll)):
            self._metrics[mode][name].append(self.accelerator.gather(part.detach()).mean().item())
        return preference + self.rpo_alpha * nll if self.rpo_alpha else preference

    def first(self) -> First:
        """Return DPO's own loss and mean margin of the first effective batch, over all processes, without training on it."""
        losses, margins, nats = [], [], []
        policy = self.accelerator.unwrap_model(self.model).eval()
        batches = iter(self.get_train_dataloader())
        with torch.no_grad(), self.compute_loss_context_manager():
            for _, batch in zip(range(self.args.gradient_accumulation_steps), batches, strict=False):
                batch = self._prepare_inputs(batch)
                self.compute_loss(policy, batch)  # type: ignore[no-untyped-call]
                losses.append(self._metrics["eval"]["dpo_loss"][-1])
                margins.append(self._metrics["eval"]["rewards/margins"][-1])
                cost = batch["ref_chosen_logps"].abs() + batch["ref_rejected_logps"].abs()
                nats.append(self.accelerator.gather(cost).mean().item())
        self._metrics["eval"].clear()
        return First(*(sum(values) / len(values) for values in (losses, margins, nats)))


def trainer(
    trained: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Dataset,
    model: Model,
    dpo: DpoAdapter | DpoFull,
    seed: int,
    steps: Steps,
    scratch: Path,
) -> Preference:
    """Return a trainer that is ready to train."""
    arguments = DPOConfig(
        **settings.arguments(model, dpo, seed, scratch),
        beta=dpo.beta,
        precompute_ref_log_probs=True,
        disable_dropout=False,  # a setting of ours: lora_dropout
    )
    with kept_in_float32(trained):
        built = Preference(dpo.rpo_alpha, model=trained, args=arguments, train_dataset=pairs, processing_class=tokenizer, callbacks=[steps])
    quiet(built)
    return built


def check_first(first: First, beta: float, exact: bool) -> None:
    """Refuse to train when policy and reference are not the same model.

    beta: above 1 it enlarges the rounding of the log-probabilities, so it widens the limits. exact: both were computed in float32, where
    rounding is a share of the log-probabilities, some 1e-6 of them: the limits widen where beta times the pair's nats is above 1.

    Raises:
        TrainingError: the loss is not ln 2, or the margin is not 0.
    """
    allowed = EXACT * max(1.0, beta * first.nats) if exact else ROUNDED * max(1.0, beta)
    if abs(first.loss - math.log(2)) <= allowed and abs(first.margin) <= allowed:
        return
    raise TrainingError(
        f"before the first update the loss is {first.loss:.7f} and the margin {first.margin:.7f}, expected ln 2 = {math.log(2):.7f} and 0, "
        f"within {allowed:g}: data/reference is not that of models/train; run `dvc repro`"
    )
