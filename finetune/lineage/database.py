"""MLflow's own database, read by sqlite3: milliseconds, where its client takes seconds to import."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self

from finetune.errors import SetupError
from finetune.lineage.records import PARENT, Run, Version, local

SLICE = 500  # parameters of a query; old builds of sqlite take 999
RUNS = "select run_uuid, coalesce(name, ''), status, start_time, artifact_uri from runs where lifecycle_stage = 'active' and "
NEEDED = {
    "runs": ("run_uuid", "name", "status", "start_time", "artifact_uri", "lifecycle_stage"),
    "tags": ("key", "value", "run_uuid"),
    "params": ("key", "value", "run_uuid"),
    "model_versions": ("name", "version", "creation_time", "current_stage"),
    "model_version_tags": ("key", "value", "name", "version"),
    "registered_model_aliases": ("alias", "name", "version"),
}
DELETED = "Deleted_Internal"  # stage of a version that was deleted


class Unknown(Exception):
    """A database with other tables than those of the MLflow that this was written for."""


class Database:
    """Records of a sqlite database; its writers are not in the way, nor is it in theirs."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        for table, columns in NEEDED.items():
            found = {row[1] for row in connection.execute(f"pragma table_info({table})")}
            if not found.issuperset(columns):
                raise Unknown(table)

    @classmethod
    def at(cls, uri: str) -> Self:
        """Open `sqlite:///path`.

        Raises:
            SetupError: there is no such file.
            Unknown: its tables are others.
        """
        path = Path(uri.partition(":///")[2])
        if not path.is_file():
            raise SetupError(
                "nothing was tracked yet:", [f"found no database {path}"], "run the pipeline first, with tracking.enabled=true"
            )
        return cls(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True))

    def runs(self, ids: Iterable[str]) -> dict[str, Run]:
        return {run.id: run for some in _slices(ids) for run in self._runs(f"run_uuid in ({_marks(some)})", some)}

    def named(self, name: str) -> list[Run]:
        return _sorted(self._runs("name = ?", [name]))

    def children(self, run: str) -> list[Run]:
        return self.tagged(PARENT, run)

    def tagged(self, key: str, value: str | None = None) -> list[Run]:
        condition, given = ("key = ?", [key]) if value is None else ("key = ? and value = ?", [key, value])
        ids = [row[0] for row in self._rows(f"select run_uuid from tags where {condition}", given)]
        return _sorted(self.runs(ids).values())

    def models(self) -> list[str]:
        return sorted(row[0] for row in self._rows("select name from registered_models"))

    def versions(self, model: str) -> list[Version]:
        tags: dict[int, dict[str, str]] = defaultdict(dict)
        for number, key, value in self._rows("select version, key, value from model_version_tags where name = ?", [model]):
            tags[number][key] = value or ""
        aliases: dict[int, list[str]] = defaultdict(list)
        for number, alias in self._rows("select version, alias from registered_model_aliases where name = ? order by alias", [model]):
            aliases[number].append(alias)
        query = "select version, creation_time from model_versions where name = ? and current_stage != ? order by version desc"
        return [Version(model, number, at, tags[number], tuple(aliases[number])) for number, at in self._rows(query, [model, DELETED])]

    def artifact(self, run: Run, path: str) -> bytes | None:
        folder = local(run.artifacts)
        if folder is None:  # a database here, and artifacts in a bucket
            from finetune.lineage.server import downloaded

            return downloaded(f"{run.artifacts}/{path}")
        return (folder / path).read_bytes() if (folder / path).is_file() else None

    def _runs(self, condition: str, given: Sequence[str]) -> list[Run]:
        found = self._rows(RUNS + condition, given)
        ids = [row[0] for row in found]
        tags, params = self._pairs("tags", ids), self._pairs("params", ids)
        return [Run(run, name, status, at, folder, tags[run], params[run]) for run, name, status, at, folder in found]

    def _pairs(self, table: str, ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Run → key → value."""
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for some in _slices(ids):
            query = f"select run_uuid, key, value from {table} where run_uuid in ({_marks(some)})"
            for run, key, value in self._rows(query, some):
                found[run][key] = value or ""
        return found

    def _rows(self, query: str, given: Sequence[Any] = ()) -> list[Any]:
        return self._connection.execute(query, given).fetchall()


def _sorted(runs: Iterable[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: (run.started, run.id), reverse=True)


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _slices(values: Iterable[str]) -> Iterator[list[str]]:
    left = iter(values)
    while some := list(islice(left, SLICE)):
        yield some
