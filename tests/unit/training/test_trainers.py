"""What both trainers share."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import EarlyStoppingCallback, PreTrainedModel

from finetune import paths
from finetune.checkpoints.kept import Kept
from finetune.errors import DataError, TrainingError
from finetune.models import adapters
from finetune.models.base import load_tokenizer
from finetune.training import checkpoints, preference, supervised, trainers
from finetune.training.order import ByLength
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


@pytest.fixture
def kept_here(workspace: Path) -> Kept:
    return Kept(workspace / "kept", composed("resume.save_seconds=0", "resume.save_total_limit=9").resume)


def spoilt(trainer: supervised.Supervised, what: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Have the third step's loss or gradient be no number; the weights that are trained as each step finds them."""
    found: list[dict[str, torch.Tensor]] = []
    honest: Any = trainer.compute_loss

    def spoil(model: Any, *args: Any, **kwargs: Any) -> Any:
        found.append({name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad})
        loss = honest(model, *args, **kwargs)
        if len(found) != 3:
            return loss
        if what == "loss":
            return loss * math.nan
        loss.register_hook(lambda gradient: gradient * math.inf)
        return loss

    monkeypatch.setattr(trainer, "compute_loss", spoil)
    return found


@pytest.mark.parametrize(("what", "said"), [("loss", "the loss is nan"), ("gradient", "the norm of the gradient is nan")])
def test_a_number_that_is_not_finite_stops_the_run_before_a_step_is_taken_on_it(
    kept_here: Kept, monkeypatch: pytest.MonkeyPatch, what: str, said: str
) -> None:
    trainer = supervised_trainer()
    found = spoilt(trainer, what, monkeypatch)
    with pytest.raises(TrainingError) as caught:
        trainer.train_through(kept_here, trainers.names(paths.FORMATTED / "sft" / "train.parquet", None))
    records = [f"{place:016x}" for place in ByLength(trainers._lengths(trainer.train_dataset), 8, 17).step(2)]
    assert len(records) == 8
    message = str(caught.value)
    assert message.startswith(
        f"step 3: {said}, expected a finite number; no optimizer step was taken on it, and the last good checkpoint is"
    )
    assert f"{kept_here.folder}/step-2. Its records: {', '.join(records)}. Look at them, lower learning_rate (it was 0.001)" in message
    after = dict(policy(trainer).named_parameters())
    assert all(torch.equal(after[name], weight) for name, weight in found[2].items())
    saved = checkpoints.read(kept_here.newest() or Path())["weights"]
    assert all(torch.equal(saved[name], weight) for name, weight in found[2].items()), "the checkpoint is from before it"


def test_packed_records_are_named_each(workspace: Path) -> None:
    path = write_formatted(paths.FORMATTED) / "sft" / "train.parquet"
    assert trainers.names(path, [[3, 1], [0], [2, 4]])([2, 0]) == [f"{record:016x}" for record in (2, 4, 3, 1)]


def test_the_records_of_a_step_are_those_of_the_order(workspace: Path) -> None:
    order = ByLength([5, 3, 9, 1, 2, 8, 7], 3, 11)
    for epoch in (0, 1):
        order.set_epoch(epoch)
        assert [row for step in range(3) for row in order.step(3 * epoch + step)] == list(order)


def test_early_stopping_and_the_best_score_go_on_too(kept_here: Kept) -> None:
    """Nothing sets them yet; who adds a callback with a state finds it again after a death."""
    trainer = supervised_trainer()
    waiting = EarlyStoppingCallback(early_stopping_patience=9)
    waiting.early_stopping_patience_counter = 4
    trainer.callback_handler.callbacks.append(waiting)
    trainer.args.max_steps = 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "on_train_begin", lambda *_, **__: None)  # which asks for settings that are not ours yet
        trainer.train_through(kept_here, lambda _: [])
        trainer.state.best_metric, trainer.state.best_global_step = 0.25, 1
        shutil.rmtree(kept_here.folder or Path())
        trainer._save_checkpoint(None, None)

        again = supervised_trainer()
        other = EarlyStoppingCallback(early_stopping_patience=9)
        patch.setattr(other, "on_train_begin", lambda *_, **__: None)
        again.callback_handler.callbacks.append(other)
        again.args.max_steps = 3
        again.train_through(kept_here, lambda _: [])
    assert other.early_stopping_patience_counter == 4
    assert (again.state.best_metric, again.state.best_global_step) == (0.25, 1)


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
