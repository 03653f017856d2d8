"""What git and DVC's cache hold of earlier runs, read as it lies there: nothing is checked out and nothing fetched."""

import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Self

from finetune import paths
from finetune.lineage import commits

FILE = {"blob", "tree"}
MOST = 300  # commits of dvc.lock that are looked through for other seeds, the newest first


class Repository:
    """One git repository with DVC in it. Use it as a context: it holds processes that read git's objects and DVC's settings."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._reader = subprocess.Popen(
            ["git", "cat-file", "--batch"], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

        # begun now, because it takes 0.3 s: DVC says where its cache is, by settings of the repository and of the user
        self._asked = subprocess.Popen(
            [sys.executable, "-m", "dvc", "cache", "dir"], cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.communicate()
        if self._asked.returncode is None:  # nobody needed its answer
            self._asked.communicate()

    def commit(self, name: str) -> str | None:
        """The commit that git takes a name for; None where it knows none."""
        return commits.named(name, self.root)

    @cached_property
    def experiments(self) -> dict[str, list[str]]:
        """Name of an experiment → its commits, more than one where several baselines have one of that name, the newest first."""
        found: dict[str, list[str]] = {}
        for experiment in commits.experiments(self.root):
            found.setdefault(experiment.name, []).append(experiment.commit)
        return found

    def with_results(self) -> list[str]:
        """Commits that hold another dvc.lock than the one before, of all branches, tags and experiments; at most MOST."""
        command = ["git", "log", "--all", "--format=%H", f"--max-count={MOST}", "--", str(paths.LOCK)]
        logged = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False).stdout.split()
        return list(dict.fromkeys([*(commit for found in self.experiments.values() for commit in found), *logged]))

    def read(self, commit: str | None, path: str) -> bytes | None:
        """The bytes of a file in a commit, or of the working tree for None; None where there is no such file."""
        if commit is None:
            file = self.root / path
            return file.read_bytes() if file.is_file() else None
        assert self._reader.stdin is not None  # both were asked for
        assert self._reader.stdout is not None
        self._reader.stdin.write(f"{commit}:{path}\n".encode())
        self._reader.stdin.flush()
        words = self._reader.stdout.readline().split()
        if len(words) != 3 or words[1].decode() not in FILE:
            return None
        content = self._reader.stdout.read(int(words[2]) + 1)[:-1]
        return content if words[1] == b"blob" else None

    def cached(self, md5: str) -> bytes | None:
        """The bytes that DVC's cache has under a hash."""
        try:
            return (self._cache / "files" / "md5" / md5[:2] / md5[2:]).read_bytes()
        except OSError:
            return None

    @cached_property
    def _cache(self) -> Path:
        """Where DVC keeps its cache."""
        said, _ = self._asked.communicate()
        return Path(said.strip() or self.root / ".dvc" / "cache")
