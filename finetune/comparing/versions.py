"""What a run was, whatever it is called by: a commit, an experiment, the working tree, or a run in MLflow."""

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import yaml

from finetune import environment, paths
from finetune.comparing import numbers
from finetune.comparing.locks import Lock
from finetune.comparing.repository import Repository
from finetune.comparing.tracked import Tracked, TrackedRun
from finetune.errors import FinetuneError, SetupError
from finetune.locks import LOADER, NONE

WORKSPACE = "workspace"
CODE = ("finetune/", "stages/", "hydra_plugins/")
SHOWN = 3  # names in a sentence


@dataclass(frozen=True, eq=False)
class Version:
    """One run: what went into it, and how it came out."""

    name: str
    """As it was asked for."""
    title: str
    """What it is, for people."""
    commit: str | None
    """Where its files are; None: in the working tree."""
    lock_text: str
    params_text: str
    repository: Repository = field(repr=False)
    reported: Mapping[str, float] = field(default_factory=dict)
    """Scores that MLflow was told, for those that the cache no longer has."""
    whole: bool = True
    """Whether `commit` has all files as they ran; a run that became no commit may have changed some of them."""
    declared: Set[str] | None = None
    """Stages of its dvc.yaml; None: not known. DVC keeps in dvc.lock what it has no more."""

    @cached_property
    def lock(self) -> Lock:
        locked = Lock.of(self.lock_text)
        if self.declared is None:
            return locked
        return Lock({name: entry for name, entry in locked.entries.items() if name.partition("@")[0] in self.declared})

    @cached_property
    def params(self) -> dict[str, Any]:
        """params.yaml, flat, but for the fingerprint of conf/, which a comment changes."""
        values = yaml.load(self.params_text, Loader=LOADER) or {}  # a safe loader
        return {key: value for key, value in numbers.flat(values).items() if key != "conf_sha"}

    @cached_property
    def measured(self) -> dict[str, dict[str, float]]:
        """Stage → the scores of its metrics file, by dvc.lock from DVC's cache; stages without them are in `notes`."""
        return {stage: found for stage in self._reports if (found := self.scores(stage)) is not None}

    def scores(self, stage: str) -> dict[str, float] | None:
        """The scores of one stage; None where they are not to be had, or belong to models that were made anew since."""
        md5 = self._reports.get(stage)
        if md5 is None or self.lock.outdated(stage):
            return None
        content = self.repository.cached(md5) or self._on_disk(str(paths.metrics(stage)), md5)
        if content is not None:
            return numbers.scores(content, stage)
        return {key: value for key, value in self.reported.items() if key.startswith(f"{stage}.")} or None

    @cached_property
    def packages(self) -> dict[str, dict[str, str]]:
        """Lock of packages → package → version; of a lock that is not as the run used it nothing is known."""
        found = {}
        for name in environment.LOCKS:
            content = self.repository.read(self.commit, name)
            if content is not None and self.lock.inputs.get(name, _md5(content)) == _md5(content):
                found[name] = environment.pins_of(content.decode())
        return found

    @cached_property
    def notes(self) -> list[str]:
        """What a reader must know before trusting the rest."""
        if not self.lock.entries:
            return [f"has no {paths.LOCK} with results; `dvc repro` makes them"]
        notes = []
        if changed := self._changed_settings():
            notes.append(
                f"{_some(changed)} of {paths.PARAMS} ran with other values; the scores are of those: `dvc repro` brings both together"
            )
        if self.whole and (changed := self._changed_files()):
            notes.append(f"{_some(changed)} changed after it ran; the scores are of what ran: `dvc repro` brings both together")
        if outdated := [stage for stage in self._reports if self.lock.outdated(stage)]:
            notes.append(f"{_some(outdated)} did not run after what was made anew before; `dvc repro` runs what is missing")
        if lost := [stage for stage in self._reports if stage not in self.measured and stage not in outdated]:
            notes.append(
                f"the scores of {_some(lost)} are not in DVC's cache: `dvc fetch --all-commits`, or `dvc exp pull` for an experiment"
            )
        return notes

    @cached_property
    def _reports(self) -> dict[str, str]:
        """Stage → md5 of its metrics file, as locked."""
        outs = self.lock.outs
        return {stage: outs[path] for stage in self.lock.entries if (path := str(paths.metrics(stage))) in outs}

    def _changed_settings(self) -> list[str]:
        """Sections of params.yaml that are not what dvc.lock says the stages ran with."""
        now = yaml.load(self.params_text, Loader=LOADER) or {}  # a safe loader
        ran = [(key, value) for entry in self.lock.entries.values() for key, value in entry.params.items() if key != "conf_sha"]
        return sorted({key for key, value in ran if numbers.flat({key: now.get(key)}) != numbers.flat({key: value})})

    def _changed_files(self) -> list[str]:
        """Modules and locks of packages that are not what dvc.lock says the stages ran with."""
        wanted = {path: md5 for path, md5 in self.lock.inputs.items() if path.startswith(CODE) or path in environment.LOCKS}
        return sorted(path for path, md5 in wanted.items() if _md5(self.repository.read(self.commit, path) or b"") != md5)

    def _on_disk(self, path: str, md5: str) -> bytes | None:
        """A file of the working tree, if it is the one that dvc.lock means."""
        content = self.repository.read(None, path)
        return content if content is not None and _md5(content) == md5 else None


def find(name: str, repository: Repository, tracked: Tracked) -> Version:
    """Return the run that a name stands for.

    Raises:
        FinetuneError: it stands for none, or for several.
    """
    if name == WORKSPACE:
        return _of_commit(name, "the workspace", None, repository)
    if (commit := repository.commit(name)) is not None:
        return _of_commit(name, f"commit {commit[:7]}", commit, repository)
    commits = repository.experiments.get(name, [])
    if len(commits) > 1:
        listed = [f"{commit[:7]}" for commit in commits]
        raise SetupError(
            f"{name}: found {len(commits)} experiments of that name, expected one:", listed, "give the commit of the one you mean"
        )
    if commits:
        return _of_commit(name, f"experiment {commits[0][:7]}", commits[0], repository)
    run = tracked.run(name)
    if run is None:
        raise SetupError(
            f"{name}: found no such run, expected one of:",
            [
                "a revision of git: main, HEAD~1, 842ed72, a tag",
                f"an experiment: {_some(list(repository.experiments)) or 'there are none'}",
                f"{WORKSPACE}: the files as they lie here",
                f"name or id of a run in MLflow: {tracked.trouble or tracked.address}",
            ],
            "`dvc exp list --all-commits` lists the experiments",
        )
    return _of_run(name, run, repository)


def others(repository: Repository, known: Sequence[Version], also: Sequence[Mapping[str, str]]) -> list[Version]:
    """Versions of the repository that could be runs of `known` under other seeds.

    `also`: for each of known what went into it and no stage made. A dvc.lock without all of its hashes can't be such a run, and is not
    parsed: that takes 30 ms.
    """
    wanted = [{md5.encode() for states in inputs.values() for md5 in states.split(", ")} for inputs in also]
    found: dict[bytes, Version] = {}
    for commit in [None, *repository.with_results()]:
        text = repository.read(commit, str(paths.LOCK))
        if text is not None and text not in found and any(all(md5 in text for md5 in inputs) for inputs in wanted):
            found[text] = Version(commit or WORKSPACE, "", commit, text.decode(errors="replace"), "", repository)
    return [version for version in found.values() if version.lock_text not in {one.lock_text for one in known}]


def _of_commit(name: str, title: str, commit: str | None, repository: Repository) -> Version:
    lock, params, pipeline = (repository.read(commit, path) for path in (str(paths.LOCK), str(paths.PARAMS), str(paths.PIPELINE)))
    if params is None:
        raise SetupError(f"{name}: found no {paths.PARAMS} in {title}", ["expected what a run leaves there"], "name a run of this pipeline")
    locked, settings = (text.decode(errors="replace") for text in (lock or b"", params))
    return Version(name, title, commit, locked, settings, repository, declared=_declared(pipeline))


def _of_run(name: str, run: TrackedRun, repository: Repository) -> Version:
    """A run of MLflow by the commit that DVC made of it, else by what it left among its artifacts."""
    title = f"MLflow's run {run.name}"
    if run.commit is not None and repository.commit(run.commit) is not None:
        return _of_commit(name, f"{title}, commit {run.commit[:7]}", run.commit, repository)
    texts = {path: run.text(str(path)) for path in (paths.LOCK, paths.PARAMS)}
    if missing := [str(path) for path, text in texts.items() if text is None]:
        raise FinetuneError(
            f"{name}: {title} left no {' and no '.join(missing)}, as a run does that ended with its report; name another one"
        )
    return Version(name, title, run.started_from, texts[paths.LOCK] or "", texts[paths.PARAMS] or "", repository, run.metrics, whole=False)


def _declared(pipeline: bytes | None) -> Set[str] | None:
    try:
        return yaml.load(pipeline or b"", Loader=LOADER)["stages"].keys()  # type: ignore[no-any-return]  # a safe loader
    except NONE:
        return None


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _some(names: Sequence[str]) -> str:
    """`a, b, c and 4 more`."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
