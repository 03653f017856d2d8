"""The stage answer: one model's answers to the test prompts, and how likely it finds what it should say."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune import outputs, paths
from finetune.config.compose import validate
from finetune.data import tables
from finetune.errors import ConfigError, DataError, ModelError, OutputError
from finetune.evaluation import likelihoods
from finetune.models import adapters
from stages import answer, train
from tests.conftest import composed, full_disk

TEST = paths.FORMATTED / "sft" / "test.parquet"


def ask(which: str, *overrides: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run the stage; its answers and likelihoods."""
    answer.main(composed("experiment=tiny", f"answer.which={which}", *overrides))
    return outputs.read_jsonl(paths.ANSWERS / f"{which}.jsonl"), outputs.read_jsonl(paths.LIKELIHOODS / f"{which}.jsonl")


def forget(which: str) -> None:
    """Remove what the stage wrote, as DVC does before it runs one."""
    (paths.ANSWERS / f"{which}.jsonl").unlink()
    (paths.LIKELIHOODS / f"{which}.jsonl").unlink()


def test_test_prompts_are_answered_in_the_order_of_the_test_set(tiny_run: Path) -> None:
    prepared = [json.loads(line) for line in (tiny_run / paths.PREPARED / "sft" / "test.jsonl").read_text().splitlines()]
    texts = {record["id"]: (record["messages"][-2]["content"], record["messages"][-1]["content"]) for record in prepared}
    for which in ("base", "train", "dpo"):
        answers = outputs.read_jsonl(tiny_run / paths.ANSWERS / f"{which}.jsonl")
        assert len(answers) == 24
        assert [row["id"] for row in answers] == [name for name in texts if name in {row["id"] for row in answers}]
        assert all((row["prompt"], row["expected"]) == texts[row["id"]] for row in answers)
        assert all(list(row) == ["id", "slice", "prompt", "expected", "answer", "tokens", "ended"] for row in answers)
        assert all(1 <= row["tokens"] <= 8 for row in answers)


def test_the_loss_from_the_likelihoods_is_the_one_that_train_reported(tiny_copy: Path) -> None:
    _, scored = ask("train", "answer.limit=null")
    rows = [row for row in scored if row["kind"] == "validation"]
    loss = -sum(row["logp"] for row in rows) / sum(row["tokens"] for row in rows)
    assert loss == pytest.approx(outputs.read_json(paths.metrics("train"))["validation_loss"], abs=1e-4)


def test_full_weights_in_16_bits_are_scored_with_the_arithmetic_that_train_validated_with(tiny_copy: Path) -> None:
    # batches of one size, because 16 bits round by the shapes
    settings = ("train=full", "model.dtype=bfloat16", "train.per_device_train_batch_size=8", "answer.batch_size=8")
    shutil.rmtree(paths.TRAIN)
    train.main(composed("experiment=tiny", *settings))
    validated = outputs.read_json(paths.metrics("train"))["validation_loss"]
    losses = {}
    for arithmetic in ("bfloat16", "float32"):
        forget("train")
        _, scored = ask("train", "answer.limit=null", *settings, f"model.dtype={arithmetic}")
        rows = [row for row in scored if row["kind"] == "validation"]
        losses[arithmetic] = -sum(row["logp"] for row in rows) / sum(row["tokens"] for row in rows)
    assert losses["bfloat16"] == pytest.approx(validated, abs=1e-12)
    assert abs(losses["float32"] - validated) > 1e-8


def test_base_needs_nothing_that_was_trained(tiny_copy: Path) -> None:
    before = (paths.ANSWERS / "base.jsonl").read_bytes(), (paths.LIKELIHOODS / "base.jsonl").read_bytes()
    for folder in (paths.MODELS, paths.REPORTS, paths.REFERENCE):
        shutil.rmtree(folder)
    ask("base")
    assert ((paths.ANSWERS / "base.jsonl").read_bytes(), (paths.LIKELIHOODS / "base.jsonl").read_bytes()) == before


def test_train_does_not_read_what_dpo_made(tiny_copy: Path) -> None:
    shutil.rmtree(paths.DPO)
    ask("train")


def test_a_gpu_is_asked_for_sums_in_one_order(tiny_copy: Path) -> None:
    torch.use_deterministic_algorithms(False)
    ask("base")
    assert torch.are_deterministic_algorithms_enabled()


def test_batches_change_no_answer(tiny_copy: Path) -> None:
    one, _ = ask("train", "answer.batch_size=1")
    many, _ = ask("train", "answer.batch_size=7")
    assert one == many


def test_a_limit_is_for_each_slice_and_each_kind(tiny_copy: Path) -> None:
    answers, scored = ask("base", "answer.limit=3")
    assert Counter(row["slice"] for row in answers) == {"seen": 3, "new_home": 3, "new_phrasing": 3}
    assert Counter(row["kind"] for row in scored) == {"validation": 3, "preference": 3}


def test_a_4_bit_adapter_is_also_scored_over_the_base_it_was_trained_on(tiny_copy: Path) -> None:
    shutil.rmtree(paths.TRAIN)
    train.main(composed("experiment=tiny", "train=qlora"))
    _, scored = ask("train", "train=qlora")
    kinds = {kind: [row for row in scored if row["kind"] == kind] for kind in ("validation", "validation_4bit", "preference")}
    assert [len(rows) for rows in kinds.values()] == [8, 8, 8]
    assert [row["id"] for row in kinds["validation"]] == [row["id"] for row in kinds["validation_4bit"]]
    assert [row["logp"] for row in kinds["validation"]] != [row["logp"] for row in kinds["validation_4bit"]]


def test_an_unknown_model_is_refused_with_the_settings() -> None:
    values = composed().model_dump()
    values["answer"]["which"] = "sft"
    with pytest.raises(ConfigError, match=r"answer\.which: found 'sft', expected 'base', 'train' or 'dpo'"):
        validate(values)


@pytest.mark.parametrize("which", ["train", "dpo"])
def test_a_model_that_is_not_there_is_named_with_the_remedy(tiny_copy: Path, which: str) -> None:
    forget(which)
    shutil.rmtree(paths.MODELS)
    with pytest.raises(ModelError, match=rf"models/{which}.*run `dvc repro`"):
        ask(which)
    assert not list(paths.REPORTS.rglob(f"*{which}.jsonl*"))


def test_tokens_of_another_test_set_are_refused(tiny_copy: Path) -> None:
    rows = tables.read(TEST)
    rows[3]["id"] = "another"
    tables.write(TEST, tables.SFT, rows)
    with pytest.raises(DataError, match=r"found record another, which data/prepared/sft/test\.jsonl has not"):
        ask("base")


def test_ctrl_c_leaves_nothing_and_the_same_command_then_works(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    forget("dpo")
    with monkeypatch.context() as patch:
        patch.setattr(likelihoods, "of_pairs", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ask("dpo")
    assert not list(paths.REPORTS.rglob("*dpo.jsonl*"))
    assert len(ask("dpo")[0]) == 24


def test_a_full_disk_leaves_no_half_file(tiny_copy: Path) -> None:
    forget("base")
    with full_disk(), pytest.raises(OutputError, match=r"reports/answers/base\.jsonl: the disk is full"):
        ask("base")
    assert not list(paths.REPORTS.rglob("*base.jsonl*"))


def test_full_weights_are_asked_as_they_are(tiny_copy: Path) -> None:
    shutil.rmtree(paths.TRAIN)
    train.main(composed("experiment=tiny", "train=full", "dpo=full"))
    assert adapters.Tuned.of(paths.TRAIN).method == "full"
    assert len(ask("train", "train=full", "dpo=full")[0]) == 24
