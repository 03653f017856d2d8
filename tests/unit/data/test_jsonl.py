"""Your own records: splits that adding records does not move, duplicates, contradictions, and sets that are too small."""

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from finetune.config.schema import Jsonl
from finetune.data import jsonl
from finetune.data.records import Prepared
from finetune.errors import DataError

Compose = Callable[..., Any]


@pytest.fixture
def settings(compose: Compose, workspace: Path) -> Jsonl:
    data = compose("data=jsonl").data
    assert isinstance(data, Jsonl)
    return data


def write(records: Iterable[dict[str, str]], pairs: Iterable[dict[str, str]]) -> None:
    for name, rows in (("records", records), ("preferences", pairs)):
        Path(f"data/raw/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def records(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"instruction": f"Say {number}.", "output": f"{number}."} for number in range(start, start + count)]


def pairs(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"Count to {number}.", "chosen": "Yes.", "rejected": "No."} for number in range(count)]


def splits(prepared: Prepared) -> dict[str, str]:
    """Record → split, conversations and pairs together."""
    sft = {record.id: split for split, rows in prepared.sft.items() for record in rows}
    return sft | {pair.id: f"preference {split}" for split, rows in prepared.preference.items() for pair in rows}


def test_adding_records_moves_none_of_the_old_ones(settings: Jsonl) -> None:
    write(records(200), pairs(60))
    before = splits(jsonl.build(settings))
    write(records(300, start=200) + records(200), pairs(90))
    after = splits(jsonl.build(settings))
    assert len(before) == 260
    assert before.items() <= after.items()
    assert len(after) == 590


def test_shares_are_about_what_was_asked_for(settings: Jsonl) -> None:
    write(records(2000), pairs(500))
    prepared = jsonl.build(settings)
    sizes = {split: len(list(rows)) for split, rows in prepared.sft.items()}
    assert sum(sizes.values()) == prepared.read - 500 == 2000
    assert 150 < sizes["test"] < 250
    assert 150 < sizes["validation"] < 250


def test_answers_to_one_prompt_are_in_one_split(settings: Jsonl, caplog: pytest.LogCaptureFixture) -> None:
    twice = [{**record, "output": record["output"] + "!"} for record in records(100)]
    write(records(100) + twice, pairs(30))
    with caplog.at_level(logging.INFO):
        prepared = jsonl.build(settings)
    where: dict[str, set[str]] = {}
    for split, rows in prepared.sft.items():
        for record in rows:
            where.setdefault(record.prompt[-1]["content"], set()).add(split)
    assert len(where) == 100
    assert all(len(in_splits) == 1 for in_splits in where.values())
    assert "100 more answers to a prompt that has one" in caplog.text


def test_the_input_is_put_below_the_instruction_and_the_system_message_before(settings: Jsonl) -> None:
    write([*records(60), {"instruction": "Translate.", "input": "Yes.", "output": "Oui."}], pairs(30))
    prepared = jsonl.build(settings.model_copy(update={"system": "Be brief."}))
    (record,) = [record for rows in prepared.sft.values() for record in rows if record.answer == "Oui."]
    assert record.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Translate.\n\nYes."},
        {"role": "assistant", "content": "Oui."},
    ]


def test_duplicates_are_left_out_and_counted_with_their_lines(settings: Jsonl) -> None:
    write(records(60) + records(2), pairs(30) + pairs(1))
    prepared = jsonl.build(settings)
    assert [refusal.row() for refusal in prepared.refused] == [
        {"place": "data/raw/records.jsonl:61", "rule": "duplicate"},
        {"place": "data/raw/records.jsonl:62", "rule": "duplicate"},
        {"place": "data/raw/preferences.jsonl:31", "rule": "duplicate"},
    ]
    assert len(splits(prepared)) == 90


def test_preference_prompts_are_none_of_the_records(settings: Jsonl) -> None:
    shared = {"prompt": "Say 1.", "chosen": "1.", "rejected": "2."}
    write(records(60), [*pairs(30), shared])
    prepared = jsonl.build(settings)
    assert [refusal.rule for refusal in prepared.refused] == ["its prompt is also in the records"]
    assert not any(pair.prompt[-1]["content"] == "Say 1." for rows in prepared.preference.values() for pair in rows)


def test_opposite_verdicts_are_a_contradiction(settings: Jsonl) -> None:
    opposite = {"prompt": "Count to 3.", "chosen": "No.", "rejected": "Yes."}
    write(records(60), [*pairs(30), opposite])
    with pytest.raises(DataError, match=r"preferences.jsonl:31: chosen and rejected are those of line 4 the other way round"):
        jsonl.build(settings)


def test_one_record_can_not_be_split(settings: Jsonl) -> None:
    write(records(1), pairs(30))
    with pytest.raises(DataError, match=r"records.jsonl: 1 different record left none for (train|validation|test), expected one at least"):
        jsonl.build(settings)


def test_pairs_that_all_share_their_prompts_with_records_leave_none(settings: Jsonl) -> None:
    write(records(60), [{"prompt": f"Say {number}.", "chosen": "Yes.", "rejected": "No."} for number in range(60)])
    with pytest.raises(DataError, match=r"preferences.jsonl: 0 different records left none for train") as raised:
        jsonl.build(settings)
    assert "60 were left out" in str(raised.value)


def test_problems_of_both_files_are_reported_together(settings: Jsonl) -> None:
    write([{"instruction": "x"}, *records(60)], [*pairs(30), {"prompt": ""}])
    with pytest.raises(DataError) as raised:
        jsonl.build(settings)
    assert [problem.split(": ")[0] for problem in raised.value.problems] == [
        "data/raw/records.jsonl:1",
        "data/raw/preferences.jsonl:31",
        "data/raw/preferences.jsonl:31",
        "data/raw/preferences.jsonl:31",
    ]


def test_a_missing_file_of_preferences_is_named(settings: Jsonl) -> None:
    write(records(60), [])
    Path("data/raw/preferences.jsonl").unlink()
    with pytest.raises(DataError, match=r"data/raw/preferences.jsonl: no such file"):
        jsonl.build(settings)


def test_ignored_fields_are_named_in_the_log(settings: Jsonl, caplog: pytest.LogCaptureFixture) -> None:
    write([{**record, "inputs": "x"} for record in records(60)], pairs(30))
    with caplog.at_level(logging.INFO):
        jsonl.build(settings)
    assert "ignored fields: inputs (60)" in caplog.text
