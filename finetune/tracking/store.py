"""MLflow as the sender uses it: find or create the run of a pipeline and of a stage, add events, close what is over.

Every call may be repeated without harm, because a sender killed between a call and noting it repeats that call: runs are found by a
tag, and MLflow keeps one value per metric, step and time, one per parameter, one per data set.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_SOURCE_NAME
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH

from finetune.fingerprint import Fingerprint
from finetune.tracking import hashes, registry
from finetune.tracking.process import Process
from finetune.tracking.spool import Event, Spool

BATCH = 100  # parameters or tags a call, MLflow's own limit
METRICS = 1000  # metrics a call, likewise
KEY = 250  # characters of a key, likewise
WORST = ("FAILED", "KILLED")  # a pipeline without a report ended as the worst of its stages did

log = logging.getLogger(__name__)


class Store:
    """One MLflow experiment at one address."""

    def __init__(self, uri: str, experiment: str, home: Path) -> None:
        """Connect, creating database and experiment where they are missing; under a lock, because two who create it crash each other."""
        with FileLock(home / ".tracking" / "database.lock"):
            self._client = MlflowClient(uri)
            found = self._client.get_experiment_by_name(experiment)
            if found is None:
                local = uri.startswith("sqlite:")  # a server knows better where its artifacts belong
                location = (home / "mlartifacts").as_uri() if local else None
                self._experiment = self._client.create_experiment(experiment, artifact_location=location)
            else:
                self._experiment = found.experiment_id

    def pipeline(self, header: Event) -> str:
        """The id of the run of this pipeline, created when a stage is its first."""
        pipeline = header["pipeline"]
        tags = {
            "finetune.kind": "pipeline",
            "finetune.key": pipeline["key"],
            MLFLOW_SOURCE_NAME: "dvc.yaml",
            **_process(pipeline["process"]),
            **header.get("environment", {}),
            **{f"dvc.{name}": pipeline[name] for name in ("experiment", "baseline") if pipeline[name]},
        }
        return self._find_or_create("finetune.key", tags, header["at"], pipeline["name"])

    def stage(self, spool: Spool, parent: str) -> str:
        """The id of the run of a stage."""
        header = spool.header
        tags = {
            "finetune.kind": "stage",
            "finetune.spool": spool.path.name,
            "stage": header["name"],
            MLFLOW_PARENT_RUN_ID: parent,
            MLFLOW_SOURCE_NAME: f"stages.{header['stage']}",
            **_process(header["process"]),
            **header.get("environment", {}),
        }
        return self._find_or_create("finetune.spool", tags, header["at"], header["name"])

    def note_commit(self, key: str, commit: str) -> None:
        """Tag the run of a pipeline with the commit that DVC made of it."""
        for run in self._search(f"tags.`finetune.key` = '{key}'"):
            self._client.set_tag(run.info.run_id, "dvc.commit", commit)
            if (version := run.data.tags.get(registry.OF_RUN)) is not None:
                registry.note(self._client, version, run.info.run_id, "dvc.commit", commit)

    def note_entries(self, spool: Spool, parent: str) -> None:
        """Tag the stages of this pipeline that had ended when this one started with the hash of what DVC then had locked for them."""
        entries = hashes.entries(spool.header["lock"])
        for run in self._search(f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'"):
            entry = entries.get(run.data.tags["stage"])
            over = run.info.status == "FINISHED" and (run.info.end_time or 0) <= spool.header["at"]
            if entry and over and "dvc.entry" not in run.data.tags:
                self._client.set_tag(run.info.run_id, "dvc.entry", entry)

    def makers(self, spool: Spool, parent: str) -> dict[str, dict[str, Any] | None]:
        """For each stage in dvc.lock but the asking one, the run that made what is locked: of this pipeline, else the latest one.

        With it, in which lines the environment it was made in differs from the asking stage's.
        """
        found: dict[str, dict[str, Any] | None] = {}
        asking = Fingerprint.from_tags(spool.header.get("environment", {}))
        for stage, entry in hashes.entries(spool.header["lock"]).items():
            if stage == spool.header["name"]:
                continue
            runs = self._search(f"tags.`dvc.entry` = '{entry}' AND tags.stage = '{stage}'")
            runs.sort(key=lambda run: (run.data.tags[MLFLOW_PARENT_RUN_ID] == parent, run.info.start_time))
            found[stage] = None
            if runs:
                above = runs[-1].data.tags[MLFLOW_PARENT_RUN_ID]
                made_in = Fingerprint.from_tags(runs[-1].data.tags)
                found[stage] = {
                    "run": runs[-1].info.run_id,
                    "name": self._name(above) or runs[-1].info.run_name,
                    "here": above == parent,
                    "environment": made_in.id if made_in else None,
                    "differences": made_in.differences(asking) if made_in and asking else [],
                }
        made = {f"made_by.{_key(stage)}": maker["run"] for stage, maker in found.items() if maker is not None}
        self._log(parent, tags=made)
        return found

    def _name(self, run: str) -> str | None:
        """A run's name; None: it is gone, as `mlflow gc` leaves stages whose pipeline somebody deleted."""
        try:
            return str(self._client.get_run(run).info.run_name)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            return None

    def version(self, parent: str, event: Event) -> None:
        """Have what a pipeline exported in the registry."""
        version = registry.version(self._client, self._client.get_run(parent), event)
        self._client.set_tag(parent, registry.OF_RUN, version)

    def metrics(self, run: str, events: Iterable[Event]) -> None:
        """Numbers, each at its step and time; at most METRICS of them."""
        numbers = [Metric(_key(key), value, event["at"], event["step"]) for event in events for key, value in event["values"].items()]
        self._client.log_batch(run, metrics=numbers)

    def add(self, run: str, event: Event, folder: Path) -> None:
        """Whatever else a stage can say: parameters, tags, a data set, a file."""
        match event["event"]:
            case "params":
                self._params(run, event["values"])
            case "tags":
                self._log(run, tags=event["values"])
            case "note":
                self._note(event["run"], event["values"])
            case "dataset":
                data = Dataset(name=event["name"], digest=event["digest"], source_type="local", source=event["source"])
                self._client.log_inputs(run, datasets=[DatasetInput(data, [InputTag("mlflow.data.context", event["name"])])])
            case "artifact":
                path = folder / event["path"]
                if path.is_dir():
                    self._client.log_artifacts(run, str(path), f"{event['folder']}/{path.name}".strip("/"))
                else:
                    self._client.log_artifact(run, str(path), event["folder"] or None)
            case kind:
                raise ValueError(f"an event of a kind that nobody writes: {kind}")

    def end(self, run: str, status: str, at: int, error: str | None = None) -> None:
        """Close a run."""
        if error:
            self._client.set_tag(run, "error", error[:MAX_TAG_VAL_LENGTH])
        self._client.set_terminated(run, status, at)

    def close_dead(self, host: str, waiting: set[str]) -> None:
        """Close the runs that are open although their process on this host is gone; not those whose spool is still to be sent."""
        open_runs = [run for run in self._search(f"attributes.status = 'RUNNING' AND tags.`finetune.host` = '{host}'") if not _alive(run)]
        for run in open_runs:
            tags = run.data.tags
            if tags["finetune.kind"] == "stage" and tags["finetune.spool"] not in waiting:
                self.end(run.info.run_id, "KILLED", run.info.start_time, "its process died")
        for run in open_runs:
            if run.data.tags["finetune.kind"] == "pipeline":
                stages = self._search(f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run.info.run_id}'")
                statuses = [stage.info.status for stage in stages]
                if "RUNNING" not in statuses:
                    self._client.set_tag(run.info.run_id, "report", "missing")  # FINISHED says of it only that no stage failed
                    ended = max((stage.info.end_time or stage.info.start_time for stage in stages), default=run.info.start_time)
                    self.end(run.info.run_id, next((status for status in WORST if status in statuses), "FINISHED"), ended)

    def _find_or_create(self, by: str, tags: dict[str, str], at: int, name: str) -> str:
        found = self._search(f"tags.`{by}` = '{tags[by]}'")
        if found:
            return str(found[0].info.run_id)
        return str(self._client.create_run(self._experiment, at, tags, name).info.run_id)

    def _search(self, condition: str) -> list[Run]:
        """All matching runs of the experiment, page by page."""
        runs: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs([self._experiment], condition, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def _note(self, run: str, values: dict[str, str]) -> None:
        """Tags on a run of another pipeline; on that pipeline's run they carry the stage's name, `proof.train`."""
        tags = self._client.get_run(run).data.tags
        self._log(run, tags=values)
        self._log(tags[MLFLOW_PARENT_RUN_ID], tags={f"{key}.{tags['stage']}": value for key, value in values.items()})

    def _params(self, run: str, values: dict[str, str]) -> None:
        """Parameters; one that is too long is cut, and whole in the artifacts."""
        short = {}
        for key, text in values.items():
            short[_key(key)] = text[:MAX_PARAM_VAL_LENGTH]
            if len(text) > MAX_PARAM_VAL_LENGTH:
                self._client.log_text(run, text, f"params/{_key(key)}.txt")
        self._log(run, params=short)

    def _log(self, run: str, params: dict[str, str] | None = None, tags: dict[str, str] | None = None) -> None:
        for some in _batches([Param(key, value) for key, value in (params or {}).items()]):
            self._client.log_batch(run, params=some)
        keys = _keys(tags or {})
        for some in _batches([RunTag(keys[text], value[:MAX_TAG_VAL_LENGTH]) for text, value in (tags or {}).items()]):
            self._client.log_batch(run, tags=some)


def _batches(values: Sequence[Any]) -> list[Sequence[Any]]:
    return [values[start : start + BATCH] for start in range(0, len(values), BATCH)]


def _process(process: dict[str, Any]) -> dict[str, str]:
    return {"finetune.host": process["host"], "finetune.pid": str(process["pid"]), "finetune.created": str(process["created"])}


def _alive(run: Run) -> bool:
    tags = run.data.tags
    return Process(tags["finetune.host"], int(tags["finetune.pid"]), float(tags["finetune.created"])).alive


def _keys(texts: Iterable[str]) -> dict[str, str]:
    """Text → key, of each its own: `a@b` becomes `a.b.2` beside `a.b`."""
    found: dict[str, str] = {}
    for text in sorted(texts, key=lambda text: (_key(text) != text, text)):  # what is a key as it is stays so
        key, number = _key(text), 1
        while key in found.values():
            number += 1
            key = f"{_key(text)[: KEY - 5]}.{number}"
        found[text] = key
    return found


def _key(text: str) -> str:
    """A key as MLflow allows it: `answer@base` becomes `answer.base`."""
    return re.sub(r"[^\w\-. :/]", ".", text)[:KEY]
