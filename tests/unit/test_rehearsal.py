"""The rehearsal says what prepare and format would refuse, all of it at once, and leaves no output behind."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.config.schema import Config
from finetune.errors import DataError, TrainingError
from finetune.rehearsal import rehearse

Compose = Callable[..., Config]


def write(count: int, more: str = "") -> None:
    records = [{"instruction": f"Say {number}.", "output": f"{number}."} for number in range(count)]
    pairs = [{"prompt": f"Count to {number}.", "chosen": "Yes.", "rejected": "No."} for number in range(40)]
    Path("data/raw").mkdir(parents=True, exist_ok=True)
    for name, rows, end in (("records", records, more), ("preferences", pairs, "")):
        Path(f"data/raw/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + end, encoding="utf-8")


def test_what_a_full_run_takes_is_not_refused(workspace: Path, compose: Compose, caplog: pytest.LogCaptureFixture) -> None:
    write(60, '{"instruction": "Say 7.", "output": "7."}\n')
    caplog.set_level("INFO")
    assert rehearse(compose("model=tiny", "data=files"), megabytes=1) == ([], True)
    assert "kept 100 of 101 records: 1 duplicate" in caplog.text
    assert "  duplicate: data/raw/records.jsonl:61: Say 7. 7." in caplog.text
    assert "below 100 a model learns a form of answer" in caplog.text
    assert not Path("data/prepared").exists()
    assert not Path("data/formatted").exists()


def test_all_that_would_be_refused_is_told_at_once_and_by_its_place(workspace: Path, compose: Compose) -> None:
    write(60, '{"instruction": 5}\n' + json.dumps({"instruction": "Count.", "output": "one two " * 200}) + "\n")
    settings = compose(
        "model=tiny", "data=files", "data.quality.max_repetition=null", "train.num_train_epochs=9", "prepare.min_records=500"
    )
    refused, whole = rehearse(settings, megabytes=1)
    assert whole
    malformed, few, overlong, overfitting = refused
    assert 'data/raw/records.jsonl:61: "instruction" is a number, expected text' in str(malformed)
    assert "found 51 training records, expected prepare.min_records=500 at least" in str(few)
    assert "data/raw/records.jsonl:62: found " in str(overlong)
    assert "expected at most format.max_length=256" in str(overlong)
    assert isinstance(overfitting, TrainingError)


def test_of_much_data_the_beginning_is_tried_and_sizes_are_not_judged(workspace: Path, compose: Compose) -> None:
    write(60_000)
    refused, whole = rehearse(compose("model=tiny", "data=files", "prepare.min_records=70000"), megabytes=1)
    assert (refused, whole) == ([], False)


def test_contamination_that_is_to_be_refused_does_not_hide_what_format_refuses(workspace: Path, compose: Compose) -> None:
    asked = [f"Tell me in a few plain words what story number {number} of the old book is about" for number in range(60)]
    records = [{"instruction": f"{text}{end}", "output": f"Of {text[-40:]}."} for text in asked for end in (".", ". Please.")]
    write(0)
    Path("data/raw/records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records), encoding="utf-8")
    plain = ["data.quality.near_duplicates=null", "data.quality.contaminated=refuse", "format.max_length=32"]
    (contaminated, overlong), _ = rehearse(compose("model=tiny", "data=files", *plain), 1)
    assert isinstance(contaminated, DataError)
    assert "training records hold records that are held out" in str(contaminated)
    assert "expected at most format.max_length=32" in str(overlong)


def test_the_embedded_data_is_tried_whole(workspace: Path, compose: Compose) -> None:
    assert rehearse(compose("experiment=tiny"), megabytes=1) == ([], True)
