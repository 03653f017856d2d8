"""Which commit a run is of, and what of the tracked files differed from it."""

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from finetune import paths

# whatever a user has set, in the form that `git apply` takes, also of files that are no text
SETTINGS = ("-c", "diff.noprefix=false", "-c", "diff.mnemonicPrefix=false")
MADE = "dvc.lock"  # what a run writes itself: alone it makes no tree dirty
IGNORED = Path(".dvcignore")
DIFF = (*SETTINGS, "diff", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")


@dataclass(frozen=True)
class Origin:
    """HEAD, and the difference of tracked files from it; `missing` says why there is no commit."""

    commit: str | None
    diff: str = ""
    missing: str = ""
    differs: tuple[str, ...] = ()
    """Tracked files that differ, but for dvc.lock."""
    untracked: tuple[str, ...] = ()
    """Files that stages read and that neither git nor DVC has."""

    @property
    def dirty(self) -> bool:
        """Whether more than the commit is needed; for a run of changed settings it always is, because they are in params.yaml."""
        return bool(self.diff)


def origin(inputs: Iterable[str] = ()) -> Origin:
    """Ask git; without it, or outside a repository, say so instead. DVC's temporary copies are repositories of their own.

    inputs: files and folders that stages read, among which those that nobody keeps are looked for.
    """
    try:
        commit, diff = _git("rev-parse", "HEAD").strip(), _git(*DIFF)
        differs = tuple(name for name in _names("diff", "--name-only", "HEAD") if name != MADE)
        untracked = _untracked(sorted(inputs))
        return Origin(commit, diff + "".join(map(_added, untracked)), differs=differs, untracked=untracked)
    except FileNotFoundError:
        return Origin(None, missing="git is not installed")
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        return Origin(None, missing=f"git says: {said.splitlines()[0]}" if said else str(error))


def _added(name: str) -> str:
    """A new file as a part of the diff, so that it can be made again from that; not data, which may be large and nobody's to copy."""
    if Path(name).is_relative_to(paths.RAW):
        return ""
    words = ["git", *SETTINGS, "diff", "--binary", "--no-index", "--no-color", "--", "/dev/null", name]
    return _text(subprocess.run(words, capture_output=True, check=False).stdout)  # status 1 says that they differ


def _untracked(inputs: list[str]) -> tuple[str, ...]:
    """Files among the inputs that git doesn't have, nor DVC by a file of theirs or of a folder above (`records.jsonl.dvc`)."""
    if not inputs:
        return ()
    ignored = [f"--exclude-from={IGNORED}"] if IGNORED.is_file() else []
    kept = {Path(name.removesuffix(".dvc")) for name in _names("ls-files", "--", "*.dvc")}
    others = _names("ls-files", "--others", *ignored, "--", *inputs)
    return tuple(name for name in others if not kept & {Path(name), *Path(name).parents})


def _names(command: str, *words: str) -> list[str]:
    """Paths that a command of git lists."""
    return [name for name in _git(command, "-z", *words).split("\0") if name]


def _git(*words: str) -> str:
    return _text(subprocess.run(["git", *words], capture_output=True, check=True).stdout)


def _text(printed: bytes) -> str:
    """As it is: subprocess' own text would make each \\r\\n of a diff an \\n, and no such diff applies."""
    return printed.decode(errors="surrogateescape")
