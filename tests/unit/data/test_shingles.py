"""Hashes of pieces of texts: equal pieces are equal, whatever stands beside them, and measures are those of the sets."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from finetune.data import shingles

TEXTS = st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=30), min_size=1, max_size=6)
FEW = st.lists(st.text(alphabet="ab c,é", max_size=14), min_size=1, max_size=6)


def pieces(text: str, size: int) -> list[str]:
    return [text[place : place + size] for place in range(max(len(text) - size + 1, min(len(text), 1)))]


def same(hashes: list[list[int]], expected: Sequence[Sequence[object]]) -> bool:
    """Whether hashes are equal exactly where what they stand for is."""
    flat = [number for numbers in hashes for number in numbers]
    meant = [piece for some in expected for piece in some]
    return [len(numbers) for numbers in hashes] == [len(some) for some in expected] and len(set(flat)) == len(set(meant)) == len(
        set(zip(flat, meant, strict=True))
    )


@given(FEW)
def test_characters_are_those_of_a_plain_loop(texts: list[str]) -> None:
    found = shingles.characters(texts, 3)
    plain = [" ".join(text.lower().split()) for text in texts]
    assert same([found.of(place).tolist() for place in range(len(texts))], [pieces(text, 3) for text in plain])


@given(FEW)
def test_words_are_those_of_a_plain_loop(texts: list[str]) -> None:
    found = shingles.words(texts, 2)
    split = [shingles.spaced(text).split() for text in texts]
    expected = [[tuple(words[at : at + 2]) for at in range(max(len(words) - 1, min(len(words), 1)))] for words in split]
    assert same([found.of(place).tolist() for place in range(len(texts))], expected)


@given(TEXTS)
def test_a_text_has_the_same_hashes_whatever_stands_beside_it(texts: list[str]) -> None:
    for hashes in (shingles.characters, shingles.words):
        together = hashes(texts)
        for place, text in enumerate(texts):
            assert together.of(place).tolist() == hashes([text]).of(0).tolist()


def test_case_and_what_stands_between_words_make_no_difference() -> None:
    one, other = "Turn ON,  the light!", "turn on the light"
    assert shingles.words([one]).of(0).tolist() == shingles.words([other]).of(0).tolist()
    assert shingles.characters(["A\n b"]).of(0).tolist() == shingles.characters(["a b"]).of(0).tolist()


def test_measures_are_those_of_the_sets() -> None:
    one, other = shingles.characters(["abcdefgh", "abcdefgx"], 2).of(0), shingles.characters(["abcdefgx"], 2).of(0)
    assert shingles.jaccard(one, other) == 6 / 8
    assert shingles.contained(one, other) == 6 / 7
    nothing = one[:0]
    assert shingles.jaccard(nothing, nothing) == 1
    assert shingles.jaccard(nothing, one) == 0
    assert shingles.contained(nothing, one) == 1
