"""Greedy answers are those of the model alone: not of the batch, of the padding, or of settings that came with the model."""

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.evaluation.generation import end_token, end_tokens, greedy

PROMPTS = [[5, 9, 300], [7], [44, 45, 46, 47, 48, 49, 50, 51], [300, 301], [9] * 12, [100, 3, 7, 81, 9]]
LIMIT = 10


@torch.inference_mode()
def by_hand(model: PreTrainedModel, prompt: list[int], ends: set[int]) -> list[int]:
    """The plainest loop: no batch, no padding, no cache."""
    ids = list(prompt)
    while len(ids) < len(prompt) + LIMIT and not (len(ids) > len(prompt) and ids[-1] in ends):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 64])
def test_answers_do_not_depend_on_the_batch(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> None:
    written = [by_hand(model, prompt, {2}) for prompt in PROMPTS]
    ends = {2, written[0][3], written[2][5]}  # so that some answers end, at different places
    expected = [by_hand(model, prompt, ends) for prompt in PROMPTS]
    found = greedy(model, tokenizer, PROMPTS, ends, batch_size, LIMIT, torch.float32)
    assert [answer.tokens for answer in found] == [len(ids) for ids in expected]
    assert [answer.ended for answer in found] == [ids[-1] in ends for ids in expected]
    assert [answer.text for answer in found] == [tokenizer.decode(ids[:-1] if ids[-1] in ends else ids) for ids in expected]
    assert {answer.ended for answer in found} == {True, False}


def test_an_answer_that_ends_at_once_is_empty(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    first = by_hand(model, PROMPTS[0], {2})[0]
    (answer,) = greedy(model, tokenizer, PROMPTS[:1], {first}, 4, LIMIT, torch.float32)
    assert (answer.text, answer.tokens, answer.ended) == ("", 1, True)


def test_settings_that_came_with_the_model_are_left_aside(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    plain = greedy(model, tokenizer, PROMPTS, {2}, 4, LIMIT, torch.float32)
    model.generation_config.update(do_sample=True, temperature=2.0, repetition_penalty=5.0, max_length=3, suppress_tokens=list(range(400)))
    assert greedy(model, tokenizer, PROMPTS, {2}, 4, LIMIT, torch.float32) == plain


def test_an_answer_ends_where_model_or_template_end_it(model: PreTrainedModel) -> None:
    assert end_tokens(model, 2) == [2]
    assert end_tokens(model, 7) == [2, 7]
    model.generation_config.eos_token_id = [9, 2]
    assert end_tokens(model, 7) == [2, 7, 9]
    model.generation_config.eos_token_id = None
    assert end_tokens(model, 7) == [7]


def test_the_token_after_an_answer_is_the_one_that_most_end_in(tokenizer: PreTrainedTokenizerBase) -> None:
    assert end_token(tokenizer, [7, 2, 7]) == 7  # one was cut
    assert end_token(tokenizer, []) == tokenizer.eos_token_id


@pytest.mark.parametrize("arithmetic", [torch.float32, torch.bfloat16])
def test_float32_weights_answer_in_the_arithmetic_that_was_asked_for(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, arithmetic: torch.dtype
) -> None:
    seen = set()
    linear = next(layer for layer in model.modules() if isinstance(layer, torch.nn.Linear))
    hook = linear.register_forward_hook(lambda *given: seen.add(given[2].dtype))
    greedy(model, tokenizer, PROMPTS, {2}, 4, LIMIT, arithmetic)
    hook.remove()
    assert (seen, linear.weight.dtype) == ({arithmetic}, torch.float32)
