"""Who ate a raw file, or is made of an intermediate one: every run that knows these bytes, and the model versions they came to.

A version remembers what it ate by its own tags, so it is found where its runs were deleted from MLflow, too.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finetune.lineage.records import COMMIT, OF_RUN, Records, Run, carriers
from finetune.lineage.subject import Bytes


@dataclass(frozen=True)
class Model:
    """A version of a model that these bytes went into."""

    version: str
    aliases: Sequence[str]
    runs: Sequence[str]
    """Names of the runs that came to it, newest first."""
    commit: str | None
    started: int
    """Of the newest of these runs, in milliseconds since 1970; where they were deleted, when the version was registered."""
    deleted: bool
    """Whether these runs were deleted from MLflow, so that the version alone tells of them."""


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
    there = {version.name for version in subject.versions}
    for told in {run.tags[OF_RUN] for run in subject.runs if OF_RUN in run.tags} - there:
        model, _, number = told.rpartition("/")
        if records.version(model, int(number)) is not None:  # with the data of another run that came to the same bytes
            there.add(told)
    runs = [(run, run.tags.get(OF_RUN)) for run in subject.runs if run.tags.get(OF_RUN, "") in {"", *there}]
    models = {name.rpartition("/")[0] for _, name in runs if name}
    aliases = {model: records.aliases(model) for model in models}
    makers: dict[str, list[Run]] = defaultdict(list)
    for run, name in runs:
        if name:
            makers[name].append(run)
    found = []
    for name, made in makers.items():
        model, _, number = name.rpartition("/")
        carried = carriers(aliases[model], int(number))
        found.append(Model(name, carried, [run.name for run in made], made[0].tags.get(COMMIT), made[0].started, False))
    others = [version for version in subject.versions if version.name not in makers]
    living = records.runs({version.tags["run"] for version in others if "run" in version.tags})
    for version in others:
        by = [version.tags["run.name"]] if "run.name" in version.tags else []
        deleted = version.tags.get("run") not in living  # else it is a copy, whose run tells of the first
        found.append(Model(version.name, version.aliases, by, version.tags.get("git.commit"), version.created, deleted))
    found.sort(key=lambda model: model.started, reverse=True)
    return Offspring(subject.name, subject.known_as, subject.read, found, [run.name for run, name in runs if not name])
