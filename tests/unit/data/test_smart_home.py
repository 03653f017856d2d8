"""The embedded data: labels that a judge agrees with, slices that are apart, and the same bytes everywhere."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hassil import Intents, SlotList, TextSlotList, recognize

from finetune.config.data import SmartHome
from finetune.data import smart_home, templates
from finetune.data.home import home
from finetune.data.judge import Judge
from finetune.data.records import Conversation, Preference, Prepared
from finetune.data.templates import load
from finetune.errors import DataError, SetupError

ROOT = Path(__file__).resolve().parents[3]
Compose = Callable[..., Any]


@pytest.fixture(scope="module")
def settings(compose: Compose) -> SmartHome:
    data = compose().data
    assert isinstance(data, SmartHome)
    return data


@pytest.fixture(scope="module")
def prepared(settings: SmartHome) -> Prepared:
    return smart_home.build(settings)


def conversations(prepared: Prepared, *slices: str) -> list[Conversation]:
    return [record for records in prepared.sft.values() for record in records if not slices or record.slice in slices]


def pairs(prepared: Prepared) -> list[Preference]:
    return [pair for split in prepared.preference.values() for pair in split]


def said(record: Conversation | Preference) -> str:
    return record.prompt[-1]["content"]


def names(rooms: dict[Any, Any]) -> set[str]:
    return {*rooms, *(name for room in rooms.values() for listed in room.values() for name in listed)}


def spoken_of(record: Conversation) -> set[str]:
    call = json.loads(record.answer)
    return {call[slot] for slot in ("name", "area") if slot in call}


def test_every_split_has_the_size_that_was_asked_for(prepared: Prepared, settings: SmartHome) -> None:
    assert {split: len(list(records)) for split, records in prepared.sft.items()} == {
        "train": settings.train,
        "validation": settings.validation,
        "test": settings.test_seen + settings.test_new_home + settings.test_new_phrasing,
    }
    assert {split: len(list(records)) for split, records in prepared.preference.items()} == {
        "train": settings.pairs_train,
        "test": settings.pairs_test,
    }
    assert settings.train >= 500
    assert settings.pairs_train >= 120


def test_an_independent_call_of_the_recogniser_agrees_with_every_label(prepared: Prepared, settings: SmartHome) -> None:
    package = Path(sys.modules["hassil"].__file__ or "").parents[1] / "home_assistant_intents" / "speech_to_phrase" / "en.json"
    homes = [room for rooms in (settings.areas, settings.new_home) for room in rooms.values()]
    lists: dict[str, SlotList] = {
        "area": TextSlotList.from_strings([*settings.areas, *settings.new_home]),
        "floor": TextSlotList.from_strings(settings.floors),
        "name": TextSlotList.from_tuples(
            [(name, name, {"domain": domain}) for room in homes for domain, listed in room.items() for name in listed]
        ),
    }
    intents = Intents.from_dict(json.loads(package.read_text(encoding="utf-8")))
    labels = [(said(record), record.answer) for record in conversations(prepared)] + [(said(pair), pair.chosen) for pair in pairs(prepared)]
    for sentence, answer in labels:
        result = recognize(sentence, intents, slot_lists=lists, intent_context={"area": "somewhere"}, language="en")
        assert result is not None, sentence
        slots = {entity.name: entity.value for entity in result.entities_list if entity.value != "somewhere"}
        assert json.loads(answer) == {"intent": result.intent.name, **slots}, sentence
    assert len(labels) == 1058


def test_answers_are_json_with_the_intent_first_and_whole_numbers(prepared: Prepared) -> None:
    answers = {record.answer for record in conversations(prepared)}
    assert all(next(iter(json.loads(answer))) == "intent" for answer in answers)
    assert not any(isinstance(value, float) for answer in answers for value in json.loads(answer).values())


def test_turning_down_by_a_number_is_a_negative_step(prepared: Prepared) -> None:
    steps = {said(record): json.loads(record.answer).get("volume_step") for record in conversations(prepared)}
    numbers = {sentence: step for sentence, step in steps.items() if isinstance(step, int)}
    assert any("down" in sentence for sentence in numbers)
    assert all((step < 0) == ("down" in sentence or "decrease" in sentence) for sentence, step in numbers.items() if step)


def test_training_covers_every_intent_and_every_template_that_is_not_held_out(prepared: Prepared) -> None:
    train = list(prepared.sft["train"])
    held_out = {record.source for record in conversations(prepared, "new_phrasing")}
    assert len({record.source for record in train}) + len(held_out) == 123
    assert len({json.loads(record.answer)["intent"] for record in train}) == 27


def test_no_sentence_is_in_two_splits(prepared: Prepared) -> None:
    sentences = [said(record) for record in conversations(prepared)] + [said(pair) for pair in pairs(prepared)]
    assert len(sentences) == len(set(sentences)) == 1058


def test_rooms_and_devices_of_the_new_home_are_in_its_slice_alone(prepared: Prepared, settings: SmartHome) -> None:
    new = conversations(prepared, "new_home")
    assert len(new) == settings.test_new_home
    for record in new:
        assert spoken_of(record) <= names(settings.new_home)
        assert spoken_of(record)
    for other in conversations(prepared, "seen", "new_phrasing"):
        assert not any(name in said(other) for name in names(settings.new_home)), said(other)
    for pair in pairs(prepared):
        assert not any(name in said(pair) + pair.rejected for name in names(settings.new_home)), said(pair)


def test_templates_of_new_phrasing_are_in_its_slice_alone_and_their_intents_keep_others(prepared: Prepared) -> None:
    held_out = {record.source for record in conversations(prepared, "new_phrasing")}
    others = {record.source for record in conversations(prepared, "seen", "new_home")} | {pair.source for pair in pairs(prepared)}
    assert len(held_out) == round(0.12 * 123)
    assert not held_out & others
    assert {source.split(":")[0] for source in held_out} <= {source.split(":")[0] for source in others}


def test_every_rejected_answer_is_a_valid_call_that_is_wrong_by_a_named_rule(prepared: Prepared) -> None:
    for pair in pairs(prepared):
        chosen, rejected = json.loads(pair.chosen), json.loads(pair.rejected)
        assert chosen != rejected
        differing = {key for key in chosen.keys() | rejected.keys() if chosen.get(key) != rejected.get(key)}
        match pair.rule:
            case "slot dropped":
                assert rejected.items() < chosen.items()
            case "another intent":
                assert differing == {"intent"}
            case "another area" | "another floor":
                assert differing == {pair.rule.removeprefix("another ")}
            case "another device":
                assert differing == {"name"}
            case "number off":
                (slot,) = differing
                assert abs(chosen[slot] - rejected[slot]) in (1, 10)
            case "another value":
                (slot,) = differing
                assert isinstance(chosen[slot], str)
            case _:
                pytest.fail(pair.rule)
    assert len({pair.rule for pair in pairs(prepared)}) == 7


def test_the_same_draw_gives_the_same_records_under_another_hash_seed(prepared: Prepared, settings: SmartHome, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from finetune.config.data import SmartHome\n"
        "from finetune.data import smart_home\n"
        "from tests.unit.data.test_smart_home import digest\n"
        "print(digest(smart_home.build(SmartHome.model_validate_json(sys.stdin.read()))))\n"
    )
    digests = {digest(prepared)}
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=settings.model_dump_json(),
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def digest(prepared: Prepared) -> str:
    """sha256 over the rows of every split and the refusals."""
    rows = {name: [record.row() for record in records] for name, records in [*prepared.sft.items()]}
    rows |= {f"preference {name}": [record.row() for record in records] for name, records in prepared.preference.items()}
    return hashlib.sha256(json.dumps([rows, [asdict(refusal) for refusal in prepared.refused]]).encode()).hexdigest()


def test_another_draw_gives_other_records(prepared: Prepared, settings: SmartHome) -> None:
    assert digest(smart_home.build(settings.model_copy(update={"draw": settings.draw + 1}))) != digest(prepared)


@pytest.mark.parametrize("language", ["de", "fr"])
def test_another_language_gives_sentences_of_that_language(settings: SmartHome, language: str) -> None:
    prepared = smart_home.build(settings.model_copy(update={"language": language}))
    assert {"de": "schalte", "fr": "allume"}[language] in " ".join(said(record) for record in prepared.sft["train"])


def test_a_language_without_templates_is_refused_with_those_there_are(settings: SmartHome) -> None:
    with pytest.raises(DataError, match=r"data.language: found 'xx', expected one of ca, cs, de, en, "):
        smart_home.build(settings.model_copy(update={"language": "xx"}))


def test_more_sentences_than_the_templates_have_are_refused_with_what_there_is(settings: SmartHome) -> None:
    little = {"language": "cs", "train": 20, "validation": 1, "test_seen": 1, "test_new_home": 1, "pairs_train": 1, "pairs_test": 1}
    with pytest.raises(DataError, match=r"data\.test_new_phrasing: found 50 in all, expected at most 1\n"):
        smart_home.build(settings.model_copy(update=little))


def test_a_sentence_that_can_be_understood_in_two_ways_is_left_out(settings: SmartHome) -> None:
    areas = {"kitchen": {"light": ["kitchen lights"]}, "bath": {"fan": ["vent"]}}
    prepared = smart_home.build(settings.model_copy(update={"areas": areas, "train": 100, "test_seen": 40, "pairs_train": 40}))
    ambiguous = [refusal for refusal in prepared.refused if refusal.rule == "ambiguous"]
    assert ambiguous
    assert all("kitchen lights" in refusal.place for refusal in ambiguous)
    assert not {refusal.place.split(": ")[-1] for refusal in ambiguous} & {said(record) for record in conversations(prepared)}


def test_a_sentence_that_a_template_kept_apart_also_says_is_left_out(settings: SmartHome) -> None:
    language, place = load("en"), home(settings.areas)
    drawing = smart_home.Drawing(settings.draw, language, Judge(language, [place]))
    setting = next(template for template in language.templates if template.text.startswith("<numeric_value_set> the volume to"))
    sentences = drawing.draw("x", [setting], place, 60)
    assert {refusal.rule for refusal in drawing.refused} == {"also of a template that is kept apart"}
    assert all("turn up the" in refusal.place or "turn down the" in refusal.place for refusal in drawing.refused)
    assert not any(spoken.text.startswith(("turn up", "turn down")) for spoken in sentences)


def test_a_missing_package_names_the_remedy(settings: SmartHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "PACKAGE", "no_such_package")
    with pytest.raises(SetupError, match=r"found no package no_such_package\nrun `make setup`"):
        smart_home.build(settings)


def test_too_few_sentences_with_a_near_miss_are_refused(settings: SmartHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smart_home, "near_misses", lambda *_: {})
    with pytest.raises(DataError, match=r"data.pairs_train \+ data.pairs_test: found 228, expected at most 0"):
        smart_home.build(settings)
