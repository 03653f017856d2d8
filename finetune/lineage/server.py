"""MLflow through its client: for a server, and for any database that is not sqlite's."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import ParamSpec, TypeVar

from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.entities import Run as Entity
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import MlflowClient

from finetune.errors import SetupError
from finetune.lineage.records import BRIEF, DATA, EXPORT, OF_VERSION, PARENT, SURROUNDINGS, Run, Version, carriers, eaten, local

PAGE = 1000  # runs a call
MISSING = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}  # the latter of names that none can have
REMEDY = (
    "see that it runs, that tracking.uri names it, and that it takes MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; "
    "MLFLOW_HTTP_REQUEST_TIMEOUT=60 gives a slow one more time"
)
P = ParamSpec("P")
T = TypeVar("T")

os.environ.update(SURROUNDINGS | os.environ)
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for each artifact, of a kilobyte, in between the answer


class Server:
    """Records that MLflow's client gives.

    Raises, whatever is asked:
        SetupError: MLflow does not answer, or refuses to.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client = self._ask(MlflowClient, uri)

    def runs(self, ids: Iterable[str]) -> dict[str, Run]:
        found = {}
        for each in ids:
            entity = self._find(self._client.get_run, each)
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
        return sorted(model.name for model in self._ask(self._client.search_registered_models, max_results=PAGE))

    def numbers(self, model: str) -> list[int]:
        return sorted((int(each.version) for each in self._versions(f"name = {_quoted(model)}")), reverse=True)

    def aliases(self, model: str) -> dict[str, int]:
        registered = self._find(self._client.get_registered_model, model)
        return {} if registered is None else {alias: int(number) for alias, number in sorted(registered.aliases.items())}

    def version(self, model: str, number: int) -> Version | None:
        found = self._find(self._client.get_model_version, model, str(number))
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
        return downloaded(run.artifacts, path, self._uri)

    def _versions(self, condition: str | None = None) -> Iterator[ModelVersion]:
        token = None
        while True:
            page = self._ask(self._client.search_model_versions, condition, max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _search(self, condition: str) -> list[Run]:
        experiments = [experiment.experiment_id for experiment in self._ask(self._client.search_experiments, max_results=PAGE)]
        found: list[Run] = []
        token = None
        while True:
            page = self._ask(self._client.search_runs, experiments, condition, max_results=PAGE, page_token=token)
            found += map(_run, page)
            token = page.token
            if not token:
                return sorted(found, key=lambda run: (run.started, run.id), reverse=True)

    def _find(self, ask: Callable[P, T], *given: P.args, **named: P.kwargs) -> T | None:
        """What MLflow answers; None where it has no such thing."""
        try:
            return ask(*given, **named)
        except MlflowException as error:
            if error.error_code not in MISSING:
                raise _unanswered(self._uri, ask.__name__, error) from error
            return None

    def _ask(self, ask: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """What MLflow answers."""
        try:
            return ask(*given, **named)
        except MlflowException as error:
            raise _unanswered(self._uri, ask.__name__, error) from error


def downloaded(folder: str, path: str, uri: str | None = None) -> bytes | None:
    """Content of an artifact that is on no disk here; None where there is none.

    What a store says of a file that is not there differs from store to store, so the folder is listed first.

    Raises:
        SetupError: the store does not answer, or refuses to.
    """
    with TemporaryDirectory() as kept:
        try:
            if path not in {PurePosixPath(file.path).name for file in list_artifacts(artifact_uri=folder, tracking_uri=uri)}:
                return None
            return Path(download_artifacts(artifact_uri=f"{folder}/{path}", dst_path=kept, tracking_uri=uri)).read_bytes()
        except Exception as error:  # each store has a library of its own, with errors of its own
            raise _unanswered(folder, path, error) from error


def _unanswered(address: str, asked: str, error: Exception) -> SetupError:
    said = str(error).partition("\n")[0] or type(error).__name__
    return SetupError("MLflow does not answer:", [f"{address}: asked for {asked}: {said}"], REMEDY)


def _run(entity: Entity) -> Run:
    info = entity.info
    tags = {key: value for key, value in entity.data.tags.items() if key != "mlflow.runName" or value}
    return Run(info.run_id, info.run_name or "", info.status, info.start_time, info.artifact_uri, tags, dict(entity.data.params))


def _quoted(text: str) -> str:
    """A string of MLflow's filters, which know no escape.

    Raises:
        SetupError: it has both kinds of quotes.
    """
    if "'" in text and '"' in text:
        raise SetupError("MLflow can't be asked for this name:", [f"found both kinds of quotes in {text}"], "give the run's id")
    return f'"{text}"' if "'" in text else f"'{text}'"
