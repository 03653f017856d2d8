"""Drawing tokens, so that a sample depends on its own name: not on the rest of its batch, nor on the order in which a GPU adds.

Each sample has a generator of its own, seeded with its name, which gives one number a token. What is left is the arithmetic before it: the
batch decides the last bits of a logit, and another token is drawn where such a bit moves a border between two tokens over that number,
about once in a million tokens in float32, and now and then in 16 bits.
"""

import random
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor

WHOLE = 2**40  # a probability of 1 as a whole number: sums of these are exact in any order, those of floats are not on a GPU


class Sampler(LogitsProcessor):
    """Leaves each row of a batch the token that was drawn for it, which greedy generation then takes."""

    def __init__(self, names: Sequence[str], temperature: float, top_p: float) -> None:
        """names: one a row, seed and place of the sample in it."""
        self._generators = [random.Random(name) for name in names]
        self._temperature, self._top_p = temperature, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores with -inf in place of every token but the drawn ones."""
        uniform = torch.tensor([generator.random() for generator in self._generators], dtype=torch.float64, device=scores.device)
        tokens = drawn(scores, uniform, self._temperature, self._top_p)
        others = torch.arange(scores.shape[-1], device=scores.device) != tokens.unsqueeze(-1)
        return scores.masked_fill(others, -torch.inf)


def drawn(scores: torch.Tensor, uniform: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Return a token for each row of scores (rows, vocabulary): the place where its number in [0, 1) falls among the probabilities.

    They lie in the order of the vocabulary, where a last bit moves a border; in the order of size it would exchange whole tokens. Of the
    tokens only the fewest are left, the most likely first, that have top_p of the probability (Holtzman et al. 2020,
    https://arxiv.org/abs/1904.09751), and others exactly as likely as the last of these.
    """
    weights = ((scores.double() / temperature).softmax(dim=-1) * WHOLE).long()
    if top_p < 1:
        total = weights.sum(dim=-1, keepdim=True)
        # one with less can't be among them: itself and all less likely ones have more than 1 - top_p together. Sorting all 49,152 tokens of
        # 64 rows took 0.6 s on two cores; these take 0.25 s
        likely = weights >= (1 - top_p) * total / weights.shape[-1]
        ranked = weights.topk(int(likely.sum(dim=-1).max()), dim=-1).values
        before = ranked.cumsum(dim=-1) - ranked
        wanted = (before < top_p * total).sum(dim=-1, keepdim=True)
        weights = weights.where(weights >= ranked.gather(-1, wanted - 1), 0)
    borders = weights.cumsum(dim=-1)
    total = borders[:, -1:]
    places = (uniform.unsqueeze(-1) * total).long().clamp(max=total - 1)
    return torch.searchsorted(borders, places, right=True).squeeze(-1)
