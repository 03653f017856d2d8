"""What is meant by `finetune prove`: the commit, the experiment that lies in the folder, or what was named."""

import subprocess
from pathlib import Path

import pytest

from finetune.errors import SetupError
from finetune.lineage import commits
from finetune.proving.repository import Repository
from finetune.proving.subject import find
from tests.unit.proving.conftest import LOCKED, Git


def experiment(git: Git, project: Repository, name: str, seed: int) -> str:
    """Do to the repository what `dvc exp run -S seed=…` does: the run in a commit of its own, its files in the folder."""
    (project.root / "params.yaml").write_text(f"seed: {seed}\n")
    (project.root / "dvc.lock").write_text(LOCKED.replace("seed: 17", f"seed: {seed}"))
    git("add", "-A")
    commit = git("commit-tree", git("write-tree"), "-p", "HEAD", "-m", name)
    git("reset", "-q")
    git("update-ref", f"refs/exps/{project.head[:2]}/{project.head[2:]}/{name}", commit)
    return commit


def back(git: Git) -> None:
    git("checkout", "-q", "--", ".")


def test_a_clean_folder_is_its_commit(project: Repository) -> None:
    found = find(project)
    assert (found.commit, found.lock, found.lock_committed, found.dirty) == (project.head, LOCKED, True, False)
    assert str(found) == f"commit {project.head[:12]}"


def test_what_an_experiment_left_in_the_folder_is_that_experiment(git: Git, project: Repository) -> None:
    commit = experiment(git, project, "warm", 5)
    found = find(project)
    assert (found.commit, found.dirty, found.lock_committed) == (commit, False, True)
    assert found.experiment is not None
    assert (found.experiment.name, found.experiment.baseline) == ("warm", project.head)
    assert "seed: 5" in found.lock


def test_of_two_experiments_it_is_the_one_whose_files_these_are(git: Git, project: Repository) -> None:
    first = experiment(git, project, "first", 5)
    experiment(git, project, "second", 6)
    assert find(project).commit != first
    back(git)
    (project.root / "params.yaml").write_text("seed: 5\n")
    (project.root / "dvc.lock").write_text(LOCKED.replace("seed: 17", "seed: 5"))
    assert find(project).commit == first


def test_an_edit_on_top_of_an_experiment_is_refused_with_the_remedy(git: Git, project: Repository) -> None:
    experiment(git, project, "warm", 5)
    (project.root / "stages/train.py").write_text("import os\n")
    with pytest.raises(SetupError) as refused:
        find(project)
    assert refused.value.problems == ["params.yaml: differs from the commit", "stages/train.py: differs from the commit"]
    assert "`finetune prove --dirty`" in str(refused.value)


def test_uncommitted_changes_are_taken_along_where_that_is_asked_for(project: Repository) -> None:
    (project.root / "stages/train.py").write_text("import os\n")
    (project.root / "stages/new.py").write_text("x = 1\n")
    found = find(project, dirty=True)
    assert found.dirty
    assert b"+import os" in found.patch
    assert found.untracked == ("stages/new.py",)
    assert len(found.patch_sha256 or "") == 64
    assert str(found).endswith("with uncommitted changes")


def test_a_new_file_counts_only_where_stages_read(project: Repository) -> None:
    (project.root / "notes.txt").write_text("to do")
    assert not find(project).dirty
    (project.root / "data/raw/more.jsonl").write_text("{}")
    with pytest.raises(SetupError, match=r"data/raw/more\.jsonl: is new"):
        find(project)


def test_a_dvc_lock_alone_that_is_not_committed_is_what_is_proved(project: Repository) -> None:
    (project.root / "dvc.lock").write_text(LOCKED.replace("44.dir", "55.dir"))
    found = find(project)
    assert (found.commit, found.dirty, found.lock_committed) == (project.head, False, False)
    assert "55.dir" in found.lock


@pytest.mark.parametrize("by", ["name", "commit", "short"])
def test_an_experiment_can_be_named(git: Git, project: Repository, by: str) -> None:
    commit = experiment(git, project, "warm", 5)
    back(git)
    found = find(project, {"name": "warm", "commit": commit, "short": commit[:10]}[by])
    assert found.commit == commit
    assert found.experiment is not None
    assert found.experiment.name == "warm"


def test_a_commit_can_be_named_whatever_lies_in_the_folder(git: Git, project: Repository) -> None:
    (project.root / "params.yaml").write_text("seed: 5\n")
    git("commit", "-qam", "second")
    (project.root / "params.yaml").write_text("seed: 6\n")
    assert find(project, "HEAD~1").commit == project.head
    assert find(project, "main").commit == git("rev-parse", "HEAD")


def test_a_name_of_two_experiments_means_that_of_head_or_is_refused(git: Git, project: Repository) -> None:
    old = experiment(git, project, "warm", 5)
    back(git)
    (project.root / "stages/train.py").write_text("import os\n")
    git("commit", "-qam", "second")
    now = Repository(project.root)
    new = experiment(git, now, "warm", 6)
    back(git)
    assert find(now, "warm").commit == new
    git("commit", "-q", "--allow-empty", "-m", "third")
    with pytest.raises(SetupError) as refused:
        find(Repository(project.root), "warm")
    assert {line.partition(":")[0] for line in refused.value.problems} == {old, new}


def test_a_name_of_nothing_is_refused(project: Repository) -> None:
    with pytest.raises(SetupError, match="found no commit and no experiment 'nothing'"):
        find(project, "nothing")
    with pytest.raises(SetupError, match="found no commit and no experiment '--all'"):
        find(project, "--all")


def test_without_a_record_there_is_nothing_to_prove(git: Git, project: Repository) -> None:
    git("rm", "-q", "dvc.lock")
    git("commit", "-qm", "without")
    with pytest.raises(SetupError, match="found no stages in that of this folder"):
        find(Repository(project.root))
    assert find(Repository(project.root), "HEAD~1").lock == LOCKED


def test_a_folder_without_a_commit_or_inside_another_repository_is_refused(tmp_path: Path, project: Repository) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(SetupError, match=r"git init && git add -A && git commit"):
        Repository(tmp_path / "other")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path / "other", check=True)
    with pytest.raises(SetupError, match="found no git repository with a commit"):
        Repository(tmp_path / "other")
    with pytest.raises(SetupError, match="found a folder of the git repository"):
        Repository(project.root / "stages")


def test_dvcs_own_notes_are_no_experiments(git: Git, project: Repository) -> None:
    git("update-ref", "refs/exps/exec/EXEC_HEAD", "HEAD")
    git("update-ref", "refs/exps/stash", "HEAD")
    git("update-ref", "refs/exps/celery/stash", "HEAD")
    assert commits.experiments(project.root) == []
    (project.root / "params.yaml").write_text("seed: 5\n")
    with pytest.raises(SetupError, match=r"params\.yaml: differs from the commit"):
        find(project)
