"""What both trainers share."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from finetune import paths
from finetune.errors import DataError, TrainingError
from finetune.models import adapters
from finetune.models.base import load_tokenizer
from finetune.training import preference, supervised, trainers
from finetune.training.preference import First, check_first
from finetune.training.steps import SUPERVISED, Steps
from tests.conftest import composed
from tests.tokens import write_formatted


def supervised_trainer(*overrides: str) -> supervised.Supervised:
    cfg = composed("experiment=tiny", *overrides)
    records = trainers.read(write_formatted(paths.FORMATTED) / "sft" / "train.parquet", supervised.COLUMNS)
    model, _ = adapters.for_training(cfg.model, cfg.train, cfg.seed)
    steps = Steps("training", SUPERVISED)
    return supervised.trainer(model, load_tokenizer(cfg.model), records, cfg.model, cfg.train, cfg.seed, steps, Path("scratch"))


def policy(trainer: supervised.Supervised) -> PreTrainedModel:
    assert isinstance(trainer.model, torch.nn.Module)
    return trainer.model  # type: ignore[return-value]  # a PeftModel, which is used like one


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step_and_what_to_lower(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = supervised_trainer()
    honest: Any = trainer.compute_loss
    taken = []

    def third_is_nan(*args: Any, **kwargs: Any) -> Any:
        taken.append(1)
        return honest(*args, **kwargs) * (math.nan if len(taken) == 3 else 1)

    monkeypatch.setattr(trainer, "compute_loss", third_is_nan)
    with pytest.raises(TrainingError, match=r"step 3: the loss is nan.*Lower learning_rate \(it was 0\.001\)"):
        trainer.train()


def test_the_adapter_of_a_four_bit_model_stays_float32(workspace: Path) -> None:
    trainer = supervised_trainer("train=qlora")
    assert {weight.dtype for weight in policy(trainer).parameters() if weight.requires_grad} == {torch.float32}


def test_a_four_bit_model_counts_the_parameters_that_it_stands_for(workspace: Path) -> None:
    whole = trainers.parameters(policy(supervised_trainer("train.r=4")))
    quarter = trainers.parameters(policy(supervised_trainer("train=qlora", "train.r=4")))
    assert whole == quarter
    assert 0 < whole["trainable_parameters"] < whole["parameters"]


def test_reading_a_table_leaves_no_copy_anywhere(workspace: Path) -> None:
    path = write_formatted(paths.FORMATTED) / "sft" / "train.parquet"
    records = trainers.read(path, supervised.COLUMNS)
    assert records.column_names == ["input_ids", "labels"]
    assert records.cache_files == []


def test_a_table_that_is_not_there_is_named_with_the_remedy(workspace: Path) -> None:
    with pytest.raises(DataError, match=r"data/formatted/sft/train\.parquet: found no such file.*\nrun `dvc repro`"):
        trainers.read(paths.FORMATTED / "sft" / "train.parquet", supervised.COLUMNS)


def test_the_validation_loss_is_a_mean_over_tokens_not_over_batches(workspace: Path) -> None:
    trainer = supervised_trainer()
    records = trainers.read(paths.FORMATTED / "sft" / "validation.parquet", supervised.COLUMNS)
    total = tokens = 0.0
    with torch.no_grad():
        for row in records:
            labels = torch.tensor(row["labels"])
            logps = policy(trainer).eval()(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
            for place in (labels != -100).nonzero().flatten().tolist():
                total, tokens = total + float(logps[place - 1, labels[place]]), tokens + 1
    assert supervised.supervised_tokens(records) == tokens
    assert supervised.validation_loss(policy(trainer), records, 2, 0, torch.float32) == pytest.approx(-total / tokens, rel=1e-5)


@pytest.mark.parametrize("tokens", [None, 900])
def test_the_loss_on_a_cpu_is_trls_own_without_its_chunks(workspace: Path, tokens: int | None) -> None:
    trainer = supervised_trainer()
    batch = next(iter(trainer.get_train_dataloader()))
    found = []
    for loss_of in (trainer.compute_loss, super(supervised.Supervised, trainer).compute_loss):
        policy(trainer).zero_grad()
        loss = loss_of(policy(trainer), dict(batch), num_items_in_batch=tokens)
        loss.backward()
        found.append((loss.item(), [weight.grad.clone() for weight in policy(trainer).parameters() if weight.grad is not None]))
    (ours, our_gradients), (theirs, their_gradients) = found
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert len(our_gradients) == len(their_gradients) > 0
    assert all(torch.allclose(mine, other, atol=1e-7) for mine, other in zip(our_gradients, their_gradients, strict=True))


@pytest.mark.parametrize(
    ("first", "beta", "exact", "fine"),
    [
        (First(math.log(2), 0.0, 0.5), 1.0, True, True),
        (First(math.log(2) + 9e-6, -9e-6, 0.5), 1.0, True, True),
        (First(math.log(2) + 2e-5, 0.0, 0.5), 1.0, True, False),
        (First(math.log(2), -2e-5, 9.0), 0.1, True, False),
        (First(math.log(2), -2e-5, 3.0), 1.0, True, True),
        (First(math.log(2), -2e-5, 1.0), 3.0, True, True),
        (First(math.log(2), -4e-5, 1.0), 3.0, True, False),
        (First(math.log(2), -4e-4, 30.0), 1.0, True, False),
        (First(math.log(2) + 0.019, 0.019, 30.0), 1.0, False, True),
        (First(math.log(2), 0.021, 30.0), 1.0, False, False),
        (First(math.nan, 0.0, 30.0), 1.0, False, False),
    ],
)
def test_the_first_loss_must_be_that_of_a_model_compared_with_itself(first: First, beta: float, exact: bool, fine: bool) -> None:
    if fine:
        check_first(first, beta, exact)
    else:
        with pytest.raises(TrainingError, match=r"the loss is .* and the margin .*expected ln 2 = 0\.6931472 and 0.*run `dvc repro`"):
            check_first(first, beta, exact)


def test_pairs_are_taken_as_they_are(workspace: Path) -> None:
    pairs = Dataset.from_dict({name: [[3, 4]] for name in preference.COLUMNS[:3]} | {name: [-1.0] for name in preference.COLUMNS[3:]})
    assert preference.Preference._prepare_dataset(None, pairs) is pairs  # type: ignore[arg-type]
    assert preference.Preference._precompute_ref_logps(None, pairs) is pairs  # type: ignore[arg-type]
