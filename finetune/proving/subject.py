"""What is proved: a commit, the dvc.lock that records what was made of it, and uncommitted changes only where they are asked for."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from finetune import locks, paths
from finetune.errors import SetupError
from finetune.lineage import commits
from finetune.lineage.commits import Experiment
from finetune.proving.repository import Repository

CODE = ("conf", "finetune", "hydra_plugins", "stages")  # a new file there can change a result, listed in dvc.yaml or not
REMEDY = (
    "commit them, take them along with `finetune prove --dirty`, which the certificate then says, "
    "or name what you mean: `finetune prove --rev <commit or experiment>`"
)


@dataclass(frozen=True)
class Subject:
    """What is made again, and what it is compared with."""

    commit: str
    lock: str
    """Text of the dvc.lock with the hashes of what was made."""
    lock_committed: bool = True
    """False: the dvc.lock of the folder, which the commit does not have."""
    experiment: Experiment | None = None
    patch: bytes = b""
    """Uncommitted changes of tracked files that are taken along."""
    untracked: tuple[str, ...] = ()
    """New files that are taken along."""

    @property
    def dirty(self) -> bool:
        """Whether more than the commit is needed to make it again."""
        return bool(self.patch or self.untracked)

    @property
    def recorded_in(self) -> str | None:
        """The commit that has dvc.lock, and the .dvc files, as they are here; None: the folder."""
        return self.commit if self.lock_committed and not self.dirty else None

    @property
    def lock_sha256(self) -> str:
        """Of the recording dvc.lock."""
        return hashlib.sha256(self.lock.encode(errors="surrogateescape")).hexdigest()

    @property
    def patch_sha256(self) -> str | None:
        """Of the uncommitted changes; None: no tracked file has any."""
        return hashlib.sha256(self.patch).hexdigest() if self.patch else None

    def __str__(self) -> str:
        told = [f"commit {self.commit[:12]}"]
        if self.experiment is not None:
            told.append(f"which is experiment {self.experiment.name}")
        if self.dirty:
            told.append("with uncommitted changes")
        if not self.lock_committed:
            told.append("as recorded in the dvc.lock that is not committed")
        return ", ".join(told)


def find(repository: Repository, revision: str | None = None, dirty: bool = False) -> Subject:
    """Return what is meant: the revision; else the folder as it is.

    The folder is as it is committed, or as an experiment is: `dvc exp run` leaves its params.yaml and dvc.lock uncommitted, and the same
    bytes in a commit of its own. A dvc.lock alone that is not committed is no obstacle: it records, and nothing is made from it.

    Raises:
        SetupError: there is no such revision, or uncommitted changes and `dirty` is not set.
    """
    if revision is not None:
        return _named(repository, revision)
    changed, new = repository.changed(), _relevant(repository)
    inputs = [name for name in changed if name != paths.LOCK.as_posix()]
    if changed and not new and (experiment := _as_it_lies_here(repository)):
        return Subject(experiment.commit, _lock_of(repository, experiment.commit), experiment=experiment)
    if (inputs or new) and not dirty:
        lines = [*(f"{name}: differs from the commit" for name in inputs), *(f"{name}: is new" for name in new)]
        raise SetupError("uncommitted changes, of which nobody else could make the same again:", lines, REMEDY)
    lock = _here(repository)
    if not (inputs or new):
        return Subject(repository.head, _recorded(lock, "this folder"), lock_committed=paths.LOCK.as_posix() not in changed)
    patch = repository.patch()
    return Subject(repository.head, _recorded(lock, "this folder"), paths.LOCK.as_posix() not in changed, None, patch, tuple(new))


def _named(repository: Repository, revision: str) -> Subject:
    commit = commits.named(revision, repository.root)
    known = commits.experiments(repository.root)
    found = [experiment for experiment in known if commit == experiment.commit or (commit is None and experiment.name == revision)]
    here = [experiment for experiment in found if experiment.baseline == repository.head]
    found = here or found
    if commit is None and len(found) > 1:
        lines = [f"{experiment.commit}: on {experiment.baseline[:12]}" for experiment in found]
        raise SetupError(
            f"{len(found)} experiments are called {revision}:", lines, "name one by its commit: `finetune prove --rev <commit>`"
        )
    commit = commit or (found[0].commit if found else None)
    if commit is None:
        lines = [f"--rev: found no commit and no experiment {revision!r}, expected one of this repository's"]
        raise SetupError("nothing to prove:", lines, "`git log` and `dvc exp list --all-commits` name them")
    return Subject(commit, _lock_of(repository, commit), experiment=found[0] if found else None)


def _as_it_lies_here(repository: Repository) -> Experiment | None:
    """The newest experiment all of whose tracked files are as they are in the folder."""
    if not (repository.root / paths.LOCK).is_file():
        return None
    alike = repository.holding(commits.experiments(repository.root), [paths.PARAMS, paths.LOCK])
    return next((experiment for experiment in alike if not repository.changed(experiment.commit)), None)


def _relevant(repository: Repository) -> list[str]:
    """New files in folders that stages read."""
    read = {*map(Path, CODE), *map(Path, locks.sources(locks.stages(_here(repository))))}
    return [name for name in repository.untracked() if _inside(Path(name), read)]


def _inside(file: Path, folders: Iterable[Path]) -> bool:
    return any(file.is_relative_to(folder) for folder in folders)


def _here(repository: Repository) -> str:
    """The folder's dvc.lock, decoded as git's answers are, so that bytes that are no text stay the same."""
    file = repository.root / paths.LOCK
    return file.read_text(encoding="utf-8", errors="surrogateescape") if file.is_file() else ""


def _lock_of(repository: Repository, commit: str) -> str:
    return _recorded(repository.file(commit, paths.LOCK) or "", f"commit {commit[:12]}")


def _recorded(lock: str, where: str) -> str:
    if not locks.stages(lock):
        found = f"dvc.lock: found no stages in that of {where}, expected the hashes of what was made"
        raise SetupError("nothing was recorded that could be proved:", [found], "run `dvc repro`, commit dvc.lock, and prove that")
    return lock
