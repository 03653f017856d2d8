"""Exports in MLflow's model registry: one version for each export's bytes, tagged with what it came from.

The version is found by `export.md5`, DVC's hash of models/export, so that it may be sent twice, and the same bytes made again are the
same version. Its tags are those of the newest run that made these bytes from a clean tree; of the newest, where none was clean; and what
was promoted keeps those that it was promoted for.
Every run that made them has the tag `model.version`.
"""

from collections.abc import Mapping

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking import MlflowClient

from finetune.tracking import VERSION
from finetune.tracking.spool import Event

OF_RUN = "model.version"  # tag of a run: NAME/NUMBER of what it exported
CANDIDATE = "candidate"
MD5, AT, RUN = "export.md5", "export.at", "run"
PROMOTED = "promoted.at"  # finetune.promoting
EVIDENCE = ("base.", "data.", "dvc.", "environment", "gates", "git.", "made_by.", "params.")
COMMIT = "mlflow.source.git.commit"


def version(client: MlflowClient, run: Run, event: Event) -> str:
    """Find or create the version of what a pipeline's run exported, point `candidate` at it if none is newer, and return NAME/NUMBER."""
    name, at = event["name"], event["at"]
    tags = {MD5: event["md5"], AT: str(at), RUN: run.info.run_id, "run.name": run.info.run_name, **evidence(run.data.tags)}
    known = client.search_model_versions(f"name = '{name}' AND tags.`{MD5}` = '{event['md5']}'")
    if known:
        number = known[0].version
        _renew(client, known[0], tags)
    else:
        _register(client, name)
        source = f"{run.info.artifact_uri}/{VERSION}"
        number = client.create_model_version(
            name, source, run.info.run_id, tags, await_creation_for=0
        ).version  # nothing is copied: no wait
    candidate = client.get_registered_model(name).aliases.get(CANDIDATE)
    if candidate is None or int(client.get_model_version(name, candidate).tags.get(AT, 0)) <= at:  # what waited in a spool may be older
        client.set_registered_model_alias(name, CANDIDATE, number)
    return f"{name}/{number}"


def evidence(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a run that say what it came from."""
    found = {key: value for key, value in tags.items() if key.startswith(EVIDENCE)}
    return {**found, **({"git.commit": tags[COMMIT]} if COMMIT in tags else {})}


def worth(tags: Mapping[str, str]) -> int:
    """2: all that a version was made from is in its commit; 1: it is told, but not all there; 0: it is not known."""
    if "git.commit" not in tags or "params.sha256" not in tags or tags.get("dvc.outdated") or "data.changed" in tags:
        return 0
    return 1 if tags.get("git.differs") or tags.get("git.untracked") else 2


def note(client: MlflowClient, name: str, run: str, key: str, value: str) -> None:
    """Tag the version NAME/NUMBER with what became known of a run later, if it is that run's."""
    model, _, number = name.rpartition("/")
    if client.get_model_version(model, number).tags.get(RUN) == run:
        client.set_model_version_tag(model, number, key, value)


def _renew(client: MlflowClient, found: ModelVersion, tags: Mapping[str, str]) -> None:
    """Take another run's evidence for the same bytes, when it is newer and no worse; what was promoted keeps its own."""
    if PROMOTED in found.tags:
        return
    if int(found.tags.get(AT, 0)) > int(tags[AT]) or worth(found.tags) > worth(tags):
        return
    for key, value in tags.items():
        if found.tags.get(key) != value:
            client.set_model_version_tag(found.name, found.version, key, value)
    for key in found.tags.keys() - tags.keys():
        client.delete_model_version_tag(found.name, found.version, key)


def _register(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
