"""What git knows of the folder that is proved, and what of it is committed nowhere."""

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from finetune.errors import SetupError
from finetune.lineage.commits import Experiment
from finetune.reporting.provenance import DIFF

NO_COMMIT = "run `git init && git add -A && git commit -m 'as it is'` there, then make the outs (`dvc repro`), commit dvc.lock, and prove"


class Repository:
    """A git repository whose root is the project's."""

    def __init__(self, root: Path) -> None:
        """Raises SetupError where there is none, or one without a commit."""
        self.root = root
        try:
            top = Path(self.text("rev-parse", "--show-toplevel").strip())
            self.head = self.text("rev-parse", "--verify", "HEAD").strip()
        except FileNotFoundError:
            raise SetupError("nothing can be proved here:", ["found no git on this machine, expected one"], "install git") from None
        except subprocess.CalledProcessError as error:
            found = f"{root}: found no git repository with a commit, expected one ({error.stderr.decode(errors='replace').strip()})"
            raise SetupError("nothing can be proved without a commit that says what was made:", [found], NO_COMMIT) from None
        if top.resolve() != root.resolve():
            found = f"{root}: found a folder of the git repository {top}, expected the root of a repository of its own"
            raise SetupError("nothing can be proved without a commit that says what was made:", [found], NO_COMMIT)

    def ask(self, *words: str) -> bytes:
        """What a git command prints. Raises subprocess.CalledProcessError."""
        return subprocess.run(["git", *words], cwd=self.root, capture_output=True, check=True).stdout

    def text(self, *words: str) -> str:
        """The same as text."""
        return self.ask(*words).decode(errors="surrogateescape")

    def file(self, commit: str, path: Path) -> str | None:
        """The text of a file in a commit; None: it has none."""
        try:
            return self.text("show", f"{commit}:{path.as_posix()}")
        except subprocess.CalledProcessError:
            return None

    def changed(self, commit: str = "HEAD") -> list[str]:
        """Tracked files that differ from a commit."""
        return _names(self.ask("diff", "--name-only", "--no-renames", "--ignore-submodules", "-z", commit, "--"))

    def untracked(self) -> list[str]:
        """Files that git neither tracks nor ignores."""
        return self._files(self.ask("ls-files", "--others", "--exclude-standard", "-z"))

    def ignored(self, within: Iterable[str]) -> list[str]:
        """Files that git ignores, of these files and folders."""
        return self._files(self.ask("ls-files", "--others", "--ignored", "--exclude-standard", "-z", "--", *within))

    def patch(self) -> bytes:
        """The difference of the tracked files from HEAD, in the form that `git apply` takes."""
        return self.ask(*DIFF)

    def holding(self, experiments: Sequence[Experiment], paths: Sequence[Path]) -> list[Experiment]:
        """Those of the experiments in which these files are as they lie here: by one call of git, however many there are."""
        here = self.text("hash-object", "--", *(path.as_posix() for path in paths)).split()
        asked = "".join(f"{experiment.commit}:{path.as_posix()}\n" for experiment in experiments for path in paths)
        command = ["git", "cat-file", "--batch-check=%(objectname)"]
        said = subprocess.run(command, cwd=self.root, input=asked.encode(), capture_output=True, check=True).stdout.decode().splitlines()
        per = len(paths)
        return [experiment for position, experiment in enumerate(experiments) if said[position * per : (position + 1) * per] == here]

    def _files(self, printed: bytes) -> list[str]:
        """What git printed, with the files below in place of a folder: a link, or a repository of its own, is one name for git."""
        found = []
        for name in _names(printed):
            place = self.root / name
            files = [file.relative_to(self.root) for file in sorted(place.rglob("*")) if file.is_file()] if place.is_dir() else [Path(name)]
            found += [file.as_posix() for file in files if ".git" not in file.parts]
        return found


def _names(printed: bytes) -> list[str]:
    return [name for name in printed.decode(errors="surrogateescape").split("\0") if name]
