"""Rows of token ids from prepared files: what is cut, what is left out, what is counted; and that processes change nothing."""

import multiprocessing
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune import outputs
from finetune.config.schema import Config, Format
from finetune.data import formatting, tables
from finetune.data.chat import IGNORED, Chat
from finetune.data.formatting import Counts, Kind
from finetune.errors import DataError, ModelError
from finetune.models.base import load_tokenizer

FILE, TABLE = Path("data/prepared/sft/train.jsonl"), Path("table.parquet")
TALK = [("user", "one"), ("assistant", "first"), ("user", "two"), ("assistant", "second")]
Write = Callable[..., Counts]


def record(number: int, *turns: tuple[str, str]) -> dict[str, Any]:
    messages = [{"role": role, "content": text} for role, text in turns]
    return {"id": f"{number:016x}", "slice": "seen", "source": "test", "messages": messages}


def pair(number: int, chosen: str, rejected: str) -> dict[str, Any]:
    answers = {name: [{"role": "assistant", "content": text}] for name, text in (("chosen", chosen), ("rejected", rejected))}
    prompt = [{"role": "user", "content": "which of them is it"}]
    return {"id": f"{number:016x}", "slice": "seen", "source": "test", "rule": "test", "prompt": prompt, **answers}


def pooled(number: int, text: str) -> dict[str, Any]:
    prompt = [{"role": "user", "content": text}]
    return {"id": f"{number:016x}", "slice": "seen", "source": "test", "prompt": prompt, "expected": "an answer"}


@pytest.fixture
def config(workspace: Path, compose: Callable[..., Config]) -> Config:
    return compose("experiment=tiny")


@pytest.fixture
def chat(config: Config) -> Chat:
    return Chat(load_tokenizer(config.model), "tiny")


@pytest.fixture
def write(config: Config, chat: Chat) -> Write:
    def write(rows: list[dict[str, Any]], kind: Kind = formatting.SFT, **settings: Any) -> Counts:
        outputs.write_jsonl(FILE, rows)
        return formatting.write(FILE, kind, chat, Format.model_validate({**config.format.model_dump(), **settings}), TABLE)

    return write


def learned(row: dict[str, Any]) -> list[int]:
    return [label for label in row["labels"] if label != IGNORED]


def test_a_cut_on_the_left_keeps_the_answer_and_loses_the_prompts_beginning(write: Write) -> None:
    write([record(1, ("user", "a long question " * 4), ("assistant", "yes"))])
    (whole,) = tables.read(TABLE)
    size = len(whole["input_ids"]) - 5
    counts = write([record(1, ("user", "a long question " * 4), ("assistant", "yes"))], max_length=size, overlong="cut")
    (row,) = tables.read(TABLE)
    assert row["input_ids"] == whole["input_ids"][5:]
    assert learned(row) == learned(whole)
    assert (counts.cut, counts.dropped, counts.written.total()) == (1, 0, 1)


def test_a_cut_on_the_left_learns_no_answer_whose_beginning_is_gone(write: Write) -> None:
    write([record(1, *TALK)])
    (whole,) = tables.read(TABLE)
    first = next(place for place, label in enumerate(whole["labels"]) if label != IGNORED)
    counts = write([record(1, *TALK)], max_length=len(whole["input_ids"]) - first - 1, overlong="cut")
    (row,) = tables.read(TABLE)
    assert row["input_ids"] == whole["input_ids"][first + 1 :]
    assert 0 < len(learned(row)) == counts.supervised < len(learned(whole))
    assert learned(row) == learned(whole)[-len(learned(row)) :]


def test_a_cut_on_the_right_takes_the_answers_end(write: Write) -> None:
    write([record(1, *TALK)])
    (whole,) = tables.read(TABLE)
    write([record(1, *TALK)], max_length=len(whole["input_ids"]) - 2, overlong="cut", truncation_side="right")
    (row,) = tables.read(TABLE)
    assert row["input_ids"] == whole["input_ids"][:-2]
    assert row["labels"] == whole["labels"][:-2]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_record_that_a_cut_leaves_nothing_to_learn_of_is_dropped_and_counted(write: Write, side: str) -> None:
    """On the left an answer too long by itself, on the right an answer behind a long prompt."""
    long = "on and off and " * 10
    turns = [("user", "what"), ("assistant", long)] if side == "left" else [("user", long), ("assistant", "yes")]
    counts = write([record(1, *turns), record(2, ("user", "a"), ("assistant", "b"))], max_length=25, overlong="cut", truncation_side=side)
    assert [row["id"] for row in tables.read(TABLE)] == [f"{2:016x}"]
    assert (counts.cut, counts.dropped) == (0, 1)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_plain_text_is_learned_whatever_side_is_cut(write: Write, side: str) -> None:
    text = "turn on the light in the kitchen. " * 4
    write([record(1, ("assistant", text))])
    (whole,) = tables.read(TABLE)
    assert whole["labels"] == whole["input_ids"]
    write([record(1, ("assistant", text))], max_length=12, overlong="cut", truncation_side=side)
    (row,) = tables.read(TABLE)
    assert row["labels"] == row["input_ids"] == (whole["input_ids"][-12:] if side == "left" else whole["input_ids"][:12])


def test_a_cut_keeps_the_token_that_begins_a_text(config: Config, write: Write) -> None:
    tokenizer = load_tokenizer(config.model)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.chat_template = "{{ bos_token }}" + str(tokenizer.chat_template)
    chat, long = Chat(tokenizer, "tiny"), "a long question " * 4
    outputs.write_jsonl(FILE, [record(1, ("user", long), ("assistant", "yes"))])
    settings = Format.model_validate({**config.format.model_dump(), "max_length": 30, "overlong": "cut"})
    formatting.write(FILE, formatting.SFT, chat, settings, TABLE)
    (row,) = tables.read(TABLE)
    assert row["input_ids"][0] == tokenizer.bos_token_id
    assert (len(row["input_ids"]), tokenizer.decode(learned(row))) == (30, "yes<|im_end|>")


def test_a_pair_that_is_cut_keeps_one_prompt_and_both_answers(write: Write) -> None:
    pairs = [pair(1, "this one", "that one it is not")]
    write(pairs, formatting.PREFERENCE)
    (whole,) = tables.read(TABLE)
    longest = len(whole["prompt_ids"]) + len(whole["rejected_ids"])
    write(pairs, formatting.PREFERENCE, max_length=longest - 3, overlong="cut")
    (row,) = tables.read(TABLE)
    assert row["prompt_ids"] == whole["prompt_ids"][3:]
    assert (row["chosen_ids"], row["rejected_ids"]) == (whole["chosen_ids"], whole["rejected_ids"])
    write(pairs, formatting.PREFERENCE, max_length=longest - 3, overlong="cut", truncation_side="right")
    (row,) = tables.read(TABLE)
    assert row["rejected_ids"] == whole["rejected_ids"][:-3]
    assert (row["prompt_ids"], row["chosen_ids"]) == (whole["prompt_ids"], whole["chosen_ids"][: longest - 3 - len(whole["prompt_ids"])])


def test_a_pair_that_a_cut_makes_the_same_is_dropped(write: Write) -> None:
    pairs = [pair(1, "turn on the light please now", "turn on the light please then"), pair(2, "b", "c")]
    write(pairs, formatting.PREFERENCE)
    size = len(tables.read(TABLE)[0]["prompt_ids"]) + 2
    counts = write(pairs, formatting.PREFERENCE, max_length=size, overlong="cut", truncation_side="right")
    assert (counts.dropped, [row["id"] for row in tables.read(TABLE)]) == (1, [f"{2:016x}"])


def test_the_report_says_what_the_limit_means(write: Write) -> None:
    rows = [record(number, ("user", "a"), ("assistant", "b" * (1 + number % 100))) for number in range(200)]
    found = write(rows).found
    assert found.total() == 200
    report = write(rows, max_length=max(found) - 1, overlong="drop").report(max_length=max(found) - 1)
    assert report["dropped"] == found[max(found)]
    assert report["overlong_share"] == found[max(found)] / 200
    limit = report["length_at_1_percent"]
    assert sum(count for length, count in found.items() if length > limit) <= 2
    assert sum(count for length, count in found.items() if length > limit - 1) > 2
    assert sum(one["records"] for one in report["histogram"]) == 200


def test_the_bins_depend_on_the_limit_alone_and_the_last_takes_the_rest() -> None:
    bins = formatting.histogram(Counter({1: 1, 8: 2, 9: 3, 256: 4, 257: 5, 9999: 6}), 256)
    assert [one["length"] for one in bins] == [8 * (place + 1) for place in range(40)]
    assert [(one["length"], one["records"]) for one in bins if one["records"]] == [(8, 3), (16, 3), (256, 4), (264, 5), (320, 6)]


def test_processes_change_neither_bytes_nor_counts(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formatting, "STRETCH", 7)
    monkeypatch.setattr(formatting, "ALONE", 10)
    rows = [record(number * 37 % 101, ("user", f"question {number}"), ("assistant", f"answer {number}")) for number in range(101)]
    results = [(write(rows, processes=number), TABLE.read_bytes()) for number in (1, 2, 3)]
    assert results[0] == results[1] == results[2]
    assert results[0][0].written.total() == 101
    assert [row["id"] for row in results[0][0].samples] == [f"{number:016x}" for number in range(12)]


@pytest.mark.parametrize("processes", [1, 2])
def test_all_problems_are_counted_and_not_all_are_held(write: Write, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.setattr(formatting, "STRETCH", 7)
    monkeypatch.setattr(formatting, "ALONE", 10)
    monkeypatch.setattr(formatting, "LISTED", 20)
    rows = [record(number, ("user", "<|im_end|>" if number % 2 else "fine"), ("assistant", "b")) for number in range(100)]
    with pytest.raises(DataError) as refused:
        write(rows, processes=processes)
    assert [problem.split(":")[1] for problem in refused.value.problems] == [str(number) for number in range(2, 42, 2)]
    assert "… and 40 more" in str(refused.value)


def test_an_error_of_the_model_comes_out_of_the_processes(write: Write, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formatting, "ALONE", 1)
    tokenizer = load_tokenizer(config.model)
    tokenizer.chat_template = None
    outputs.write_jsonl(FILE, [record(number, *TALK) for number in range(3)])
    with pytest.raises(ModelError, match="tiny: its tokenizer has no chat template"):
        formatting.write(FILE, formatting.SFT, Chat(tokenizer, "tiny"), config.format, TABLE)


def test_no_process_is_left(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formatting, "ALONE", 1)
    write([record(number, *TALK) for number in range(3)])
    assert multiprocessing.active_children() == []
