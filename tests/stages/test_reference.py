"""The stage reference: the pairs that dpo trains on, with the log-probabilities of models/train."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from finetune import paths
from finetune.errors import ModelError
from finetune.models import adapters
from finetune.models.scoring import label_logps, labelled
from stages import reference, train
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
    assert scored.column_names == ["id", "prompt_ids", "chosen_ids", "rejected_ids", "ref_chosen_logps", "ref_rejected_logps"]
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
