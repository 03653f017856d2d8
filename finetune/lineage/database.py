"""MLflow's own database, read by sqlite3: milliseconds, where its client takes seconds to import."""

import sqlite3
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self

from finetune.errors import SetupError
from finetune.lineage.records import BRIEF, DATA, EXPORT, OF_VERSION, PARENT, Run, Version, carriers, local

PATIENCE = 10.0  # seconds that a writer may hold the database
SLICE = 500  # parameters of a query; old builds of sqlite take 999
UNREADABLE = "MLflow's database can't be read:"
RUNS = "select run_uuid, coalesce(name, ''), status, start_time, artifact_uri from runs where lifecycle_stage = 'active' and "
NEEDED = {
    "runs": ("run_uuid", "name", "status", "start_time", "artifact_uri", "lifecycle_stage"),
    "tags": ("key", "value", "run_uuid"),
    "params": ("key", "value", "run_uuid"),
    "model_versions": ("name", "version", "creation_time", "current_stage"),
    "model_version_tags": ("key", "value", "name", "version"),
    "registered_models": ("name",),
    "registered_model_aliases": ("alias", "name", "version"),
}
VERSIONS = f"""
with known as (
    select distinct name, version from model_version_tags where key = '{EXPORT}' and value = ? or key glob '{DATA}*' and instr(value, ?)
)
select name, version, creation_time, key, coalesce(value, '') from known
join model_versions using (name, version) join model_version_tags using (name, version)
where current_stage != ? and (key in {OF_VERSION} or key glob '{DATA}*')
"""
LARGEST = 2**63 - 1  # that sqlite knows
DELETED = "Deleted_Internal"  # stage of a version that was deleted


class Unknown(Exception):
    """A database with other tables than those of the MLflow that this was written for."""


class Database:
    """Records of a sqlite database; its writers are not in the way, nor is it in theirs."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path
        weakref.finalize(self, connection.close)
        for table, columns in NEEDED.items():
            found = {row[1] for row in self._rows(f"pragma table_info({table})")}
            if not found.issuperset(columns):
                raise Unknown(table)

    @classmethod
    def at(cls, path: Path) -> Self:
        """Open a database.

        Raises:
            SetupError: there is no such file, or it is no database.
            Unknown: its tables are others.
        """
        if not path.is_file():
            raise SetupError(
                "nothing was tracked yet:", [f"found no database {path}"], "run the pipeline first, with tracking.enabled=true"
            )
        return cls(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=PATIENCE), path)

    def runs(self, ids: Iterable[str]) -> dict[str, Run]:
        return {run.id: run for some in _slices(ids) for run in self._runs(f"run_uuid in ({_marks(some)})", some)}

    def beginning(self, start: str) -> list[str]:
        query = "select run_uuid from runs where lifecycle_stage = 'active' and substr(run_uuid, 1, ?) = ? order by run_uuid"
        return [run for (run,) in self._rows(query, [len(start), start])]

    def named(self, name: str) -> list[Run]:
        return _sorted(self._runs("name = ?", [name]))

    def children(self, run: str) -> list[Run]:
        return self.tagged(PARENT, run)

    def tagged(self, key: str, value: str | None = None) -> list[Run]:
        condition, given = ("key = ?", [key]) if value is None else ("key = ? and value = ?", [key, value])
        ids = [row[0] for row in self._rows(f"select run_uuid from tags where {condition}", given)]
        return _sorted(run for some in _slices(ids) for run in self._runs(f"run_uuid in ({_marks(some)})", some, (key, *BRIEF)))

    def models(self) -> list[str]:
        return sorted(row[0] for row in self._rows("select name from registered_models"))

    def numbers(self, model: str) -> list[int]:
        query = "select version from model_versions where name = ? and current_stage != ? order by version desc"
        return [number for (number,) in self._rows(query, [model, DELETED])]

    def aliases(self, model: str) -> dict[str, int]:
        return dict(self._rows("select alias, version from registered_model_aliases where name = ? order by alias", [model]))

    def version(self, model: str, number: int) -> Version | None:
        if number > LARGEST:
            return None
        query = "select creation_time from model_versions where name = ? and version = ? and current_stage != ?"
        found = self._rows(query, [model, number, DELETED])
        if not found:
            return None
        tags = self._rows("select key, coalesce(value, '') from model_version_tags where name = ? and version = ?", [model, number])
        return Version(model, number, found[0][0], dict(tags), carriers(self.aliases(model), number))

    def versions(self, digest: str) -> list[Version]:
        tags: dict[tuple[int, int, str], dict[str, str]] = defaultdict(dict)
        for model, number, created, key, value in self._rows(VERSIONS, [digest, f'"{digest}"', DELETED]):
            tags[created, number, model][key] = value
        aliases = {model: self.aliases(model) for model in {model for _, _, model in tags}}
        return [
            Version(model, number, created, tags[created, number, model], carriers(aliases[model], number))
            for created, number, model in sorted(tags, reverse=True)
        ]

    def artifact(self, run: Run, path: str) -> bytes | None:
        folder = local(run.artifacts)
        if folder is None:  # a database here, and artifacts in a bucket
            from finetune.lineage.server import downloaded

            return downloaded(run.artifacts, path)
        return (folder / path).read_bytes() if (folder / path).is_file() else None

    def _runs(self, condition: str, given: Sequence[str], brief: Sequence[str] = ()) -> list[Run]:
        """Runs, with the tags named in `brief` alone and no parameters, if there are any."""
        found = self._rows(RUNS + condition, given)
        ids = [row[0] for row in found]
        tags, params = self._pairs("tags", ids, brief), self._pairs("params", [] if brief else ids)
        return [Run(run, name, status, at, folder, tags[run], params[run]) for run, name, status, at, folder in found]

    def _pairs(self, table: str, ids: Sequence[str], keys: Sequence[str] = ()) -> dict[str, dict[str, str]]:
        """Run → key → value, of these keys or of all."""
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for some in _slices(ids):
            query = f"select run_uuid, key, value from {table} where run_uuid in ({_marks(some)})"
            query += f" and key in ({_marks(keys)})" if keys else ""
            for run, key, value in self._rows(query, [*some, *keys]):
                found[run][key] = value or ""
        return found

    def _rows(self, query: str, given: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._connection.execute(query, given).fetchall()
        except sqlite3.OperationalError as error:
            raise SetupError(UNREADABLE, [str(error)], "wait until no run is being sent to it, and ask again") from error
        except sqlite3.DatabaseError as error:
            found = f"{self._path}: {error}"
            raise SetupError(UNREADABLE, [found], "put a copy of it back, or move it away: the next run begins a new one") from error


def _sorted(runs: Iterable[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: (run.started, run.id), reverse=True)


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _slices(values: Iterable[str]) -> Iterator[list[str]]:
    left = iter(values)
    while some := list(islice(left, SLICE)):
        yield some
