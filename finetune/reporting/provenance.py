"""Which commit a run is of, and what of the tracked files differed from it."""

import subprocess
from dataclasses import dataclass

# whatever a user has set, in the form that `git apply` takes, also of files that are no text
SETTINGS = ("-c", "diff.noprefix=false", "-c", "diff.mnemonicPrefix=false")
DIFF = (*SETTINGS, "diff", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")


@dataclass(frozen=True)
class Origin:
    """HEAD, and the difference of tracked files from it; `missing` says why there is no commit."""

    commit: str | None
    diff: str = ""
    missing: str = ""

    @property
    def dirty(self) -> bool:
        """Whether tracked files differ from the commit; a run of changed settings always does, because they are in params.yaml."""
        return bool(self.diff)


def origin() -> Origin:
    """Ask git; without it, or outside a repository, say so instead. DVC's temporary copies are repositories of their own."""
    try:
        return Origin(_git("rev-parse", "HEAD").strip(), _git(*DIFF))
    except FileNotFoundError:
        return Origin(None, missing="git is not installed")
    except subprocess.CalledProcessError as error:
        return Origin(None, missing=f"git says: {error.stderr.strip().splitlines()[0]}" if error.stderr.strip() else str(error))


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True, errors="surrogateescape").stdout
