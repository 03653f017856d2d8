"""Settings of conf/data: where records come from, and what they must be."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from finetune.config.section import Count, Positive, Section, Share

FormName = Literal["alpaca", "sharegpt", "messages", "prompt_completion", "text", "preference", "transcripts", "kto"]
PLACE = re.compile(r"package:[\w.]+/[^/\\].*|hub:[\w.-]+/[\w.-]+|(?!package:|hub:|/)[^\\]+")

Domain = Literal[
    "climate",
    "cover",
    "fan",
    "input_boolean",
    "light",
    "lock",
    "media_player",
    "scene",
    "script",
    "sensor",
    "switch",
    "vacuum",
    "valve",
    "weather",
]
Rooms = Annotated[dict[str, dict[Domain, list[str]]], Field(min_length=2)]


class Quality(Section):
    """What a record must be to be learned from; who is left out or changed is in data/prepared/rejected.jsonl, with the rule."""

    malformed: Literal["refuse", "drop"]
    """Rows that can't be read, or lack what their form needs: refuse stops with a list of them, drop leaves them out like any other."""
    min_answer_characters: Positive
    """Shorter answers are left out."""
    max_characters: Positive
    """Longer records, all their texts together, are left out; what the model can take is format.max_length."""
    max_repetition: Annotated[float, Field(gt=0, le=1)] | None
    """Share of an answer's three-word pieces that it has had before; null: not looked at."""
    placeholders: Literal["drop", "keep"]
    """`{{name}}` that nothing was put in for."""
    mojibake: Literal["drop", "repair", "keep"]
    """Text that was read in a wrong encoding: `cafÃ©`. repair undoes it where that can be done, at 0.1 ms for a text that is not ASCII."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2}$")] | None
    """Answers in another language (ISO 639-1) are left out; needs the extra `language`, 100 MB, and 0.1 to 1 ms a record. null: any."""
    personal: Literal["count", "mask", "drop"]
    """Mail addresses, telephone and card numbers, keys."""
    near_duplicates: Annotated[float, Field(ge=0.5, le=1)] | None
    """Jaccard index of 5-character pieces, of prompts and of answers, from which two records are one; null: only identical ones are."""
    contamination: Annotated[float, Field(gt=0, le=1)] | None
    """Share of a held-out record's runs of 8 words, of prompt and of answer, from which a training record holds it; null: not looked at."""
    contaminated: Literal["remove", "refuse"]
    """remove takes such records out of training, refuse stops with a list of them."""


class Source(Section):
    """One place that records come from. An item of a list, which no file of conf/ can complete, so all but its path has a default."""

    path: Annotated[str, Field(min_length=1)]
    """A file below data/raw, `package:MODULE/FILE` of an installed package, or `hub:OWNER/NAME`."""
    form: FormName | None = None
    """null: recognised by the names of the fields."""
    fields: dict[str, str] | None = None
    """The form's own name of a field → its name here, where they differ: {instruction: question, output: reply}."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Share of the training records beside other sources' weights; that with the fewest for its weight is used up. null: all of it."""
    max_records: Positive | None = None
    """At most this many training records, in the order of their content hash."""
    group: str | None = None
    """Field by which records belong together (conversation, template, user): a group is in one split. null: records with one prompt do."""
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    """Commit of a hub data set."""
    split: str | None = None
    """Split of a hub data set; null: train."""

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        """Refuse what names no place or leads out of data/raw, and a hub data set that can change."""
        if not PLACE.fullmatch(self.path) or ".." in self.path.split("/"):
            raise ValueError(f"found path={self.path!r}, expected a file below data/raw, package:MODULE/FILE, or hub:OWNER/NAME")
        if self.path.startswith("hub:") and self.revision is None:
            raise ValueError(f"found revision=null with path={self.path}, expected a commit, 40 hex digits, which pins what is read")
        return self


class Files(Section):
    """conf/data/files: your own records, in any of the usual forms and formats."""

    source: Literal["files"]
    license: str
    """Licence of your data, carried on into the model card."""
    system: Annotated[str, Field(min_length=1)] | None
    """System message put before every record that has none; null: none, and the chat template decides."""
    sources: Annotated[list[Source], Field(min_length=1)]
    """Where the records and the preference pairs come from."""
    validation: Annotated[float, Field(gt=0, lt=1)]
    """Share of the records kept for validation, chosen by the hash of their prompt or group."""
    test: Annotated[float, Field(gt=0, lt=1)]
    """Share of records, and of preference pairs, kept for the test; chosen by the hash of their prompt or group."""
    quality: Quality

    @model_validator(mode="after")
    def _something_is_left_for_training(self) -> Self:
        """Refuse shares that take all, and a source named twice."""
        if self.validation + self.test >= 1:
            raise ValueError(
                f"found validation={self.validation} and test={self.test}, expected a sum below 1, which leaves something to train on"
            )
        named = [(source.path, source.split) for source in self.sources]
        if twice := sorted({path for path, split in named if named.count((path, split)) > 1}):
            raise ValueError(f"found {', '.join(twice)} twice in sources, expected each once; to weigh it more, set its weight")
        return self


class SmartHome(Section):
    """conf/data/smart_home: the embedded data, expanded from Home Assistant's own sentence templates."""

    source: Literal["smart_home"]
    license: str
    """Licence and attribution of the data, carried on into the model card."""
    system: Annotated[str, Field(min_length=1)]
    """System message of every conversation; short, because it is paid for in every record."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z]+)?$")]
    """A language of home-assistant-intents' speech_to_phrase folder; rooms, devices and floors below should be in it."""
    areas: Rooms
    """Rooms that training sees → domain of Home Assistant → names of the devices in the room."""
    new_home: Rooms
    """Rooms and devices held out whole: slice `new_home` of the test set."""
    draw: Count
    """Which sentences are drawn: the same number, the same records, whatever `seed` is; another one is another data set."""
    floors: Annotated[list[str], Field(min_length=2)]
    """Names of floors that training sees."""
    new_phrasing: Share
    """Share of the sentence templates held out whole, each from a group of paraphrases that keeps another: slice `new_phrasing`."""
    train: Positive
    """Records for supervised fine-tuning."""
    validation: Positive
    """Records for validation (loss, early stopping); never in train."""
    test_seen: Positive
    """Test records drawn like the training records."""
    test_new_home: Count
    """Test records with rooms and devices that training never saw."""
    test_new_phrasing: Count
    """Test records whose template training never saw."""
    pairs_train: Positive
    """Preference pairs to train on; their prompts are none of SFT's."""
    pairs_test: Positive
    """Preference pairs held out for evaluation."""
    quality: Quality

    @model_validator(mode="after")
    def _homes_are_apart(self) -> Self:
        """Refuse a name that both homes have: it would not be held out."""
        seen, held_out = _names(self.areas), _names(self.new_home)
        if shared := sorted(seen & held_out):
            raise ValueError(
                f"found {', '.join(map(repr, shared))} in areas and in new_home, expected no name in both; rename or remove one"
            )
        return self


def _names(rooms: dict[str, dict[Domain, list[str]]]) -> set[str]:
    """The names of rooms and of the devices in them."""
    return set(rooms) | {device for room in rooms.values() for devices in room.values() for device in devices}
