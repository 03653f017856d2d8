"""The eight forms that records come in: how a file's is recognised, and what each of its rows then says.

A form is known by the names of its fields. A row that has the names and breaks a rule of the form is Unusable, with the rule's short name,
by which reports count.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finetune.data import dialogues
from finetune.data.dialogues import Dialogue, Label, Pair, Said
from finetune.data.turns import SHOWN, Names, Unusable, kind, shown
from finetune.errors import DataError

__all__ = ["FORMS", "Dialogue", "Form", "Label", "Pair", "Recognised", "Unusable", "convert", "recognise"]

NOTHING: Mapping[str, str] = {}
TURN = ("role", "content")


@dataclass(frozen=True)
class Form:
    """A form by its fields; `turn` has the names inside of a turn, the speaker's first."""

    name: str
    read: Callable[[dict[str, Any], Names], Said]
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    turn: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """All names that a source's `fields` can map."""
        return (*self.required, *self.optional, *self.turn)

    def names(self, fields: Mapping[str, str]) -> Names:
        """Its names, as the file has them."""
        speaker, content = self.turn or TURN
        return Names(str(self), fields.get(speaker, speaker), fields.get(content, content))

    def __str__(self) -> str:
        return "{" + ", ".join([*self.required, *(f"{name}?" for name in self.optional)]) + "}"


FORMS = {
    form.name: form
    for form in (
        Form("alpaca", dialogues.alpaca, ("instruction", "output"), ("input", "system", "history")),
        Form("sharegpt", dialogues.sharegpt, ("conversations",), ("system",), turn=("from", "value")),
        Form("messages", dialogues.messages, ("messages",), turn=TURN),
        Form("prompt_completion", dialogues.prompt_completion, ("prompt", "completion"), turn=TURN),
        Form("text", dialogues.plain, ("text",)),
        Form("preference", dialogues.preference, ("prompt", "chosen", "rejected"), turn=TURN),
        Form("transcripts", dialogues.transcripts, ("chosen", "rejected"), turn=TURN),
        Form("kto", dialogues.kto, ("prompt", "completion", "label"), turn=TURN),
    )
}
UNMAPPED = {name: form.names(NOTHING) for name, form in FORMS.items()}


def convert(form: str, row: Any, fields: Mapping[str, str] = NOTHING, group: str | None = None) -> Said:
    """Return what a row says; `fields` maps the form's names to the file's, `group` is the file's name of the field with the group key.

    Raises:
        Unusable: the row breaks a rule; nothing else is raised, whatever the row is.
    """
    if not isinstance(row, dict):
        raise Unusable("wrong type", f"found {kind(row)}, expected an object {FORMS[form]}; mend the record")
    if not fields:
        said = FORMS[form].read(row, UNMAPPED[form])
        return said if group is None else _grouped(said, row, group)
    try:
        said = FORMS[form].read(_renamed(row, fields), FORMS[form].names(fields))
    except Unusable as unusable:
        if unusable.field is None or unusable.field not in fields:
            raise
        mapped = f'; "{unusable.field}" is read from "{fields[unusable.field]}"'
        raise Unusable(unusable.rule, unusable.message + mapped, unusable.field) from None
    return said if group is None else _grouped(said, row, group)


def _renamed(row: dict[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """The row with the form's own names; a field of the file that happens to be called so is left out."""
    kept = {name: value for name, value in row.items() if name not in fields}
    return kept | {ours: row[theirs] for ours, theirs in fields.items() if theirs in row}


def _grouped(said: Said, row: dict[str, Any], name: str) -> Said:
    key = row.get(name)
    if isinstance(key, bool) or not isinstance(key, str | int) or (isinstance(key, str) and not key.strip()):
        found = f'no "{name}"' if name not in row else f'"{name}" that is {"empty" if isinstance(key, str) else kind(key)}'
        raise Unusable("group missing", f"found {found}, expected the text or number of a group; mend the record")
    return replace(said, group=str(key))


@dataclass(frozen=True)
class Recognised:
    """The form of a file, and the names by which it was known; as text, what the log says after the file's name."""

    form: str
    records: int
    used: tuple[str, ...]
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        ignored = f"ignored: {', '.join(self.ignored)}" if self.ignored else ""
        names = "; ".join(part for part in (", ".join(self.used), ignored) if part)
        count = "first record" if self.records == 1 else f"first {self.records:,} records"
        return f"{self.form}, from its {count} ({names})"


def recognise(rows: Sequence[Any], fields: Mapping[str, str] = NOTHING, *, place: str, setting: str, form: str | None = None) -> Recognised:
    """Return the form of a file's first rows; with `form` given, only its names are looked at.

    A form fits a row that has its required fields, with values of the right kind. Of two that fit, one whose required fields hold all of
    the other's is meant, so kto before prompt_completion and preference before transcripts; text, whose field is often a rendering of
    the others, stands back for any. All rows must mean one form; a row that none fits has no say, as long as most rows have one.
    `place` is the file's name, `setting` the key of its source (`data.sources[0]`).

    Raises:
        DataError: no form fits, or several do; or `fields` has a name that the form or the file lacks.
    """
    records = [row for row in rows if isinstance(row, dict)]
    _check_fields(records, fields, place, setting, form)
    if form is None:
        form = _only_form(rows, fields, place, setting)
    found = dict.fromkeys(str(name) for row in records for name in row)
    mine = [fields.get(name, name) for name in (*FORMS[form].required, *FORMS[form].optional)]
    used = tuple(name for name in mine if name in found)
    return Recognised(form, len(rows), used, tuple(name for name in found if name not in mine))


def _check_fields(records: Sequence[dict[str, Any]], fields: Mapping[str, str], place: str, setting: str, form: str | None) -> None:
    known = FORMS[form].fields if form else tuple(dict.fromkeys(name for one in FORMS.values() for name in one.fields))
    if unknown := [name for name in fields if name not in known]:
        whose = f"those of {form}" if form else "a form's own names"
        problem = f"found {', '.join(unknown)}, expected {whose}: {', '.join(known)}; mend the names before the colons"
        raise DataError("the records can't be used:", [f"{setting}.fields: {problem}"])
    inner = {name for one in FORMS.values() for name in one.turn}
    names = dict.fromkeys(name for row in records for name in row)
    if records and (lacking := [theirs for ours, theirs in fields.items() if ours not in inner and theirs not in names]):
        found = ", ".join(map(shown, names)) or "no field"
        problem = f"no record has {', '.join(map(shown, lacking))}, found {found[:SHOWN]}; mend {setting}.fields"
        raise DataError("the records can't be used:", [f"{place}: {problem}"])


def _only_form(rows: Sequence[Any], fields: Mapping[str, str], place: str, setting: str) -> str:
    records = [row for row in rows if isinstance(row, dict)]
    fits = [(row, vote) for row in records if (vote := _meant(_renamed(row, fields) if fields else row, fields))]
    votes = [vote for _, vote in fits]
    meant = [name for name in FORMS if any(name in vote for vote in votes)] if 2 * len(votes) > len(rows) else []
    if len(meant) == 1:
        return meant[0]
    if votes and not meant:  # then it is the others that say what is wrong
        fitting = " or ".join(name for name in FORMS if any(name in vote for vote in votes))
        doubt = f"{fitting} fits {len(votes)} of its first {len(rows)} records, which is not most of them"
        which, example = "one that it does not fit", next(row for row in rows if not any(row is one for one, _ in fits))
    else:
        doubt = f"it can be {' or '.join(meant)}" if meant else "no form fits"
        which, example = "the first", next(iter(records), rows[0] if rows else None)
    remedy = f"with {setting}.fields where the names differ, such as {{instruction: question, output: reply}}"
    raise DataError(
        "the form of the records can't be told:",
        [f"{place}: {doubt}, expected records of one form; {which} is {shown(example)}"],
        f"set {setting}.form: one of {', '.join(FORMS)}; {remedy}",
    )


def _meant(row: dict[str, Any], fields: Mapping[str, str]) -> list[str]:
    """The forms that fit a row, without those that stand back for another."""
    fitting = [form for form in FORMS.values() if _fits(form, row, form.names(fields))]
    return [form.name for form in fitting if not any(_stands_back(form, other) for other in fitting)]


def _stands_back(form: Form, other: Form) -> bool:
    return form is not other and (form.name == "text" or set(form.required) < set(other.required))


def _fits(form: Form, row: dict[str, Any], names: Names) -> bool:
    """Whether a row has the form's required fields, with values of the right kind."""
    values = [row.get(field) for field in form.required if field != "label"]
    match form.name:
        case "alpaca" | "text":
            return all(isinstance(value, str) for value in values)
        case "sharegpt" | "messages":
            return _has_turns(values[0], names)
        case "transcripts":
            return all(dialogues.SPOKEN.match(value) if isinstance(value, str) else _has_turns(value, names) for value in values)
        case "prompt_completion" if row.get("label") is not None:
            return False  # a disliked answer is nothing to learn
        case "kto" if dialogues.liked(row.get("label")) is None:
            return False
    return all(isinstance(value, str) or _has_turns(value, names) for value in values)


def _has_turns(value: Any, names: Names) -> bool:
    """Whether a value is a list of what looks like turns; who speaks and what is said may still be refused."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(turn, dict) and names.speaker in turn and names.content in turn for turn in value)
