"""Log-probabilities of answers: what a plain softmax over the whole sequence gives, in the order that was asked for."""

import random
from pathlib import Path

import pytest
import torch

from finetune.models import loaders
from finetune.models.scoring import label_logps, labelled
from tests.conftest import composed

Rows = list[tuple[list[int], list[int]]]


def scored(model: torch.nn.Module, rows: Rows, batch_size: int) -> torch.Tensor:
    return label_logps(model, [labelled(*row) for row in rows], batch_size, 0, "scoring", torch.float32)  # type: ignore[arg-type]


def rows(count: int = 13) -> Rows:
    draw = random.Random(1)

    def ids(most: int) -> list[int]:
        return [draw.randrange(3, 440) for _ in range(draw.randint(1, most))]

    return [(ids(20), ids(9)) for _ in range(count)]


def plainly(model: torch.nn.Module, prompt: list[int], answer: list[int]) -> float:
    with torch.no_grad():
        logps = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return float(sum(logps[len(prompt) + place - 1, token] for place, token in enumerate(answer)))


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_answers_are_scored_as_a_plain_softmax_would_in_the_order_of_the_rows(workspace: Path, batch_size: int) -> None:
    model = loaders.load(composed("model=tiny").model)
    expected = torch.tensor([plainly(model, *row) for row in rows()])
    found = scored(model, rows(), batch_size)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=2e-4)


def test_only_supervised_positions_count_wherever_they_are(workspace: Path) -> None:
    model = loaders.load(composed("model=tiny").model)
    ids = [5, 6, 7, 8, 9]
    labels = [-100, 6, -100, 8, -100]
    with torch.no_grad():
        logps = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    found = float(label_logps(model, [(ids, labels)], 1, 0, "scoring", torch.float32))
    assert found == pytest.approx(float(logps[0, 6] + logps[2, 8]), abs=1e-4)


def test_the_same_rows_give_the_same_bits(workspace: Path) -> None:
    model = loaders.load(composed("model=tiny").model)
    assert torch.equal(scored(model, rows(), 4), scored(model, rows(), 4))


def test_the_arithmetic_is_what_was_asked_for_whatever_the_type_of_the_weights(workspace: Path) -> None:
    model = loaders.load(composed("model=tiny").model)
    some = [labelled(*row) for row in rows()]
    exact, rounded = (label_logps(model, some, 4, 0, "scoring", arithmetic) for arithmetic in (torch.float32, torch.bfloat16))
    assert 1e-4 < float((exact - rounded).abs().max()) < 1
    assert rounded.dtype == torch.float32


def test_no_rows_are_no_scores(workspace: Path) -> None:
    assert scored(loaders.load(composed("model=tiny").model), [], 4).shape == (0,)
