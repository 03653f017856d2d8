"""The embedded data: spoken requests to a smart home and the calls they stand for, drawn from templates and checked by a judge.

Sentences are drawn from the templates in turn, so that rare intents are as well covered as frequent ones; none is in two splits.
Three slices of the test say what a model has learned: sentences (seen), names (new_home: rooms and devices held out whole) and
phrasings (new_phrasing: templates held out whole, each from a group of paraphrases that keeps another).
"""

import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from itertools import islice
from random import Random

from finetune.config.data import SmartHome
from finetune.data import records
from finetune.data.examining import Examined, Kind, Split, apply, compare, keep, keep_pair, rejected
from finetune.data.gathering import Gathering
from finetune.data.home import Home, home
from finetune.data.judge import Judge, Reading
from finetune.data.near_misses import RULES, near_misses
from finetune.data.records import Conversation, Preference, Prepared, Refusal
from finetune.data.templates import Language, Spoken, Template, load, sentences, unusable
from finetune.errors import DataError

log = logging.getLogger(__name__)


NAME = "smart_home"  # as a source
SPLITS = {"train": Split.TRAIN, "validation": Split.VALIDATION, "test": Split.TEST}


def gather(gathering: Gathering, settings: SmartHome) -> None:
    """Add the records of every split, under the rules of any other source. Raises DataError, as `build`."""
    prepared = build(settings)
    found = Examined(NAME, read=prepared.read)
    for number, refusal in enumerate(prepared.refused, 1):
        found.rejected.append(rejected(NAME, number, refusal.rule, [refusal.place]))
    for split, conversations in prepared.sft.items():
        for number, record in enumerate(conversations, 1):
            if apply(found, number, record.messages, [], settings.quality):
                keep(found, number, Kind.SFT, record.row(), record.prompt, record.answer, SPLITS[split])
    for split, pairs in prepared.preference.items():
        for number, pair in enumerate(pairs, 1):
            if apply(found, number, pair.prompt, [pair.chosen, pair.rejected], settings.quality):
                keep_pair(found, number, pair, SPLITS[split])
    compare(found, settings.quality)
    gathering.add(found)


def build(settings: SmartHome) -> Prepared:
    """Return the records of every split; the same settings give the same records.

    Raises:
        DataError: home and templates do not have as many sentences as are asked for.
    """
    language = load(settings.language)
    known, new = home(settings.areas, settings.floors), home(settings.new_home)
    drawing = Drawing(settings.draw, language, Judge(language, [known, new]))
    usable = drawing.usable(known)
    held_out = hold_out(usable, settings.new_phrasing, Random(f"{settings.draw}: held-out templates"))
    trained = [template for template in usable if template not in held_out]
    naming = [
        template for template in trained if {"area", "name"} & set(language.lists_of(template)) and not unusable(language, template, new)
    ]

    pairs = settings.pairs_train + settings.pairs_test
    asked = settings.train + settings.validation + settings.test_seen + pairs
    pool = drawing.draw("train, validation, test_seen and pairs", trained, known, asked)
    new_home = drawing.draw("test_new_home", naming, new, settings.test_new_home)
    new_phrasing = drawing.draw("test_new_phrasing", held_out, known, settings.test_new_phrasing)
    log.info(
        "drew %s sentences of %d templates and %d intents, %d templates held out; the judge agreed with %s",
        f"{drawing.drawn:,}",
        len(usable),
        len({template.intent for template in usable}),
        len(held_out),
        f"{len(pool) + len(new_home) + len(new_phrasing):,}",
    )

    covering, rest = cover(pool, settings.train)
    preferred = prefer(rest, drawing, known, pairs, Random(f"{settings.draw}: near misses"), settings.system)
    paired = {preference.prompt[-1]["content"] for preference in preferred}
    unpaired = iter([spoken for spoken in rest if spoken.text not in paired])
    seen = list(islice(unpaired, settings.test_seen))
    validation = list(islice(unpaired, settings.validation))
    return Prepared(
        read=drawing.drawn,
        sft={
            "train": conversations(settings.system, seen=[*covering, *unpaired]),
            "validation": conversations(settings.system, seen=validation),
            "test": conversations(settings.system, seen=seen, new_home=new_home, new_phrasing=new_phrasing),
        },
        preference={
            "train": sorted(preferred[settings.pairs_test :], key=lambda pair: pair.id),
            "test": sorted(preferred[: settings.pairs_test], key=lambda pair: pair.id),
        },
        refused=drawing.refused,
    )


class Drawing:
    """Sentences drawn so far: none comes twice, each label is checked, and what was left out is written down."""

    def __init__(self, seed: int, language: Language, judge: Judge) -> None:
        self.language = language
        self.judge = judge
        self.drawn = 0
        self.refused: list[Refusal] = []
        self._seed = seed
        self._taken: set[str] = set()

    def usable(self, home: Home) -> list[Template]:
        """The templates that something can be drawn from in this home."""
        reasons = {template: unusable(self.language, template, home) for template in self.language.templates}
        self.refused += [Refusal(template.key, f"template: {reason}") for template, reason in reasons.items() if reason]
        return [template for template, reason in reasons.items() if not reason]

    def draw(self, what: str, templates: Sequence[Template], home: Home, count: int) -> list[Spoken]:
        """Return that many new sentences, one of each template in turn.

        Raises:
            DataError: there are not as many.
        """
        order = Random(f"{self._seed}: {what}").sample(templates, len(templates))
        found: list[Spoken] = []
        turn = deque(self._checked(what, template, {template.key for template in templates}, home) for template in order)
        while turn and len(found) < count:
            source = turn.popleft()
            if spoken := next(source, None):
                found.append(spoken)
                turn.append(source)
        if len(found) < count:
            raise DataError(
                "the templates do not have as many sentences as are asked for:",
                [f"data.{what}: found {count:,} in all, expected at most {len(found):,}"],
                "ask for fewer, or give the home more rooms and devices",
            )
        return found

    def _checked(self, what: str, template: Template, allowed: set[str], home: Home) -> Iterator[Spoken]:
        """Sentences of one template that are new, rightly labelled, and in no template that is kept apart."""
        for spoken in sentences(self.language, template, home, Random(f"{self._seed}: {what}: {template.key}")):
            if spoken.text in self._taken:
                continue
            self._taken.add(spoken.text)
            self.drawn += 1
            readings = self.judge.readings(spoken.text)
            if objection := self._objection(spoken, readings, allowed):
                self.refused.append(Refusal(f"{template.key}: {spoken.text}", objection))
            else:
                yield spoken

    def _objection(self, spoken: Spoken, readings: list[Reading], allowed: set[str]) -> str | None:
        if {reading.template for reading in readings} - allowed:
            return "also of a template that is kept apart"
        return self.judge.objection(spoken, readings)


def hold_out(templates: Sequence[Template], share: float, rng: Random) -> list[Template]:
    """Return the templates that training never sees; each leaves a paraphrase of its own group behind."""
    left = Counter((template.intent, template.group) for template in templates)
    held_out: list[Template] = []
    for template in rng.sample(templates, len(templates)):
        if len(held_out) < round(share * len(templates)) and left[template.intent, template.group] > 1:
            left[template.intent, template.group] -= 1
            held_out.append(template)
    return held_out


def cover(pool: Sequence[Spoken], train: int) -> tuple[list[Spoken], list[Spoken]]:
    """Return one sentence of each template, at most `train`, and the rest in the order of their hash."""
    first: dict[str, Spoken] = {}
    for spoken in pool:
        first.setdefault(spoken.template.key, spoken)
    covering = list(first.values())[:train]
    texts = {spoken.text for spoken in covering}
    rest = [spoken for spoken in pool if spoken.text not in texts]
    return covering, sorted(rest, key=lambda spoken: records.content_id(spoken.text))


def prefer(pool: Sequence[Spoken], drawing: Drawing, home: Home, count: int, rng: Random, system: str) -> list[Preference]:
    """Return that many pairs of the right call and a near miss, of each rule about as many as its sentences allow.

    Raises:
        DataError: too few sentences have a near miss.
    """
    used: Counter[str] = Counter()
    pairs: list[Preference] = []
    for spoken in pool:
        if len(pairs) == count:
            break
        right = {reading.call for reading in drawing.judge.readings(spoken.text)}
        options = {rule: wrong for rule, wrong in near_misses(spoken, drawing.language, home, rng).items() if wrong not in right}
        if options:
            rule = min(options, key=lambda name: (used[name], list(RULES).index(name)))
            used[rule] += 1
            said = records.prompt(system, spoken.text)
            pairs.append(Preference("seen", spoken.template.key, rule, said, chosen=spoken.call.text(), rejected=options[rule].text()))
    if len(pairs) < count:
        raise DataError(
            "too few sentences have a near miss:",
            [f"data.pairs_train + data.pairs_test: found {count:,}, expected at most {len(pairs):,}"],
            "ask for fewer pairs, or for more records beside them",
        )
    return pairs


def conversations(system: str, **slices: Sequence[Spoken]) -> list[Conversation]:
    """Return the sentences of each slice with their calls, in the order of their id."""
    made = [
        Conversation(name, spoken.template.key, records.prompt(system, spoken.text), spoken.call.text())
        for name, sentences_of_slice in slices.items()
        for spoken in sentences_of_slice
    ]
    return sorted(made, key=lambda conversation: conversation.id)
