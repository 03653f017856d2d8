"""The stage reference: the pairs that dpo trains on, with the log-probabilities of models/train."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from finetune import outputs, paths
from finetune.errors import DataError, ModelError
from finetune.models import adapters
from finetune.models.scoring import label_logps, labelled
from stages import dpo, reference, train
from tests.conftest import composed
from tests.tokens import write_formatted


@pytest.fixture
def trained(workspace: Path) -> Path:
    write_formatted(paths.FORMATTED)
    train.main(composed("experiment=tiny"))
    return workspace


def test_pairs_pass_through_with_the_scores_of_the_trained_model(trained: Path) -> None:
    cfg = composed("experiment=tiny")
    reference.main(cfg)
    given = pq.read_table(paths.FORMATTED / "preference" / "train.parquet")
    scored = pq.read_table(paths.REFERENCE / "train.parquet")
    assert scored.column_names == ["id", "rule", "prompt_ids", "chosen_ids", "rejected_ids", "ref_chosen_logps", "ref_rejected_logps"]
    for name in ("id", "prompt_ids", "chosen_ids", "rejected_ids"):
        assert scored[name].to_pylist() == given[name].to_pylist()

    model = adapters.load_tuned(cfg.model, paths.TRAIN)
    rows = [labelled(row["prompt_ids"], row["rejected_ids"]) for row in given.to_pylist()]
    again = label_logps(model, rows, 3, 0, "again", torch.float32).tolist()
    assert scored["ref_rejected_logps"].to_pylist() == pytest.approx(again, abs=1e-3)

    report = json.loads(paths.metrics("reference").read_text())
    assert report["pairs"] == 16
    assert report["rejected_logp"] == pytest.approx(sum(scored["ref_rejected_logps"].to_pylist()) / 16)


def test_the_same_model_and_pairs_give_the_same_bytes(trained: Path) -> None:
    reference.main(composed("experiment=tiny"))
    first = (paths.REFERENCE / "train.parquet").read_bytes()
    reference.main(composed("experiment=tiny"))
    assert (paths.REFERENCE / "train.parquet").read_bytes() == first


def test_without_a_trained_model_it_says_how_to_get_one(workspace: Path) -> None:
    with pytest.raises(ModelError, match="run `dvc repro`"):
        reference.main(composed("experiment=tiny"))


def on_policy(*overrides: str) -> list[dict[str, Any]]:
    """Run it with answers of the trained model, and return the rows of data/reference/train.parquet."""
    options = ("reference.max_new_tokens=12", "reference.samples=3", *overrides)
    reference.main(composed("experiment=tiny", "reference=on_policy", *options))
    return pq.read_table(paths.REFERENCE / "train.parquet").to_pylist()  # type: ignore[no-any-return]


def test_given_pairs_are_reported_with_lengths_and_what_is_preferred(trained: Path) -> None:
    reference.main(composed("experiment=tiny"))
    report = json.loads(paths.metrics("reference").read_text())
    rows = pq.read_table(paths.REFERENCE / "train.parquet").to_pylist()
    assert report["longer"] == sum(len(row["chosen_ids"]) > len(row["rejected_ids"]) for row in rows) / 16
    assert report["preferred"] == sum(row["ref_chosen_logps"] > row["ref_rejected_logps"] for row in rows) / 16
    assert (report["identical"], report["chosen_worse"], report["both_right"]) == (0, 0, 0)
    assert {row["rule"] for row in rows} == {"given"}
    assert "sampled" not in report
    assert not (paths.REFERENCE / "samples.jsonl").exists()


def test_on_policy_pairs_are_the_trained_models_own_wrong_answers(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = on_policy()
    given = {row["id"]: row for row in pq.read_table(paths.FORMATTED / "preference" / "train.parquet").to_pylist()}
    shown = {row["id"]: row for row in outputs.read_jsonl(paths.REFERENCE / "samples.jsonl")}
    assert len(rows) == len(shown) == 16
    for row in rows:
        assert row["rule"] == "on-policy: exact match"
        assert (row["prompt_ids"], row["chosen_ids"]) == (given[row["id"]]["prompt_ids"], given[row["id"]]["chosen_ids"])
        assert row["rejected_ids"] != given[row["id"]]["rejected_ids"]
        answers = shown[row["id"]]["samples"]
        wrong = [answer for answer in answers if answer["verdict"] == "wrong"] or answers
        assert (shown[row["id"]]["rejected"], len(row["rejected_ids"])) == (wrong[0]["text"], wrong[0]["tokens"])

    report = json.loads(paths.metrics("reference").read_text())
    assert report["sampled"] == {
        "prompts": 16,
        "all_right": 0,
        "all_wrong": 16,
        "right": 0,
        "wrong": sum(answer["verdict"] == "wrong" for row in shown.values() for answer in row["samples"]),
        "cut": sum(answer["verdict"] == "cut" for row in shown.values() for answer in row["samples"]),
    }
    assert report["sampled"]["wrong"] + report["sampled"]["cut"] == 48
    assert "none of the answers that models/train gave to 16 prompts is right by exact match" in caplog.text


def test_on_policy_pairs_are_the_same_in_another_run_and_batch_and_others_with_another_seed(trained: Path) -> None:
    on_policy()
    files = {name: (paths.REFERENCE / name).read_bytes() for name in ("train.parquet", "samples.jsonl")}
    rejected = [row["rejected_ids"] for row in on_policy()]
    assert {name: (paths.REFERENCE / name).read_bytes() for name in files} == files
    assert [row["rejected_ids"] for row in on_policy("reference.batch_size=5")] == rejected
    assert [row["rejected_ids"] for row in on_policy("seed=18")] != rejected


def test_too_few_on_policy_pairs_leave_no_output(trained: Path) -> None:
    with pytest.raises(DataError, match=r"found 16 pairs \(16 prompts, 0 with right samples alone, 16 with none\)"):
        on_policy("reference.min_pairs=17")
    assert not paths.REFERENCE.exists()


def test_dpo_trains_on_on_policy_pairs(trained: Path) -> None:
    on_policy()
    dpo.main(composed("experiment=tiny"))
    report = json.loads(paths.metrics("dpo").read_text())
    assert report["pairs"] == 16
    assert report["first"]["loss"] == pytest.approx(0.693147, abs=1e-5)
