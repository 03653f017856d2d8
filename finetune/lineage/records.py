"""What MLflow knows, as lineage reads it: runs and model versions by id, name or tag.

Two ways give the same answers (a test compares them): a database of ours is read by sqlite3, because importing MLflow takes 1.5 to 3 s,
and anything else is asked through MLflow's client. docs/decisions/0015 has the measurements.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

PARENT = "mlflow.parentRunId"
COMMIT = "mlflow.source.git.commit"
OF_RUN = "model.version"  # as finetune.tracking.registry writes it
BRIEF = (PARENT, COMMIT, OF_RUN, "stage", "environment")  # tags of runs that are only listed
SURROUNDINGS = {  # of who asks a server; MLflow's own patience is minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
EXPORT, DATA = "export.md5", "data."  # tags of versions: the bytes of one, and the beginning of those that say what it ate
OF_VERSION = (EXPORT, "git.commit", "run", "run.name")  # tags of versions that are only listed, beside those of DATA


@dataclass(frozen=True)
class Run:
    """A run of a pipeline or of a stage."""

    id: str
    name: str
    status: str
    started: int
    """Milliseconds since 1970."""
    artifacts: str
    """Address of its artifacts."""
    tags: Mapping[str, str]
    params: Mapping[str, str]

    @property
    def parent(self) -> str | None:
        """Id of the pipeline's run, of a stage's."""
        return self.tags.get(PARENT)


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    model: str
    number: int
    created: int
    tags: Mapping[str, str]
    aliases: tuple[str, ...]

    @property
    def name(self) -> str:
        """NAME/NUMBER."""
        return f"{self.model}/{self.number}"


def carriers(aliases: Mapping[str, int], number: int) -> tuple[str, ...]:
    """The aliases of one version."""
    return tuple(alias for alias, of in aliases.items() if of == number)


def sources(tags: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Name → facts, of what a run's or version's tags say that was read; without tags of that beginning that are somebody else's."""
    found = {}
    for key, text in sorted(tags.items()):
        if key.startswith(DATA):
            with suppress(ValueError):
                facts = json.loads(text)
                if isinstance(facts, dict):
                    found[str(facts.pop("path", key.removeprefix(DATA)))] = facts
    return found


def eaten(tags: Mapping[str, str], digest: str) -> str | None:
    """What a run or version calls the file of its data that has this hash; None where none has."""
    return next((name for name, facts in sources(tags).items() if digest in facts.values()), None)


class Records(Protocol):
    """MLflow, read only. Lists are newest first; deleted runs are in none."""

    def runs(self, ids: Iterable[str]) -> dict[str, Run]:
        """Id → run, of those that are there."""

    def beginning(self, start: str) -> list[str]:
        """Ids of runs that begin with these digits, sorted."""

    def named(self, name: str) -> list[Run]:
        """Runs of this name."""

    def children(self, run: str) -> list[Run]:
        """Runs of the stages of a pipeline's run."""

    def tagged(self, key: str, value: str | None = None) -> list[Run]:
        """Runs that have this tag, with this value or any. Of their tags they have but that one and BRIEF, and no parameters."""

    def models(self) -> list[str]:
        """Names of the registered models, sorted."""

    def numbers(self, model: str) -> list[int]:
        """Numbers of the versions of a model, the newest first; none where there is no such model."""

    def aliases(self, model: str) -> dict[str, int]:
        """Alias → number, in alphabetical order."""

    def version(self, model: str, number: int) -> Version | None:
        """A version; None where there is none of that number."""

    def versions(self, digest: str) -> list[Version]:
        """Versions whose export, or a file of whose data, has this hash. Of their tags they have those of DATA and OF_VERSION."""

    def artifact(self, run: Run, path: str) -> bytes | None:
        """Content of an artifact; None where there is none."""


def database(uri: str) -> Path | None:
    """The file of an sqlite address, whose options behind a `?` are for who opens it otherwise; None of any other address."""
    scheme, _, path = uri.partition(":///")
    return Path(path.partition("?")[0]) if scheme == "sqlite" else None


def opened(uri: str) -> Records:
    """The records at an address of MLflow's.

    Raises:
        SetupError: it is a database that is not there.
    """
    if (path := database(uri)) is not None:
        from finetune.lineage.database import Database, Unknown  # one of the two is needed, and the other costs seconds

        try:
            return Database.at(path)
        except Unknown:
            pass  # tables of an MLflow that we don't know: it knows them itself
    from finetune.lineage.server import Server

    return Server(uri)


def local(address: str) -> Path | None:
    """The folder that an address of artifacts means; None where it is on no disk of this machine."""
    parts = urlsplit(address)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(address) if not parts.scheme else None
