"""Where the code and settings of a recorded run are to be had: its experiment's commit, its commit and patch, or one with the same code."""

import hashlib
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune import paths
from finetune.errors import SetupError
from finetune.lineage import commits
from finetune.reproducing.recorded import Recorded

LOOKED_AT = 2_000  # commits, newest first, whose code is compared with the recorded one: 5 ms each
SHOWN = 3


@dataclass(frozen=True)
class Source:
    """What to check out, and what to put on top of it."""

    commit: str
    how: str
    """A sentence for the user: what it is, and why not something better."""
    patch: bytes | None = None
    params: bytes | None = None
    """params.yaml to put in place of the commit's."""
    whole: bool = True
    """False: conf/ may not belong to params.yaml, so the stage check, which compares them, is left out; it makes nothing."""


def found(recorded: Recorded, root: Path) -> Source:
    """Find the best source that is still there.

    Raises:
        SetupError: there is none; with the commit that is missing, who may have it, and how near another one is.
    """
    if recorded.commit is None:
        raise SetupError("the run was made outside of git:", [f"{recorded.name}: found no commit"], "its code is not known")
    here = commits.known(recorded.commit, root).here
    saved = recorded.experiment_commit
    new = [name for name in recorded.untracked if not Path(name).is_relative_to(paths.RAW)]  # which an experiment's commit may lack
    if saved and commits.known(saved, root).here and not (new and here and recorded.patch is not None):
        return Source(saved, f"experiment {recorded.experiment}, which DVC committed as {saved[:12]}")
    gone = f"DVC's commit {saved[:12]} of experiment {recorded.experiment} {'lacks new files' if new else 'is gone'}; " if saved else ""
    if here and not recorded.dirty:
        return Source(recorded.commit, f"{gone}commit {recorded.commit[:12]}, from which nothing differed")
    if here and recorded.patch is not None:
        return Source(recorded.commit, f"{gone}commit {recorded.commit[:12]} with the recorded patch", recorded.patch)
    if here and recorded.params is not None and set(recorded.differs) <= {paths.PARAMS.name}:
        how = f"{gone}commit {recorded.commit[:12]} with the recorded params.yaml; the patch is gone, and nothing else differed"
        return Source(recorded.commit, how, params=recorded.params)
    return _same_code(recorded, root, gone, here)


def _same_code(recorded: Recorded, root: Path, gone: str, here: bool) -> Source:
    """A commit that has every module as dvc.lock recorded it: with the recorded settings it makes the same."""
    nearest, least = "", len(recorded.code) + 1
    differing: list[str] = []
    for commit, differs in _differences(recorded.code, root) if recorded.code else ():  # without any every commit would have them all
        if not differs and recorded.params is not None:
            why = f"{gone}commit {recorded.commit_shown} is {'there, its patch is not' if here else 'gone'}"
            same = f"commit {commit[:12]} has the same {len(recorded.code)} modules, by their hashes, and gets the recorded params.yaml"
            return Source(commit, f"{why}; {same}", params=recorded.params, whole=False)
        if len(differs) < least:
            nearest, least, differing = commit, len(differs), differs
    lines = [f"commit: {recorded.commit_shown}: found {'it without the patch' if here else 'no such commit in this repository'}"]
    if recorded.params is None:
        lines.append("params.yaml: found none among the run's artifacts")
    if not recorded.code:
        lines.append("code: found no module in the run's dvc.lock, by whose hash a like commit is known")
    if nearest and differing:
        more = f" and {least - SHOWN} more" if least > SHOWN else ""
        lines.append(
            f"code: found none with the recorded modules; {nearest[:12]} is nearest, and differs in {', '.join(differing[:SHOWN])}{more}"
        )
    where = (
        f"`dvc exp push <remote> {recorded.experiment}` there and `dvc exp pull` here"
        if recorded.experiment
        else "`git push` there and `git fetch` here"
    )
    raise SetupError(f"what {recorded.name} was made of is lost here:", lines, f"bring it from a clone that has it: {where}")


def _differences(code: Mapping[str, str], root: Path) -> Iterator[tuple[str, list[str]]]:
    """Commit → recorded modules that it has otherwise or not, of every commit that a branch, tag or experiment leads to."""
    listed = _git(root, "rev-list", "--all", f"--max-count={LOOKED_AT}").decode().split()
    known: dict[str, str] = {}
    for commit in listed:
        entries = (
            line.split(maxsplit=3) for line in _git(root, "ls-tree", "-r", "--full-tree", commit).decode(errors="replace").splitlines()
        )
        blobs = {path: blob for _, _, blob, path in entries if path in code}
        for blob in set(blobs.values()) - known.keys():
            known[blob] = hashlib.md5(_git(root, "cat-file", "blob", blob), usedforsecurity=False).hexdigest()
        yield commit, [path for path, md5 in code.items() if path not in blobs or known[blobs[path]] != md5]


def _git(root: Path, *words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=root, capture_output=True, check=True).stdout
