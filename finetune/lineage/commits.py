"""What git has of commits, DVC's experiments among them: which are there, what they say, and whether something keeps them."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

SHOWN = 3  # branches and tags named
EXPERIMENT_PARTS = 5  # refs/exps/<2 digits of the baseline>/<the other 38>/<name>; DVC's own notes, refs/exps/exec/…, have fewer or more


@dataclass(frozen=True)
class Commit:
    """A commit as this repository knows it."""

    sha: str
    here: bool
    subject: str = ""
    kept_by: tuple[str, ...] = ()
    """Branches and tags that it is on, the first few; none: git may throw it away at any time."""


@dataclass(frozen=True)
class Experiment:
    """A commit that DVC made of an experiment."""

    name: str
    commit: str
    baseline: str


def known(sha: str, root: Path) -> Commit:
    """What this repository has of a commit."""
    said = _git(root, "log", "-1", "--format=%s", sha, "--")
    if said is None:
        return Commit(sha, here=False)
    heads = _git(root, "for-each-ref", "--contains", sha, "--format=%(refname:short)", "refs/heads", "refs/tags", "refs/remotes") or ""
    return Commit(sha, True, said.strip(), tuple(heads.split()[:SHOWN]))


def named(revision: str, root: Path) -> str | None:
    """The commit that git takes a name for; None where it knows none."""
    return (_git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}") or "").strip() or None


def experiments(root: Path) -> list[Experiment]:
    """All of DVC's experiments, the newest first."""
    listed = _git(root, "for-each-ref", "--sort=-committerdate", "--format=%(objectname) %(refname)", "refs/exps") or ""
    found = [(commit, reference.split("/")) for commit, _, reference in (line.partition(" ") for line in listed.splitlines())]
    return [
        Experiment(parts[4], commit, parts[2] + parts[3])
        for commit, parts in found
        if len(parts) == EXPERIMENT_PARTS and len(parts[2] + parts[3]) == len(commit)
    ]


def _git(root: Path, *words: str) -> str | None:
    """What git says; None where it has nothing to say of this."""
    try:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True, errors="replace").stdout
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None
