"""Ids of records: by content alone, and spread evenly where data is split by them."""

from finetune.data.records import Conversation, Preference, content_id, fraction, prompt


def test_an_id_follows_from_the_content_alone() -> None:
    one = Conversation("seen", "here", prompt(None, "Hello."), "Hi.")
    other = Conversation("all", "there", prompt(None, "Hello."), "Hi.")
    assert one.id == other.id == "53e26d592fadab4e"
    assert one.id != Conversation("seen", "here", prompt("Be kind.", "Hello."), "Hi.").id


def test_the_id_of_a_pair_depends_on_which_answer_is_better() -> None:
    one = Preference("all", "here", "given", prompt(None, "Hello."), "Hi.", "Go.")
    assert one.id != Preference("all", "here", "given", prompt(None, "Hello."), "Go.", "Hi.").id


def test_fractions_of_hashes_are_spread_evenly() -> None:
    places = [fraction(content_id(number)) for number in range(4000)]
    assert all(0 <= place < 1 for place in places)
    for tenth in range(10):
        assert 320 < sum(tenth / 10 <= place < (tenth + 1) / 10 for place in places) < 480
