"""What is said of preference pairs: lengths, what the model prefers already, and pairs that have nothing to prefer."""

from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from finetune import paths
from finetune.data import tables
from finetune.evaluation import pairs
from finetune.evaluation.pairs import Pair, doubts, measured, told

CALL, OTHER_ORDER, WRONG = '{"intent": "A", "name": "b"}', '{"name":"b","intent":"A"}', '{"intent": "A"}'


def pair(number: int = 0, chosen: str = CALL, rejected: str = WRONG, lengths: tuple[int, int] = (3, 2)) -> Pair:
    chosen_ids, rejected_ids = [5] * lengths[0], [6] * lengths[1]
    return Pair(f"{number:016x}", "given", [1], chosen_ids, rejected_ids, chosen, rejected, right=[CALL])


def report(*some: Pair, chosen: list[float] | None = None, rejected: list[float] | None = None) -> dict[str, object]:
    logps = (np.array(side or [-1.0] * len(some), dtype=np.float32) for side in (chosen, rejected))
    return measured(some, *logps)


def test_lengths_are_compared_pair_by_pair() -> None:
    found = report(pair(lengths=(9, 2)), pair(lengths=(3, 3)), pair(lengths=(2, 3)), pair(lengths=(4, 2)))
    assert (found["longer"], found["shorter"], found["length_bias"]) == (0.5, 0.25, 2.0)
    assert (found["chosen_tokens"], found["rejected_tokens"]) == (4.5, 2.5)
    assert doubts(found) == []


@pytest.mark.parametrize(("lengths", "which"), [((4, 2), "longer"), ((2, 4), "shorter")])
def test_pairs_that_length_alone_decides_are_warned_of(lengths: tuple[int, int], which: str) -> None:
    (line,) = doubts(report(*[pair(lengths=lengths)] * 3, pair(lengths=(2, 2))))
    assert line.startswith(f"the chosen answer is the {which} one in 75% of the pairs, expected below 75%")


def test_what_the_model_prefers_already_is_counted_with_and_without_the_length() -> None:
    found = report(pair(lengths=(4, 1)), pair(lengths=(2, 2)), chosen=[-4.0, -1.0], rejected=[-2.0, -3.0])
    assert (found["preferred"], found["preferred_per_token"]) == (0.5, 1.0)


def test_the_same_object_in_another_order_is_nothing_to_prefer_and_named() -> None:
    found = report(pair(1), pair(2, rejected=OTHER_ORDER), pair(3, lengths=(2, 3)))
    assert (found["both_right"], found["both_right_ids"], found["chosen_worse"]) == (1, ["0000000000000002"], 0)
    assert any("1 pairs where rejected is as right as chosen, by exact match: 0000000000000002" in line for line in doubts(found))


def test_a_chosen_answer_that_is_the_worse_is_named() -> None:
    found = report(pair(7, chosen=WRONG, rejected=CALL), pair(8, lengths=(2, 3)))
    assert (found["chosen_worse"], found["chosen_worse_ids"], found["both_right"]) == (1, ["0000000000000007"], 0)
    assert any("rejected is right and chosen is not" in line for line in doubts(found))


def test_identical_pairs_are_counted() -> None:
    found = report(Pair("0", "given", [1], [5, 2], [5, 2], CALL, CALL, [CALL]), pair(lengths=(1, 2)))
    assert found["identical"] == 1
    assert any("1 pairs have the same tokens twice" in line for line in doubts(found))


def test_a_judge_that_finds_nothing_right_is_doubted() -> None:
    found = {**report(pair(lengths=(2, 2))), "sampled": {"prompts": 9, "right": 0}}
    assert doubts(found)[0].startswith("none of the answers that models/train gave to 9 prompts is right by exact match")


def test_the_log_says_it_for_any_pairs() -> None:
    lines = told(report(pair(lengths=(9, 2)), pair(lengths=(2, 2))))
    assert lines[0] == "chosen is the longer answer in 50%, the shorter in 0%: +3.5 tokens on average"
    assert lines[2] == "0 identical, 0 with the worse chosen, 0 both right, by exact match"


def test_given_pairs_know_what_other_pairs_of_their_prompt_have_chosen(workspace: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    def ids(text: str) -> list[int]:
        return [*tokenizer.encode(text), 2]

    rows = [
        {"id": "a", "slice": "all", "prompt_ids": [5, 6], "chosen_ids": ids("yes"), "rejected_ids": ids("no")},
        {"id": "b", "slice": "all", "prompt_ids": [5, 6], "chosen_ids": ids("no"), "rejected_ids": ids("perhaps")},
        {"id": "c", "slice": "all", "prompt_ids": [7], "chosen_ids": ids("yes"), "rejected_ids": ids("no")[:-1]},  # cut by format
    ]
    tables.write(paths.FORMATTED / "preference" / "train.parquet", tables.PREFERENCE, rows)
    found = pairs.given(tokenizer)
    assert [(pair.chosen, pair.rejected) for pair in found] == [("yes", "no"), ("no", "perhaps"), ("yes", "no")]
    assert report(*found)["both_right_ids"] == ["a"]
    assert {pair.rule for pair in found} == {"given"}
