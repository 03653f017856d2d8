"""What a run left to tell, flat."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune import outputs, paths
from finetune.errors import DataError
from finetune.reporting import evidence
from tests.conftest import Compose


def test_settings_are_flat_and_searchable(compose: Compose) -> None:
    flat = evidence.settings(compose("train.r=4"))
    assert (flat["train.r"], flat["seed"], flat["model.name"]) == (4, 17, "smollm2_135m")
    assert flat["data.areas.kitchen.light"].count(", ") >= 1
    assert not [key for key in flat if key.startswith("tracking")]


def test_numbers_leave_out_single_steps_and_words(metrics: dict[str, Any]) -> None:
    numbers = evidence.numbers(metrics)
    assert numbers["evaluate.dpo.seen.exact_match"] == 0.79
    assert numbers["dpo.first.loss"] == pytest.approx(0.693147)
    assert "train.steps" not in numbers
    assert "prepare.license" not in numbers


def test_every_stage_is_read(workspace: Path, metrics: dict[str, Any]) -> None:
    for stage, found in metrics.items():
        outputs.write_json(paths.metrics(stage), found)
    outputs.write_jsonl(paths.SAMPLES, [])
    assert evidence.read() == metrics


def test_all_stages_that_have_not_run_are_named_at_once_with_the_remedy(workspace: Path, metrics: dict[str, Any]) -> None:
    outputs.write_json(paths.metrics("train"), metrics["train"])
    with pytest.raises(DataError, match="run `dvc repro`") as raised:
        evidence.read()
    assert len(raised.value.problems) == len(evidence.STAGES)  # all but train's, and the samples
    assert raised.value.problems[0] == "reports/prepare.json: found no such file, expected what an earlier stage writes there"


def test_lengths_count_the_tokens_that_were_trained_on(workspace: Path) -> None:
    tables = {
        paths.FORMATTED / "sft": {"input_ids": [[1, 2, 3], [1]]},
        paths.REFERENCE: {"prompt_ids": [[1, 2]], "chosen_ids": [[3]], "rejected_ids": [[3, 4, 5]]},
    }
    for folder, columns in tables.items():
        folder.mkdir(parents=True)
        pq.write_table(pa.table(columns), folder / "train.parquet")
    assert {name: list(lengths) for name, lengths in evidence.lengths().items()} == {"supervised": [3, 1], "preference": [5]}
