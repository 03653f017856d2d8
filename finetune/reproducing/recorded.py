"""What MLflow recorded of a run, as far as it is needed to make it again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune import locks, paths
from finetune.errors import SetupError
from finetune.fingerprint import Fingerprint
from finetune.lineage import ancestry
from finetune.lineage.records import COMMIT, Records, Run, Version, sources

PATCH = "uncommitted.diff"


@dataclass(frozen=True)
class Recorded:
    """A run of the pipeline that came to its report."""

    name: str
    run: str
    commit: str | None
    experiment: str | None
    experiment_commit: str | None
    """What DVC made of the experiment; it holds what the commit has not."""
    dirty: bool
    differs: tuple[str, ...]
    untracked: tuple[str, ...]
    """Files that stages read and git did not have; code among them is in the patch."""
    patch: bytes | None
    """What differed from the commit; None where nothing did, or where MLflow has it no more."""
    params: bytes | None
    """params.yaml as it was."""
    lock: str
    """dvc.lock as it was, without report."""
    raw: Mapping[str, str]
    """File below data/raw that was read → its md5."""
    environment: Fingerprint | None

    @property
    def commit_shown(self) -> str:
        """As people read it."""
        return (self.commit or "not known")[:12]

    def setting(self, name: str) -> Any:
        """A value at the top of params.yaml; None where there is none."""
        return (yaml.safe_load(self.params) or {}).get(name) if self.params else None

    @property
    def outs(self) -> dict[str, Mapping[str, str]]:
        """Stage → path → md5 of what it wrote, of those that wrote anything."""
        return {name: stage.outs for name, stage in locks.stages(self.lock).items() if name != "report" and stage.outs}

    @property
    def code(self) -> dict[str, str]:
        """Path → md5 of every module that a stage but report imports."""
        read = [stage.deps for name, stage in locks.stages(self.lock).items() if name != "report"]
        return {path: md5 for deps in read for path, md5 in deps.items() if path.endswith(".py")}


def recorded(subject: Version | Run, records: Records) -> Recorded:
    """Gather what is known of a version's or stage's pipeline.

    Raises:
        SetupError: its run, or the dvc.lock that says what came out, is not in MLflow; or that says nothing, or is of something else.
    """
    run = _run(subject, records)
    _refuse_of_something_else(run)
    lock = records.artifact(run, paths.LOCK.name)
    if lock is None:
        found = f"run {run.name} ({run.id}): found no dvc.lock among its artifacts, expected the hashes of what it made"
        raise SetupError("nothing can be compared:", [found], "a run has it from its stage report on; take one that came to its end")
    tags = run.tags
    known = Recorded(
        name=run.name,
        run=run.id,
        commit=tags.get(COMMIT),
        experiment=tags.get("dvc.experiment"),
        experiment_commit=tags.get("dvc.commit"),
        dirty=tags.get("git.dirty") == "true",
        differs=tuple(tags["git.differs"].split(", ")) if "git.differs" in tags else (),
        untracked=tuple(tags["git.untracked"].split(", ")) if "git.untracked" in tags else (),
        patch=records.artifact(run, PATCH),
        params=records.artifact(run, paths.PARAMS.name),
        lock=lock.decode(errors="replace"),
        raw=_raw(tags),
        environment=ancestry.made_in(tags),
    )
    if not known.outs:
        lines = [f"run {run.name} ({run.id}): found no outs in its artifact dvc.lock, expected the hashes of what it made"]
        raise SetupError("nothing can be compared:", lines, "take a run whose stages wrote something")
    return known


def _run(subject: Version | Run, records: Records) -> Run:
    if isinstance(subject, Run):
        return ancestry.pipeline(subject, records)
    identity = subject.tags.get("run", "")
    run = records.runs([identity]).get(identity)
    if run is None:
        found = f"{subject.name}: found no run {identity} in MLflow, expected the one that made it"
        raise SetupError("the run of this version was deleted:", [found], "restore it: `mlflow runs restore --run-id <id>`")
    return run


def _refuse_of_something_else(run: Run) -> None:
    """Refuse a run whose commit and settings are known not to be those of its models: what differs would be called inexact, hours later.

    Raises:
        SetupError: with what was otherwise.
    """
    found = []
    if outdated := run.tags.get("dvc.outdated"):
        found.append(f"found other {outdated} in its dvc.lock than the run had at its end, expected the same")
    if "data.changed" in run.tags:
        found.append(f"found other files in {paths.RAW} than prepare read, expected the same")
    if found:
        remedy = "`dvc repro` makes what is committed; or commit what they were made from, then `dvc repro -sf report`; take its run"
        heading = "commit and settings of this run are not those of its models, so they would come out otherwise:"
        raise SetupError(heading, [f"run {run.name} ({run.id}): {each}" for each in found], remedy)


def _raw(tags: Mapping[str, str]) -> dict[str, str]:
    """Files of data/raw that were read; what packages and the hub hold is pinned by lock and revision."""
    return {name: facts["md5"] for name, facts in sources(tags).items() if Path(name).is_relative_to(paths.RAW) and "md5" in facts}
