"""Exports in MLflow's model registry: one version for each export's bytes, tagged with what it came from.

The version is found by `export.md5`, DVC's hash of models/export, so that it may be sent twice, and the same bytes made again are the
same version. Its tags are those of the newest run that made these bytes from a clean tree; of the newest, where none was clean; and what
was promoted keeps those that it was promoted for. What the gates said is another matter: they are set without a change of the bytes, so
the newest run that had some says it, from whatever tree.
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
MD5, AT, RUN, RUN_NAME = "export.md5", "export.at", "run", "run.name"
PROMOTED = "promoted.at"  # finetune.promoting
EVIDENCE = ("base.", "data.", "dvc.", "environment", "git.", "made_by.", "params.")
OF_MAKER = (MD5, AT, RUN, RUN_NAME, "proof")  # what else is said of the run that made a version; all other tags are people's
GATES = "gates"  # tags that begin so: verdict, what failed, which run judged, and when
CODE = (".py", ".lock", "dvc.yaml")  # what a verdict depends on beside the settings, which it is of
COMMIT = "mlflow.source.git.commit"


def version(client: MlflowClient, run: Run, event: Event) -> str:
    """Find or create the version of what a pipeline's run exported, point `candidate` at it if none is newer, and return NAME/NUMBER."""
    name, at = event["name"], event["at"]
    tags = {MD5: event["md5"], AT: str(at), RUN: run.info.run_id, RUN_NAME: run.info.run_name, **evidence(run.data.tags)}
    said = verdict(run, at)
    known = client.search_model_versions(f"name = '{name}' AND tags.`{MD5}` = '{event['md5']}'")
    if known:
        number = known[0].version
        _renew(client, known[0], tags, said)
    else:
        _register(client, name)
        source = f"{run.info.artifact_uri}/{VERSION}"
        number = client.create_model_version(
            name, source, run.info.run_id, {**tags, **said}, await_creation_for=0
        ).version  # nothing is copied: no wait
    candidate = client.get_registered_model(name).aliases.get(CANDIDATE)
    if candidate is None or int(client.get_model_version(name, candidate).tags.get(AT, 0)) <= at:  # what waited in a spool may be older
        client.set_registered_model_alias(name, CANDIDATE, number)
    return f"{name}/{number}"


def evidence(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a run that say what it came from."""
    found = {key: value for key, value in tags.items() if key.startswith(EVIDENCE)}
    return {**found, **({"git.commit": tags[COMMIT]} if COMMIT in tags else {})}


def verdict(run: Run, at: int) -> dict[str, str]:
    """What a run says of the gates, as tags; `gates.differs` is what it judged with and its commit has not."""
    tags = run.data.tags
    if GATES not in tags:  # the run could not say all of what it came from
        return {}
    names = [name for key in ("git.differs", "git.untracked") for name in tags.get(key, "").split(", ") if name.endswith(CODE)]
    differs = ", ".join([*names, *filter(None, [tags.get("dvc.outdated")])])
    said = {key: tags[key] for key in (GATES, f"{GATES}.failed") if key in tags}
    return {**said, f"{GATES}.run": run.info.run_id, f"{GATES}.at": str(at), **({f"{GATES}.differs": differs} if differs else {})}


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


def _renew(client: MlflowClient, found: ModelVersion, tags: Mapping[str, str], said: Mapping[str, str]) -> None:
    """Take what another run of the same bytes says: its evidence, when it is newer and no worse, and its verdict, when it is newer."""
    gates = {key: value for key, value in found.tags.items() if key.startswith(GATES)}
    if _weight(said) >= _weight(gates):
        _replace(client, found, gates, said)
    told = {key: value for key, value in found.tags.items() if key in tags or key in OF_MAKER or key.startswith(EVIDENCE)}
    better = int(told.get(AT, 0)) <= int(tags[AT]) and worth(told) <= worth(tags)
    if PROMOTED not in found.tags and (better or told.get(RUN) == tags[RUN]):  # the same run: a sender was killed in the middle
        _replace(client, found, told, tags)


def _weight(said: Mapping[str, str]) -> tuple[bool, int]:
    """Of two verdicts the newer counts, but one of no gates never against one that was judged by some."""
    return said.get(GATES, "none") != "none", int(said.get(f"{GATES}.at", 0))


def _replace(client: MlflowClient, version: ModelVersion, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    for key, value in new.items():
        if old.get(key) != value:
            client.set_model_version_tag(version.name, version.version, key, value)
    for key in old.keys() - new.keys():
        client.delete_model_version_tag(version.name, version.version, key)


def _register(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
