"""What git has of a commit: whether it is there, what it says, and whether something keeps it."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

SHOWN = 3  # branches and tags named


@dataclass(frozen=True)
class Commit:
    """A commit as this repository knows it."""

    sha: str
    here: bool
    subject: str = ""
    kept_by: tuple[str, ...] = ()
    """Branches and tags that it is on, the first few; none: git may throw it away at any time."""


def known(sha: str, root: Path) -> Commit:
    """What this repository has of a commit."""
    said = _git(root, "log", "-1", "--format=%s", sha, "--")
    if said is None:
        return Commit(sha, here=False)
    heads = _git(root, "for-each-ref", "--contains", sha, "--format=%(refname:short)", "refs/heads", "refs/tags", "refs/remotes") or ""
    return Commit(sha, True, said.strip(), tuple(heads.split()[:SHOWN]))


def experiments(root: Path) -> dict[str, str]:
    """Commit → name, of the experiments that DVC keeps here."""
    listed = _git(root, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps/") or ""
    lines = (line.partition(" ") for line in listed.splitlines())
    return {
        sha: name.rpartition("/")[2] for sha, _, name in lines if name.count("/") == 4
    }  # refs/exps/ab/cd…/name; others are DVC's queues


def _git(root: Path, *words: str) -> str | None:
    """What git says; None where it has nothing to say of this."""
    try:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True, errors="replace").stdout
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None
