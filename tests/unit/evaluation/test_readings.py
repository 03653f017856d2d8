"""Answers and likelihoods are compared only where the models were asked the same."""

from pathlib import Path
from typing import Any

import pytest

from finetune import outputs, paths
from finetune.errors import DataError
from finetune.evaluation import readings


def answer(number: int, **changed: Any) -> dict[str, Any]:
    row = {"id": f"id{number}", "slice": "seen", "prompt": f"do {number}", "expected": "done", "answer": "done", "tokens": 2, "ended": True}
    return row | changed


def likelihood(number: int) -> list[dict[str, Any]]:
    return [
        {"kind": "validation", "id": f"v{number}", "slice": "seen", "logp": -1.0, "tokens": 3, "bytes": 9},
        {"kind": "preference", "id": f"p{number}", "slice": "seen", "chosen": -1.0, "rejected": -2.0},
    ]


@pytest.fixture
def written(workspace: Path) -> Path:
    for model in readings.MODELS:
        outputs.write_jsonl(paths.ANSWERS / f"{model}.jsonl", [answer(number) for number in range(4)])
        outputs.write_jsonl(paths.LIKELIHOODS / f"{model}.jsonl", [row for number in range(4) for row in likelihood(number)])
    return workspace


def test_rows_come_by_model_and_kind(written: Path) -> None:
    assert [len(rows) for rows in readings.answers().values()] == [4, 4, 4]
    assert [len(rows) for rows in readings.likelihoods()["dpo"].values()] == [4, 4, 0]


@pytest.mark.parametrize(("read", "folder"), [(readings.answers, paths.ANSWERS), (readings.likelihoods, paths.LIKELIHOODS)])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "found no such file"),
        ("", "found no line"),
        ('{"id": "id0", "sl', "found a line that is not JSON"),
        (b"\xff\xfe{}", "found a line that is not JSON"),
    ],
    ids=["missing", "empty", "truncated", "not UTF-8"],
)
def test_a_file_that_can_not_be_read_is_named_with_the_remedy(
    written: Path, read: Any, folder: Path, content: str | bytes | None, says: str
) -> None:
    path = folder / "train.jsonl"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=rf"{path}: {says}") as raised:
        read()
    assert "`dvc repro`, or `python -m stages.answer answer.which=train`" in str(raised.value)


def test_answers_to_another_test_set_name_both_files(written: Path) -> None:
    outputs.write_jsonl(paths.ANSWERS / "dpo.jsonl", [answer(number) for number in range(1, 6)])
    with pytest.raises(DataError) as raised:
        readings.answers()
    assert raised.value.problems == [
        "reports/answers/base.jsonl: found 1 record that reports/answers/dpo.jsonl has not, id0 for one",
        "reports/answers/dpo.jsonl: found 2 records that reports/answers/base.jsonl has not, id4 for one",
    ]


@pytest.mark.parametrize("changed", [{"prompt": "undo"}, {"expected": "undone"}, {"slice": "new_home"}])
def test_the_same_records_with_other_texts_are_refused(written: Path, changed: dict[str, str]) -> None:
    rows = [answer(0, **changed), *(answer(number) for number in range(1, 4))]
    outputs.write_jsonl(paths.ANSWERS / "train.jsonl", rows)
    with pytest.raises(
        DataError, match=r"train\.jsonl: found the records of reports/answers/base\.jsonl in another order or with other texts"
    ):
        readings.answers()


def test_likelihoods_of_other_records_are_refused(written: Path) -> None:
    outputs.write_jsonl(paths.LIKELIHOODS / "dpo.jsonl", [row for number in range(3) for row in likelihood(number)])
    with pytest.raises(DataError, match=r"likelihoods/base\.jsonl: found 1 record that reports/likelihoods/dpo\.jsonl has not, v3 for one"):
        readings.likelihoods()


@pytest.mark.parametrize("kind", ["validation", "preference"])
def test_a_kind_of_likelihood_that_is_missing_is_named(written: Path, kind: str) -> None:
    rows = [row for row in likelihood(0) if row["kind"] != kind]
    outputs.write_jsonl(paths.LIKELIHOODS / "train.jsonl", rows)
    with pytest.raises(DataError, match=rf"likelihoods/train\.jsonl: found no row of kind {kind}"):
        readings.likelihoods()
