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
    assert found.differs == ("params.yaml",)
    assert "-r: 16\n+r: 32\n" in found.diff


def test_what_a_run_writes_itself_makes_no_tree_dirty_although_it_is_in_the_diff(commit: str, workspace: Path) -> None:
    (workspace / "dvc.lock").write_text("stages: {}\n")
    subprocess.run(["git", "add", "dvc.lock"], check=True)
    found = provenance.origin()
    assert found.differs == ()
    assert "+stages: {}" in found.diff


def test_what_stages_read_and_nobody_keeps_is_named(commit: str, workspace: Path) -> None:
    for name in ("data/raw/mine.jsonl", "data/raw/kept.jsonl", "data/raw/deep/kept.jsonl", "data/raw/__pycache__/x", "unread.txt"):
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_text("{}")
    (workspace / ".gitignore").write_text("*.jsonl\n")
    (workspace / ".dvcignore").write_text("__pycache__\n")
    for name in ("data/raw/kept.jsonl.dvc", "data/raw/deep.dvc"):
        (workspace / name).write_text("outs: []\n")
        subprocess.run(["git", "add", name], check=True)
    assert provenance.origin(["data/raw", "params.yaml"]).untracked == ("data/raw/mine.jsonl",)


def test_new_code_is_in_the_diff_and_new_data_is_not(commit: str, workspace: Path) -> None:
    for name in ("data/raw/mine.jsonl", "finetune/new metric.py", "unread.txt"):
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_bytes(b"new = 1\r\n")
    found = provenance.origin(["data/raw", "finetune/new metric.py"])
    assert (found.untracked, found.dirty) == (("data/raw/mine.jsonl", "finetune/new metric.py"), True)
    (workspace / "finetune/new metric.py").unlink()
    subprocess.run(["git", "apply"], input=found.diff.encode(), check=True)
    assert (workspace / "finetune/new metric.py").read_bytes() == b"new = 1\r\n"
    assert "mine.jsonl" not in found.diff


def test_a_diff_is_one_that_git_takes_whatever_a_user_has_set_and_whatever_is_in_the_file(commit: str, workspace: Path) -> None:
    for name, value in (("diff.noprefix", "true"), ("color.diff", "always")):
        subprocess.run(["git", "config", name, value], check=True)
    (workspace / "params.yaml").write_bytes("r: h\xe9\r\nq: 1\n".encode("latin-1"))
    (workspace / "weights").write_bytes(bytes(range(256)))
    subprocess.run(["git", "add", "--intent-to-add", "weights"], check=True)
    diff = provenance.origin().diff.encode(errors="surrogateescape")
    subprocess.run(["git", "rm", "-q", "--cached", "weights"], check=True)
    (workspace / "weights").unlink()
    subprocess.run(["git", "checkout", "-q", "--", "params.yaml"], check=True)
    subprocess.run(["git", "apply"], input=diff, check=True)
    assert (workspace / "params.yaml").read_bytes() == b"r: h\xe9\r\nq: 1\n"
    assert (workspace / "weights").read_bytes() == bytes(range(256))


def test_without_a_repository_it_says_so(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(workspace.parent))
    found = provenance.origin()
    assert found.commit is None
    assert "not a git repository" in found.missing


def test_without_git_it_says_so(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.origin().missing == "git is not installed"
