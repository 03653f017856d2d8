"""Who ate a raw file, or is made of an intermediate one: every run that knows these bytes, and the model versions they came to."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finetune.lineage.ancestry import COMMIT
from finetune.lineage.records import Records
from finetune.lineage.subject import OF_RUN, Bytes


@dataclass(frozen=True)
class Model:
    """A version of a model that these bytes went into."""

    version: str
    aliases: Sequence[str]
    runs: Sequence[str]
    """Names of the runs that came to it, newest first."""
    commit: str | None
    started: int
    """Of the newest of these runs, in milliseconds since 1970."""


@dataclass(frozen=True)
class Offspring:
    """All models of some bytes, newest first."""

    name: str
    known_as: str
    read: bool
    """Whether stages read it from outside; else one made it."""
    models: Sequence[Model]
    without_model: Sequence[str]
    """Names of runs that know these bytes and came to no version."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def of(subject: Bytes, records: Records) -> Offspring:
    """Gather the versions of the runs."""
    runs = [(run, run.tags.get(OF_RUN)) for run in subject.runs]
    models = {name.rpartition("/")[0] for _, name in runs if name}
    aliases = {version.name: version.aliases for model in models for version in records.versions(model)}
    found = []
    for name in dict.fromkeys(name for _, name in runs if name):
        makers = [run for run, made in runs if made == name]
        found.append(Model(name, aliases.get(name, ()), [run.name for run in makers], makers[0].tags.get(COMMIT), makers[0].started))
    return Offspring(subject.name, subject.known_as, subject.read, found, [run.name for run, name in runs if not name])
