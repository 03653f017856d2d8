"""Drawn tokens follow the softmax, depend on nothing but their own name, and leave out what top_p leaves out."""

import random

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.config.schema import OnPolicy
from finetune.evaluation.generation import greedy, sampled
from finetune.evaluation.sampling import drawn
from tests.conftest import composed

PROMPTS = [[5, 9, 300], [7], [44, 45, 46, 47, 48, 49, 50, 51], [300, 301], [9] * 12, [100, 3, 7, 81, 9]]
NAMES = [f"17/{number}" for number in range(len(PROMPTS))]
SCORES = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -torch.inf, 1.5, -30.0])


def counts(temperature: float = 1.0, top_p: float = 1.0, draws: int = 20_000) -> torch.Tensor:
    generator = random.Random(1)
    uniform = torch.tensor([generator.random() for _ in range(draws)], dtype=torch.float64)
    return drawn(SCORES.expand(draws, -1), uniform, temperature, top_p).bincount(minlength=len(SCORES))


def settings(*overrides: str) -> OnPolicy:
    found = composed("experiment=tiny", "reference=on_policy", *(f"reference.{override}" for override in overrides)).reference
    assert isinstance(found, OnPolicy)
    return found


def samples(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, names: list[str], *overrides: str) -> list[list[int]]:
    some = settings("max_new_tokens=10", *overrides)
    return [answer.ids for answer in sampled(model, tokenizer, PROMPTS, names, {2}, some, torch.float32)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_as_the_softmax_says(temperature: float) -> None:
    found, expected = counts(temperature), (SCORES / temperature).softmax(-1) * 20_000
    likely = expected > 5
    squares = ((found - expected)[likely] ** 2 / expected[likely]).sum()
    assert squares < 22.5  # chi-square with 6 degrees of freedom passes that once in a thousand; the draws are the same in each run
    assert found[~likely].sum() <= 5
    assert found[5] == 0


def test_top_p_leaves_the_fewest_most_likely_tokens_that_have_it() -> None:
    shares = SCORES.softmax(-1)
    assert shares[0] < 0.5 < shares[0] + shares[6]
    assert counts(top_p=0.5).nonzero().flatten().tolist() == [0, 6]
    assert counts(top_p=float(shares[0]) - 0.001).nonzero().flatten().tolist() == [0]
    found = counts(top_p=0.5)
    assert float(found[0]) / 20_000 == pytest.approx(float(shares[0] / (shares[0] + shares[6])), abs=0.01)


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, 20.0])
@pytest.mark.parametrize("top_p", [0.01, 0.6, 0.95, 0.999])
def test_the_tokens_that_are_left_are_those_of_a_full_sort(scale: float, top_p: float) -> None:
    scores = torch.randn(3, 60, generator=torch.Generator().manual_seed(4)) * scale
    uniform = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:-1]
    for row in scores:
        shares, order = row.double().softmax(-1).sort(descending=True)
        left = order[shares.cumsum(-1) - shares < top_p - 1e-9]
        share = shares[: len(left)].sum()
        seen = set(drawn(row.expand(len(uniform), -1), uniform, 1.0, top_p).tolist())
        often = {int(token) for token in left if row.double().softmax(-1)[token] / share > 1e-4}
        assert often <= seen
        assert seen <= (set(left.tolist()) if scale else set(range(60)))  # all are as likely as the last one


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_ends_of_the_interval_are_tokens_too(uniform: float) -> None:
    one = drawn(torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]), torch.tensor([uniform], dtype=torch.float64), 1.0, 1.0)
    assert one.tolist() == [1 if uniform == 0 else 2]


def test_a_temperature_near_zero_is_greedy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    plain = greedy(model, tokenizer, PROMPTS, {2}, 4, 10, torch.float32)
    assert samples(model, tokenizer, NAMES, "temperature=1e-5") == [answer.ids for answer in plain]


def test_samples_do_not_depend_on_the_batch(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    alone = samples(model, tokenizer, NAMES, "batch_size=1")
    assert samples(model, tokenizer, NAMES, "batch_size=4") == alone
    assert samples(model, tokenizer, NAMES, "batch_size=64") == alone
    turned = samples(model, tokenizer, ["other", *NAMES[1:]], "batch_size=4")
    assert turned[0] != alone[0]
    assert turned[1:] == alone[1:]


def test_samples_are_drawn_from_what_the_model_finds_likely(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    names = [f"{number}" for number in range(2000)]
    some = settings("max_new_tokens=1", "temperature=0.1", "top_p=1.0", "batch_size=500")
    answers = sampled(model, tokenizer, [PROMPTS[0]] * len(names), names, {2}, some, torch.float32)
    with torch.no_grad():
        shares = (model(torch.tensor([PROMPTS[0]])).logits[0, -1] / 0.1).softmax(-1)
    found = torch.tensor([answer.ids[0] for answer in answers]).bincount(minlength=len(shares)) / len(names)
    assert float((found - shares).abs().max()) < 0.04
