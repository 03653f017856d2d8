"""Answers: the most likely token each time, or one that is drawn, until the model ends its answer or reaches the limit."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from finetune.checkpoints.journal import Items, Nowhere
from finetune.config.schema import OnPolicy
from finetune.evaluation.sampling import Sampler
from finetune.models.batches import by_length
from finetune.progress import progress


@dataclass(frozen=True)
class Answer:
    """What a model answered."""

    text: str
    """Without the end token, but with every other control token that it wrote."""
    ids: list[int]
    """Tokens that it wrote, the end token among them."""
    ended: bool
    """Whether it came to an end by itself."""

    @property
    def tokens(self) -> int:
        """How many tokens it wrote."""
        return len(self.ids)


def end_token(tokenizer: PreTrainedTokenizerBase, last: Sequence[int]) -> int:
    """The token that the chat template puts after an answer: the one that most answers end in (format may have cut some).

    last: the last token of each.
    """
    return max(sorted(set(last)), key=last.count, default=tokenizer.eos_token_id)


def end_tokens(model: PreTrainedModel | PeftModel, taught: int) -> list[int]:
    """Tokens that end an answer: those of the model's own configuration, and the one that its chat template puts after an answer."""
    own = model.generation_config.eos_token_id
    return sorted({taught, *(own if isinstance(own, list) else [] if own is None else [own])})


def greedy(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    batch_size: int,
    max_new_tokens: int,
    arithmetic: torch.dtype,
    items: Items | None = None,
) -> list[Answer]:
    """Return the answers, in the order of the prompts.

    The model's own generation settings (temperature, repetition penalty) are left aside: they differ between models, and would be taken
    for what training did.

    The batch decides the order of sums, so the last bits of a logit, but hardly an answer: in float32 all of 128 answers of SmolLM2-135M
    were the same in batches of 16, 32, 64 and 128. In 16 bits a near tie may fall otherwise, so keep one batch size within a comparison.

    arithmetic: to what it is autocast, as in training; fully trained weights are float32, and base must not be asked in another one.
    items: where the batches' answers are kept for a stage that dies.
    """
    asked = model, tokenizer, prompts, ends, batch_size, max_new_tokens, arithmetic, items
    return _answers(*asked, "answering", lambda _: LogitsProcessorList())


def sampled(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    names: Sequence[str],
    ends: Collection[int],
    settings: OnPolicy,
    arithmetic: torch.dtype,
    items: Items | None = None,
) -> list[Answer]:
    """Return one drawn answer for each prompt, in their order; the same name and prompt give the same answer in any batch.

    How far that holds, see finetune.evaluation.sampling. Settings of the model's own are left aside, as above.

    names: of the samples, the seed in each: what their draws depend on.
    """

    def drawing(batch: Sequence[int]) -> LogitsProcessorList:
        return LogitsProcessorList([Sampler([names[place] for place in batch], settings.temperature, settings.top_p)])

    asked = model, tokenizer, prompts, ends, settings.batch_size, settings.max_new_tokens, arithmetic, items
    return _answers(*asked, "sampling", drawing)


@torch.inference_mode()
def _answers(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    batch_size: int,
    max_new_tokens: int,
    arithmetic: torch.dtype,
    items: Items | None,
    doing: str,
    processors: Callable[[Sequence[int]], LogitsProcessorList],
) -> list[Answer]:
    """The answers, in the order of the prompts; processors: what changes the logits of a batch, given the places of its prompts."""
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=sorted(ends), pad_token_id=tokenizer.pad_token_id, use_cache=True
    )
    answers: dict[int, Answer] = {}
    batches = by_length(prompts, batch_size)

    def ask(batch: Sequence[int]) -> list[list[int]]:
        with torch.autocast(model.device.type, dtype=arithmetic, enabled=arithmetic != torch.float32):
            return _continued(model, [prompts[place] for place in batch], tokenizer.pad_token_id, processors(batch))

    asked = (items or Nowhere()).each(batches, ask)
    for batch, written in zip(batches, progress(asked, doing, total=len(batches), unit="batches"), strict=True):
        answers.update({place: _answer(ids, ends, tokenizer) for place, ids in zip(batch, written, strict=True)})
    return [answers[place] for place in range(len(prompts))]


def _continued(
    model: PreTrainedModel | PeftModel, prompts: Sequence[Sequence[int]], pad_id: int, processors: LogitsProcessorList
) -> list[list[int]]:
    """The tokens after each prompt; prompts are padded on the left, so that all answers begin at the same place."""
    width = max(len(ids) for ids in prompts)
    input_ids = torch.tensor([[pad_id] * (width - len(ids)) + [*ids] for ids in prompts], device=model.device)
    attention = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=model.device)
    written: torch.Tensor = model.generate(  # type: ignore[operator]
        input_ids=input_ids, attention_mask=attention, logits_processor=processors
    )
    return written[:, width:].tolist()


def _answer(ids: list[int], ends: Collection[int], tokenizer: PreTrainedTokenizerBase) -> Answer:
    """An answer from the tokens of its row, which is padded after its end."""
    length = next((place for place, token in enumerate(ids) if token in ends), None)
    text = tokenizer.decode(ids[:length], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return Answer(str(text), ids if length is None else ids[: length + 1], length is not None)
