"""Which pair a prompt gives, from the verdicts on the model's own answers to it."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from finetune.config.schema import OnPolicy
from finetune.data import tables
from finetune.errors import DataError
from finetune.evaluation import on_policy
from finetune.evaluation.generation import Answer
from finetune.evaluation.on_policy import RULE, Asked, Sampled
from finetune.evaluation.pairs import GIVEN
from tests.conftest import composed

END = 2
ASKED = Asked("a" * 16, "seen", [5, 6], [7, 8, END], ['{"intent": "A", "name": "b"}'])
RIGHT = Answer('{"name": "b", "intent": "A"}', [9, END], ended=True)
WRONG = Answer("no", [10, END], ended=True)
OTHER = Answer("never", [11, 12, END], ended=True)
CUT = Answer('{"intent": "A", "name": "b"}', [13, 14, 15], ended=False)  # right as far as it goes, but it never ended


def settings(*overrides: str) -> OnPolicy:
    found = composed("experiment=tiny", "reference=on_policy", *overrides).reference
    assert isinstance(found, OnPolicy)
    return found


def test_verdicts_are_the_judges_and_an_answer_that_never_ended_is_cut() -> None:
    assert Sampled(ASKED, [RIGHT, WRONG, CUT]).verdicts == ["right", "wrong", "cut"]


def test_the_first_wrong_answer_is_rejected_for_what_was_expected() -> None:
    pair = Sampled(ASKED, [CUT, RIGHT, WRONG, OTHER]).pair("expected")
    assert pair is not None
    assert (pair.rejected_ids, pair.rejected) == ([10, END], "no")
    assert (pair.chosen_ids, pair.chosen) == ([7, 8, END], ASKED.right[0])
    assert (pair.id, pair.rule, pair.prompt_ids) == (ASKED.id, RULE, [5, 6])


def test_sampled_takes_the_models_own_right_answer_where_it_has_one() -> None:
    own = Sampled(ASKED, [WRONG, RIGHT]).pair("sampled")
    none = Sampled(ASKED, [WRONG, OTHER]).pair("sampled")
    assert own is not None
    assert none is not None
    assert (own.chosen_ids, own.chosen) == (RIGHT.ids, RIGHT.text)
    assert none.chosen_ids == ASKED.expected_ids


def test_a_cut_answer_is_rejected_where_no_other_is_wrong_and_has_no_end_token() -> None:
    pair = Sampled(ASKED, [RIGHT, CUT]).pair("expected")
    assert pair is not None
    assert pair.rejected_ids == CUT.ids
    assert END not in pair.rejected_ids


def test_a_prompt_that_is_always_answered_right_gives_no_pair() -> None:
    assert Sampled(ASKED, [RIGHT, RIGHT]).pair("expected") is None


def test_prompts_and_samples_are_counted_by_verdict() -> None:
    found = [Sampled(ASKED, [RIGHT, RIGHT]), Sampled(ASKED, [WRONG, CUT]), Sampled(ASKED, [RIGHT, WRONG])]
    assert on_policy.counted(found) == {"prompts": 3, "all_right": 1, "all_wrong": 1, "right": 3, "wrong": 2, "cut": 1}
    assert len(on_policy.pairs(found, settings("reference.min_pairs=2"))) == 2


def test_too_few_pairs_are_refused_with_what_was_found_and_what_to_do() -> None:
    found = [Sampled(ASKED, [RIGHT, RIGHT]), Sampled(ASKED, [WRONG, WRONG])]
    with pytest.raises(DataError) as raised:
        on_policy.pairs(found, settings())
    assert raised.value.problems == [
        "models/train: found 1 pairs (2 prompts, 1 with right samples alone, 1 with none), expected at least reference.min_pairs=8"
    ]
    assert "raise reference.temperature or reference.samples" in str(raised.value)


@pytest.fixture
def given(workspace: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    def ids(text: str) -> list[int]:
        return [*tokenizer.encode(text), END]

    rows = [
        {"id": "a", "slice": "all", "prompt_ids": [5, 6], "chosen_ids": ids("yes"), "rejected_ids": ids("no")},
        {"id": "b", "slice": "all", "prompt_ids": [5, 6], "chosen_ids": ids("aye"), "rejected_ids": ids("nay")},
        {"id": "c", "slice": "all", "prompt_ids": [7], "chosen_ids": ids("yes"), "rejected_ids": ids("no")},
    ]
    tables.write(GIVEN, tables.PREFERENCE, rows)
    return workspace


def test_the_given_prompts_are_asked_each_once(given: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    asked, end = on_policy.prompts(tokenizer)
    assert [(one.id, one.right) for one in asked] == [("a", ["yes", "aye"]), ("c", ["yes"])]
    assert asked[0].expected_ids == [*tokenizer.encode("yes"), END]
    assert end == END
