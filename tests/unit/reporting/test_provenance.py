"""Where a run stood in git."""

import subprocess
from pathlib import Path

import pytest

from finetune.reporting import provenance


@pytest.fixture
def commit(workspace: Path) -> str:
    """The commit of a repository with one tracked file; the working directory is there."""
    (workspace / "params.yaml").write_text("r: 16\n")
    for words in ("init -q", "add params.yaml", "-c user.name=test -c user.email=test@example.org commit -q -m one"):
        subprocess.run(["git", *words.split()], check=True)
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()


def test_a_clean_tree_is_its_commit(commit: str, workspace: Path) -> None:
    (workspace / "untracked.txt").write_text("not told")
    assert provenance.origin() == provenance.Origin(commit)
    assert not provenance.origin().dirty


def test_a_changed_file_is_told_as_a_diff(commit: str, workspace: Path) -> None:
    (workspace / "params.yaml").write_text("r: 32\n")
    found = provenance.origin()
    assert found.dirty
    assert "-r: 16\n+r: 32\n" in found.diff


def test_without_a_repository_it_says_so(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(workspace.parent))
    found = provenance.origin()
    assert found.commit is None
    assert "not a git repository" in found.missing


def test_without_git_it_says_so(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.origin().missing == "git is not installed"
