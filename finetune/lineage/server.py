"""MLflow through its client: for a server, and for any database that is not sqlite's."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from mlflow.artifacts import download_artifacts
from mlflow.entities import Run as Entity
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import MlflowClient

from finetune.lineage.records import BRIEF, DATA, EXPORT, OF_VERSION, PARENT, Run, Version, carriers, eaten, local

PAGE = 1000  # runs a call
MISSING = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}  # the latter of names that none can have
T = TypeVar("T")

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for each artifact, of a kilobyte, in between the answer


class Server:
    """Records that MLflow's client gives."""

    def __init__(self, uri: str) -> None:
        self._client = MlflowClient(uri)
        self._uri = uri

    def runs(self, ids: Iterable[str]) -> dict[str, Run]:
        found = {}
        for each in ids:
            entity = _unless_missing(partial(self._client.get_run, each))
            if entity is not None and entity.info.lifecycle_stage == "active":
                found[each] = _run(entity)
        return found

    def beginning(self, start: str) -> list[str]:
        return sorted(run.id for run in self._search(f"attributes.run_id LIKE {_quoted(f'{start}%')}"))

    def named(self, name: str) -> list[Run]:
        return self._search(f"attributes.run_name = {_quoted(name)}")

    def children(self, run: str) -> list[Run]:
        return self.tagged(PARENT, run)

    def tagged(self, key: str, value: str | None = None) -> list[Run]:
        found = self._search(f"tags.`{key}` LIKE '%'" if value is None else f"tags.`{key}` = {_quoted(value)}")
        return [replace(run, tags={name: run.tags[name] for name in (key, *BRIEF) if name in run.tags}, params={}) for run in found]

    def models(self) -> list[str]:
        return sorted(model.name for model in self._client.search_registered_models(max_results=PAGE))

    def numbers(self, model: str) -> list[int]:
        return sorted((int(each.version) for each in self._versions(f"name = {_quoted(model)}")), reverse=True)

    def aliases(self, model: str) -> dict[str, int]:
        registered = _unless_missing(lambda: self._client.get_registered_model(model))
        return {} if registered is None else {alias: int(number) for alias, number in sorted(registered.aliases.items())}

    def version(self, model: str, number: int) -> Version | None:
        found = _unless_missing(lambda: self._client.get_model_version(model, str(number)))
        if found is None:
            return None
        return Version(model, number, found.creation_timestamp, dict(found.tags), carriers(self.aliases(model), number))

    def versions(self, digest: str) -> list[Version]:
        known = [each for each in self._versions() if each.tags.get(EXPORT) == digest or eaten(each.tags, digest) is not None]
        aliases = {model: self.aliases(model) for model in {each.name for each in known}}
        found = []
        for each in known:
            tags = {key: value for key, value in each.tags.items() if key in OF_VERSION or key.startswith(DATA)}
            number = int(each.version)
            found.append(Version(each.name, number, each.creation_timestamp, tags, carriers(aliases[each.name], number)))
        return sorted(found, key=lambda version: (version.created, version.number, version.model), reverse=True)

    def artifact(self, run: Run, path: str) -> bytes | None:
        folder = local(run.artifacts)
        if folder is not None:
            return (folder / path).read_bytes() if (folder / path).is_file() else None
        return downloaded(f"{run.artifacts}/{path}", self._uri)

    def _versions(self, condition: str | None = None) -> Iterator[ModelVersion]:
        token = None
        while True:
            page = self._client.search_model_versions(condition, max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _search(self, condition: str) -> list[Run]:
        experiments = [experiment.experiment_id for experiment in self._client.search_experiments(max_results=PAGE)]
        found: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs(experiments, condition, max_results=PAGE, page_token=token)
            found += map(_run, page)
            token = page.token
            if not token:
                return sorted(found, key=lambda run: (run.started, run.id), reverse=True)


def downloaded(address: str, uri: str | None = None) -> bytes | None:
    """Content of an artifact that is on no disk here; None where there is none."""
    with TemporaryDirectory() as folder:
        try:
            return Path(download_artifacts(artifact_uri=address, dst_path=folder, tracking_uri=uri)).read_bytes()
        except (MlflowException, OSError):  # what a store says of a file that is not there differs from store to store
            return None


def _unless_missing(ask: Callable[[], T]) -> T | None:
    """What MLflow answers; None where it has no such thing."""
    try:
        return ask()
    except MlflowException as error:
        if error.error_code not in MISSING:
            raise
        return None


def _run(entity: Entity) -> Run:
    info = entity.info
    tags = {key: value for key, value in entity.data.tags.items() if key != "mlflow.runName" or value}
    return Run(info.run_id, info.run_name or "", info.status, info.start_time, info.artifact_uri, tags, dict(entity.data.params))


def _quoted(text: str) -> str:
    """A string of MLflow's filters; it knows no escape, so one with both quotes can't be asked for."""
    return f'"{text}"' if "'" in text else f"'{text}'"
