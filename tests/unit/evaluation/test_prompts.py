"""Test prompts: the tokens of format, with the words of prepare beside them."""

from pathlib import Path

import pytest

from finetune import outputs
from finetune.data import tables
from finetune.errors import DataError
from finetune.evaluation import prompts


def write(ids: str, formatted: str | None = None) -> None:
    """A test set of records named by single letters, those before `n` seen; `formatted`: those that format kept, where not all."""
    slices = {letter: "seen" if letter < "n" else "new_home" for letter in ids + (formatted or "")}
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "first"}, {"role": "assistant", "content": "yes"}]
    outputs.write_jsonl(
        prompts.TEXTS,
        (
            {
                "id": letter,
                "slice": slices[letter],
                "messages": [*turns, {"role": "user", "content": f"do {letter}"}, {"role": "assistant", "content": letter}],
            }
            for letter in ids
        ),
    )
    rows = [
        {"id": letter, "slice": slices[letter], "input_ids": [1, 8, 9, ord(letter), 2], "labels": [-100, -100, -100, ord(letter), 2]}
        for letter in formatted or ids
    ]
    tables.write(prompts.TOKENS, tables.SFT, rows)


def test_a_prompt_is_what_stands_before_the_answer_and_the_last_that_the_user_said(workspace: Path) -> None:
    write("b")
    assert prompts.test_prompts(None) == [prompts.Prompt("b", "seen", "do b", "b", [1, 8, 9], 2)]


def test_earlier_answers_belong_to_the_prompt_where_they_are_learned_too(workspace: Path) -> None:
    write("b")
    row = {"id": "b", "slice": "seen", "input_ids": [1, 7, 2, 8, 9, 5, 2], "labels": [-100, 7, 2, -100, -100, 5, 2]}
    tables.write(prompts.TOKENS, tables.SFT, [row])
    (prompt,) = prompts.test_prompts(None)
    assert (prompt.ids, prompt.last) == ([1, 7, 2, 8, 9], 2)


def test_a_limit_is_for_each_slice_and_keeps_the_order(workspace: Path) -> None:
    write("apbqcr")
    assert [prompt.id for prompt in prompts.test_prompts(2)] == ["a", "p", "b", "q"]
    assert [prompt.id for prompt in prompts.test_prompts(None)] == list("apbqcr")


def test_records_that_format_dropped_are_not_asked(workspace: Path) -> None:
    write("abc", formatted="ac")
    assert [prompt.id for prompt in prompts.test_prompts(None)] == ["a", "c"]


def test_tokens_of_another_test_set_are_refused(workspace: Path) -> None:
    write("abc", formatted="axy")
    with pytest.raises(DataError, match=r"test\.parquet: found record x, which data/prepared/sft/test\.jsonl has not") as raised:
        prompts.test_prompts(None)
    assert len(raised.value.problems) == 2
    assert "`dvc repro`" in str(raised.value)


def test_plain_texts_and_cut_conversations_are_passed_over(workspace: Path) -> None:
    write("abc")
    texts = list(outputs.read_jsonl(prompts.TEXTS))
    texts[0] = texts[0] | {"messages": texts[0]["messages"][-1:]}
    outputs.write_jsonl(prompts.TEXTS, texts)
    rows = tables.read(prompts.TOKENS)
    rows[0] = rows[0] | {"labels": rows[0]["input_ids"]}
    rows[1] = rows[1] | {"labels": [-100, 8, 9, -100, -100]}
    tables.write(prompts.TOKENS, tables.SFT, rows)
    assert [prompt.id for prompt in prompts.test_prompts(None)] == ["c"]

    tables.write(prompts.TOKENS, tables.SFT, rows[:2])
    with pytest.raises(DataError, match=r"test\.jsonl: found 2 plain or cut texts, expected at least one question"):
        prompts.test_prompts(None)
