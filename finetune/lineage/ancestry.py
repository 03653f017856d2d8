"""Where a model comes from: commit, settings, data down to the raw source, base weights, environment, and who made each stage."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from finetune import paths
from finetune.fingerprint import Fingerprint
from finetune.lineage import commits
from finetune.lineage.commits import Commit
from finetune.lineage.records import COMMIT, OF_RUN, Records, Run, Version, sources
from finetune.lineage.subject import Subject
from finetune.locks import overlap, stages
from finetune.tracking import hashes

CODE = (".py", ".lock")  # of what stages read, these are told by the commit


@dataclass(frozen=True)
class Made:
    """What a stage left, and the run that made it; without a run, MLflow did not hear of it."""

    stage: str
    entry: str
    """sha256 of the stage's entry in dvc.lock: equal ones had the same command, inputs, settings and outputs."""
    reads: Mapping[str, str]
    """Path → md5, but for code."""
    writes: Mapping[str, str]
    run: str | None = None
    pipeline: str | None = None
    """Name of the pipeline's run that it belongs to; None: that was deleted since."""
    pipeline_run: str | None = None
    started: int | None = None
    environment: str | None = None


@dataclass(frozen=True)
class Ancestry:
    """All that is known of where a run's export comes from. What is None or empty is not known."""

    asked: str
    version: str | None
    aliases: Sequence[str]
    export: str | None
    """DVC's md5 of models/export."""
    gates: str | None
    gates_run: str | None
    """The run that judged; with the same bytes it may be another one."""
    gates_differs: Sequence[str]
    """Of another one: what it judged with and its commit had not, but for settings."""
    run: str | None
    run_name: str | None
    status: str | None
    started: int | None
    commit: Commit | None
    differs: Sequence[str]
    """Tracked files that were not as in the commit."""
    untracked: Sequence[str]
    """Files that stages read and nobody kept."""
    outdated: Sequence[str]
    """What the models were not made from as it was told at the end, `params.yaml:train` or a file: commit and settings are not theirs."""
    experiment: str | None
    experiment_commit: Commit | None
    """DVC's own commit of the experiment, which holds what differed."""
    settings_sha256: str | None
    settings: Mapping[str, str]
    data: Mapping[str, Mapping[str, Any]]
    data_changed: bool
    base: Mapping[str, str]
    environment: str | None
    environment_fields: Mapping[str, str]
    stages: Sequence[Made]
    same_bytes: Sequence[str]
    """Names of further runs that came to the same export."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def of(subject: Subject, asked: str, records: Records, root: Path) -> Ancestry:
    """Trace a version, the pipeline of a run, or the newest pipeline that knows some bytes."""
    version, run = _both(subject, records)
    if run is None or isinstance(subject, Version):
        tags = dict(version.tags) if version else {}
    else:  # its own evidence, also where the version has that of another run
        tags = {**run.tags, **({"export.md5": version.tags["export.md5"]} if version else {})}
    sha, saved = tags.get("git.commit", tags.get(COMMIT)), tags.get("dvc.commit")
    lock = records.artifact(run, paths.LOCK.name) if run else None
    same = records.tagged(OF_RUN, version.name) if version else []
    told_by = run.id if run else tags.get("run")
    judge = tags.get("gates.run", told_by) if "gates" in tags else None
    return Ancestry(
        asked=asked,
        version=version.name if version else None,
        aliases=version.aliases if version else (),
        export=tags.get("export.md5"),
        gates=tags.get("gates"),
        gates_run=judge,
        gates_differs=_listed(tags.get("gates.differs")) if judge != told_by else [],
        run=told_by,
        run_name=run.name if run else tags.get("run.name"),
        status=run.status if run else None,
        started=run.started if run else None,
        commit=commits.known(sha, root) if sha else None,
        differs=_listed(tags.get("git.differs")),
        untracked=_listed(tags.get("git.untracked")),
        outdated=_listed(tags.get("dvc.outdated")),
        experiment=tags.get("dvc.experiment"),
        experiment_commit=commits.known(saved, root) if saved else None,
        settings_sha256=tags.get("params.sha256"),
        settings=dict(sorted(run.params.items())) if run else {},
        data=sources(tags),
        data_changed="data.changed" in tags,
        base={key.removeprefix("base."): text for key, text in sorted(tags.items()) if key.startswith("base.")},
        environment=tags.get("environment"),
        environment_fields=_shown(made_in(tags)),
        stages=_stages(lock.decode() if lock else "", run, tags, records),
        same_bytes=[f"{other.name} ({other.id})" for other in same if run is None or other.id != run.id],
    )


def pipeline(run: Run, records: Records) -> Run:
    """The run of the pipeline that a stage's run belongs to; a pipeline's is its own."""
    return records.runs([run.parent]).get(run.parent, run) if run.parent else run


def version_of(run: Run, records: Records) -> Version | None:
    """The version that a pipeline's run exported."""
    model, _, number = run.tags.get(OF_RUN, "").rpartition("/")
    return records.version(model, int(number)) if model else None


def made_in(tags: Mapping[str, str]) -> Fingerprint | None:
    """The environment that tags tell of; None where they tell of none, or in the words of another version of ours."""
    try:
        return Fingerprint.from_tags(tags)
    except TypeError:
        return None


def _shown(environment: Fingerprint | None) -> dict[str, str]:
    """Field → text, all packages in one."""
    if environment is None:
        return {}
    fields = {name: text for name, text in environment.lines().items() if name not in environment.libraries}
    return {**fields, "packages": ", ".join(f"{name} {version}" for name, version in environment.libraries.items())}


def _both(subject: Subject, records: Records) -> tuple[Version | None, Run | None]:
    """The version and the pipeline's run that are meant; of a run, its own evidence counts, not that of others with the same export."""
    match subject:
        case Version():
            return subject, records.runs([subject.tags.get("run", "")]).get(subject.tags.get("run", ""))
        case Run():
            run = pipeline(subject, records)
            return version_of(run, records), run
        case _:
            run = records.runs([subject.runs[0].id])[subject.runs[0].id]
            return version_of(run, records), run


def _stages(lock: str, run: Run | None, tags: Mapping[str, str], records: Records) -> list[Made]:
    """Every stage, in the order of the pipeline, with its maker; of a pipeline that never came to its report, those that it ran."""
    entries = hashes.entries(lock)
    makers = {key.removeprefix("made_by."): value for key, value in tags.items() if key.startswith("made_by.")}
    own = {child.tags.get("stage", child.name): child for child in reversed(records.children(run.id))} if run else {}
    known = records.runs({*makers.values()})
    above = {**({run.id: run} if run else {}), **records.runs({maker.parent for maker in known.values() if maker.parent})}
    touched: dict[str, tuple[Mapping[str, str], Mapping[str, str]]]
    touched = {name: (stage.deps, stage.outs) for name, stage in stages(lock).items()} or dict.fromkeys(own, ({}, {}))
    touched.pop("report", None)
    found = []
    for name in _in_order(touched):
        maker = known.get(makers.get(name.replace("@", "."), "")) or own.get(name)
        reads, writes = touched[name]
        made = Made(name, entries.get(name, ""), {path: md5 for path, md5 in reads.items() if not path.endswith(CODE)}, writes)
        if maker is not None:
            top = above.get(maker.parent) if maker.parent else maker
            made = replace(
                made,
                run=maker.id,
                pipeline=top.name if top else None,
                pipeline_run=maker.parent or maker.id,
                started=maker.started,
                environment=maker.tags.get("environment"),
            )
        found.append(made)
    return found


def _in_order(touched: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]]) -> Iterator[str]:
    """Stages, each behind those whose outs it reads; dvc.lock has new ones at its end."""
    before = {
        name: [other for other, (_, outs) in touched.items() if other != name and any(overlap(out, dep) for out in outs for dep in reads)]
        for name, (reads, _) in touched.items()
    }
    return iter(TopologicalSorter(before).static_order())


def _listed(text: str | None) -> list[str]:
    return text.split(", ") if text else []
