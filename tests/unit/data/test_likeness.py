"""Near duplicates and contamination: both parts of a record are compared, the first of two stays, and texts decide."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest

from finetune.data import likeness, shingles
from finetune.data.likeness import Runs
from finetune.data.shingles import Places

WORDS = [
    f"{one}{two}" for one in ("bar", "lem", "tor", "sin", "pel", "gra", "mon", "vic") for two in ("a", "on", "ing", "est", "ly", "us", "er")
]
Parts = Sequence[tuple[str, str]]


def said(rng: Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


def edited(text: str, rng: Random) -> str:
    """The text with one word exchanged."""
    words = text.split()
    words[rng.randrange(len(words))] = "exchanged"
    return " ".join(words)


def near(parts: Parts, threshold: float = 0.8) -> dict[int, int]:
    """Record → the one it is like."""
    bands = likeness.bands([f"{prompt}\n{answer}" for prompt, answer in parts])
    return {
        twin.record: twin.like for twin in likeness.near_duplicates(bands, threshold, lambda places: [parts[place] for place in places])
    }


def holding(trained: Parts, held_out: Parts, threshold: float = 0.8) -> dict[int, int]:
    """Training record → the held-out record that it holds."""
    parts = [*trained, *held_out]

    def runs(records: Places) -> Runs:
        return Runs(np.repeat(records, 2), shingles.words([text for record in records for text in parts[record]]))

    some = [runs(np.arange(len(trained)))] if trained else []
    found = likeness.contaminating(
        [runs(np.arange(len(trained), len(parts)))], some, threshold, lambda places: [parts[place] for place in places]
    )
    return {twin.record: twin.like - len(trained) for twin in found}


def test_planted_near_duplicates_are_found_and_nothing_else_goes() -> None:
    rng = Random(1)
    parts = [(said(rng, 12), said(rng, 60)) for _ in range(600)]
    planted = [(prompt, edited(answer, rng)) for prompt, answer in parts[:200]]
    assert near([*parts, *planted]) == {600 + place: place for place in range(200)}


def test_like_prompts_with_different_answers_are_no_duplicates_nor_like_answers_to_different_prompts() -> None:
    rng = Random(2)
    prompt, answer = said(rng, 200), said(rng, 200)
    assert near([(prompt, said(rng, 20)), (prompt, said(rng, 20)), (said(rng, 20), answer), (said(rng, 20), answer)]) == {}


def test_the_first_stays_and_whoever_is_like_only_one_that_went_stays_too() -> None:
    rng = Random(3)
    first = said(rng, 40)
    second = edited(first, rng)
    words = second.split()
    third = " ".join([*words[:-6], "and", "now", "for", "something", "quite", "other"])  # like the second, not like the first
    one, two, three = (shingles.characters([text]).of(0) for text in (first, second, third))
    threshold = shingles.jaccard(two, three)
    assert shingles.jaccard(one, three) < threshold <= shingles.jaccard(one, two)
    assert near([("", first), ("", second), ("", third)], threshold) == {1: 0}


def test_a_crowd_of_the_same_leaves_one() -> None:
    rng = Random(4)
    text = said(rng, 60)
    crowd = [("", edited(text, rng)) for _ in range(3 * likeness.LARGE)]
    found = near([("", text), *crowd])
    assert found == dict.fromkeys(range(1, len(crowd) + 1), 0)


def test_in_a_crowd_of_like_prompts_and_answers_those_that_differ_in_case_alone_are_found() -> None:
    rng = Random(10)
    text = said(rng, 400)
    parts = [(f"{number} {edited(text, rng)} {number}", "yes") for number in range(90)]
    twins = [(prompt.upper(), answer) for prompt, answer in parts]
    found = near([*parts, *twins, *twins], threshold=1.0)
    assert found == {record: record % 90 for record in range(90, 270)}


def test_records_that_differ_in_any_part_are_no_near_duplicates() -> None:
    parts = [("be rude", "hello", "hi"), ("be polite", "hello", "hi"), ("be rude", "Hello", "hi")]
    bands = likeness.bands([f"{asked}\n{answer}" for _, asked, answer in parts])
    (twin,) = likeness.near_duplicates(bands, 0.8, lambda places: [parts[place] for place in places])
    assert (twin.record, twin.like) == (2, 0)


def test_no_records_and_empty_texts_are_no_trouble() -> None:
    assert near([("", "")]) == {}
    assert near([("", ""), ("", "")]) == {1: 0}
    assert holding([], [("a", "b")]) == {}


def test_a_held_out_record_inside_of_a_longer_one_is_found() -> None:
    rng = Random(5)
    held_out = [(said(rng, 20), said(rng, 40)) for _ in range(50)]
    trained = [(f"please {prompt} thanks", f"well {answer} done") for prompt, answer in held_out[:20]]
    trained += [(said(rng, 20), said(rng, 40)) for _ in range(100)]
    assert holding(trained, held_out) == {place: place for place in range(20)}


def test_a_short_prompt_counts_where_it_stands_whole() -> None:
    rng = Random(6)
    answer = said(rng, 40)
    assert holding([("now turn it on please", answer)], [("Turn it on!", answer)]) == {0: 0}
    assert holding([("now turn it off please", answer)], [("Turn it on!", answer)]) == {}


def test_the_same_prompt_with_another_answer_is_no_contamination() -> None:
    rng = Random(7)
    prompt = said(rng, 40)
    assert holding([(prompt, said(rng, 40))], [(prompt, said(rng, 40))]) == {}


def test_a_short_question_of_an_earlier_turn_needs_its_answer_after_it() -> None:
    talk = "Good morning to you all and to all of your cats.\n\nIs it raining?\n\n{}\n\nShould I go out then, yes or no, what do you say?"
    held_out = [("Is it raining?", "Yes.")]

    def found(said: str) -> bool:
        parts = [(talk.format(said), "Go out."), *held_out]
        texts = ["Is it raining?", *parts[0]]
        runs = [Runs(np.zeros(3, np.int64), shingles.words(texts)), Runs(np.ones(2, np.int64), shingles.words(held_out[0]))]
        return bool(likeness.contaminating(runs[1:], runs[:1], 0.8, lambda places: [parts[place] for place in places]))

    assert found("Yes.")
    assert not found("No, it has been dry all the week, and it will stay so.")


def test_a_phrase_that_the_data_is_full_of_names_nobody() -> None:
    rng = Random(8)
    phrase = said(rng, 30)
    held_out = [(f"{phrase} {said(rng, 10)}", said(rng, 20)) for _ in range(2 * likeness.COMMON)]
    trained = [(f"{phrase} {said(rng, 10)}", said(rng, 20)), held_out[7]]
    assert holding(trained, held_out) == {1: 7}


@pytest.mark.parametrize(("share", "found"), [(0.9, True), (0.5, False)])
def test_the_threshold_is_a_share_of_the_runs_of_each_part(share: float, found: bool) -> None:
    rng = Random(9)
    answer = said(rng, 107).split()  # 100 runs
    cut = " ".join(answer[: round(100 * share) + 7])
    assert bool(holding([("", cut)], [("", " ".join(answer))])) is found
