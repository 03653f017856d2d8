"""Packed rows: planned by first-fit decreasing, and to the model the same records as unpacked ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from finetune import paths
from finetune.errors import TrainingError
from finetune.models import adapters, loaders
from finetune.models.base import load_tokenizer
from finetune.training import packing, supervised, trainers
from finetune.training.steps import SUPERVISED, Steps
from tests.conftest import composed
from tests.tokens import write_formatted

ROOM = 64


def first_fit_decreasing(lengths: Sequence[int], room: int) -> list[list[int]]:
    """One record at a time, as the textbook has it."""
    rows: list[list[int]] = []
    free: list[int] = []
    for record in sorted(range(len(lengths)), key=lambda record: (-lengths[record], record)):
        place = next((row for row, left in enumerate(free) if left >= lengths[record]), len(rows))
        if place == len(rows):
            rows.append([])
            free.append(room)
        rows[place].append(record)
        free[place] -= lengths[record]
    return rows


@given(st.lists(st.integers(1, ROOM), min_size=1, max_size=120))
def test_the_plan_is_that_of_first_fit_decreasing(lengths: list[int]) -> None:
    planned = packing.plan(lengths, ROOM)
    assert planned.rows == first_fit_decreasing(lengths, ROOM)
    assert planned.report() == {
        "rows": len(planned.rows),
        "records_per_row": len(lengths) / len(planned.rows),
        "fill": sum(lengths) / (len(planned.rows) * ROOM),
    }


def test_a_plan_says_how_full_its_rows_are() -> None:
    assert str(packing.plan([60, 30, 30, 4, 4], ROOM)) == "packed 5 records into 2 rows of at most 64 tokens: 2.5 a row, 100.0% full"


def test_a_record_that_no_row_has_room_for_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"train\.max_length: found 64, expected at least the 65 tokens of the longest record"):
        packing.plan([3, 65, 4], ROOM)


@pytest.fixture
def records(workspace: Path) -> Dataset:
    return trainers.read(write_formatted(paths.FORMATTED) / "sft" / "train.parquet", supervised.COLUMNS)


@pytest.fixture
def rows(records: Dataset) -> Dataset:
    return packing.pack(records, packing.plan([len(ids) for ids in records["input_ids"]], ROOM))


def test_rows_hold_each_record_once_and_whole(records: Dataset, rows: Dataset) -> None:
    assert len(rows) < len(records) / 2
    unpacked = []
    for row in rows:
        assert len(row["input_ids"]) == len(row["labels"]) == sum(row["seq_lengths"]) <= ROOM
        start = 0
        for length in row["seq_lengths"]:
            unpacked.append((row["input_ids"][start : start + length], row["labels"][start : start + length]))
            start += length
    assert sorted(unpacked) == sorted(zip(records["input_ids"], records["labels"], strict=True))


def test_positions_restart_with_each_record_and_the_padding_sees_nothing(rows: Dataset) -> None:
    batch = packing.collator(0)([rows[0], rows[len(rows) - 1]])
    assert set(batch) == {"input_ids", "labels", "position_ids"}
    width = max(len(rows[0]["input_ids"]), len(rows[len(rows) - 1]["input_ids"]))
    for row, positions in zip((rows[0], rows[len(rows) - 1]), batch["position_ids"].tolist(), strict=True):
        counted = [place for length in row["seq_lengths"] for place in range(length)]
        assert positions == counted + [0] * (width - len(counted))


def trainer(records: Dataset, *overrides: str) -> supervised.Supervised:
    cfg = composed("experiment=tiny", *overrides)
    model, _ = adapters.for_training(cfg.model, cfg.train, cfg.seed)
    steps = Steps("training", SUPERVISED)
    return supervised.trainer(model, load_tokenizer(cfg.model), records, cfg.model, cfg.train, cfg.seed, steps, Path("scratch"))


def learned(built: supervised.Supervised, records: Dataset) -> tuple[float, dict[str, torch.Tensor]]:
    """The mean loss of all records in one batch, and the gradients."""
    batch: dict[str, torch.Tensor] = built.data_collator(list(records))
    built.model.zero_grad()  # type: ignore[union-attr]  # a model by now
    tokens = (batch["labels"][:, 1:] != -100).sum()
    loss: torch.Tensor = built.compute_loss(built.model, batch, num_items_in_batch=tokens)  # type: ignore[arg-type]
    loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in built.model.named_parameters() if weight.grad is not None}  # type: ignore[union-attr]
    return float(loss.detach()), gradients


@pytest.mark.parametrize("family", ["LlamaConfig", "Qwen3Config", "Gemma3TextConfig"])
def test_loss_and_gradients_are_those_of_unpacked_records(records: Dataset, rows: Dataset, family: str) -> None:
    setting = ("train=full", f"model.path={family}", f"model.name=tiny-{family}")
    expected, wanted = learned(trainer(records, *setting), records)
    loss, gradients = learned(trainer(rows, *setting, "train.packing=true"), rows)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        assert (gradient - wanted[name]).norm() <= 1e-5 * wanted[name].norm() + 1e-8, name


def test_a_record_is_blind_to_its_neighbours(rows: Dataset) -> None:
    model = loaders.load(composed("experiment=tiny").model)
    row: dict[str, Any] = rows[0]
    first, *_ = row["seq_lengths"]
    other = row | {"input_ids": [(token + 1) % 400 for token in row["input_ids"][:first]] + row["input_ids"][first:]}
    before, after = (packing._logits(model, example, torch.float32) for example in (row, other))
    assert not torch.allclose(before[:first], after[:first])
    assert torch.equal(before[first:], after[first:])


@pytest.mark.parametrize("family", ["MambaConfig", "BloomConfig"])
def test_a_model_that_mixes_the_records_of_a_row_is_refused(rows: Dataset, family: str) -> None:
    model = loaders.load(composed("experiment=tiny", f"model.path={family}", f"model.name=tiny-{family}").model)
    with pytest.raises(TrainingError, match=rf"train\.packing: found a model \({model.config.model_type}\).*set train\.packing=false"):
        packing.refuse_mixing(model, rows, torch.float32)


def test_rows_of_one_record_need_no_trial(workspace: Path) -> None:
    alone = Dataset.from_dict({"input_ids": [[5, 6, 7]], "labels": [[-100, 6, 7]], "seq_lengths": [[3]]})
    packing.refuse_mixing(PreTrainedModel.__new__(PreTrainedModel), alone, torch.float32)
