"""A copy elsewhere: what goes to a folder or a bucket comes back, whole, in a clone that has nothing but git."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune import backups, paths
from finetune.tracking import hashes
from tests import bucket
from tests.pipeline.conftest import TRACKED
from tests.pipeline.test_dvc import dvc, ran
from tests.processes import sent, until

pytestmark = pytest.mark.slow


def git(*words: str, folder: Path) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def finished(tracked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a run that was committed, and two experiments."""
    folder = shutil.copytree(tracked, tmp_path_factory.mktemp("backups") / "mine", symlinks=True)
    git("commit", "-q", "-a", "-m", "a run", folder=folder)
    return Path(folder)


@pytest.fixture(params=["a folder", "a bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where copies go, for `dvc remote add`."""
    if request.param == "a folder":
        yield str(tmp_path / "copies")
        return
    with bucket.served() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield f"s3://{bucket.NAME}/finetune"


def files(folder: Path) -> dict[str, str]:
    """Name → sha256 of all that stages made, but for the page, which names runs of MLflow and is no out."""
    made = [file for top in ("data", "models", "reports") for file in (folder / top).rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in made if file.name != "report.md"}


def test_everything_comes_back_in_a_clone_and_nothing_is_run_again(
    finished: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = shutil.copytree(finished, tmp_path / "mine", symlinks=True)
    yours = tmp_path / "yours"
    dvc("remote", "add", "--local", "-d", "backup", place, folder=mine)
    git("init", "-q", "--bare", "-b", "main", str(tmp_path / "shared"), folder=tmp_path)
    git("remote", "add", "origin", str(tmp_path / "shared"), folder=mine)
    monkeypatch.chdir(mine)
    lacking = backups.remark()
    assert lacking is not None
    assert lacking.startswith("models/train, models/dpo and models/export have no whole copy elsewhere: not all of that is in the remote")

    git("push", "-q", "origin", "main", folder=mine)
    dvc("push", "--run-cache", folder=mine)
    dvc("exp", "push", "--all-commits", "origin", folder=mine)
    assert backups.remark() is None

    git("clone", "-q", str(tmp_path / "shared"), str(yours), folder=tmp_path)
    dvc("remote", "add", "--local", "-d", "backup", place, folder=yours)
    dvc("pull", "--run-cache", folder=yours)
    assert ran(dvc("repro", folder=yours)) == {"report"}  # which draws the figures of a clone, and tells MLflow of it
    until(lambda: sent(yours))
    assert git("status", "--porcelain", folder=yours) == ""
    assert files(yours) == files(mine)
    assert len([name for name in files(yours) if name.startswith("models/")]) > 10

    dvc("exp", "pull", "--all-commits", "origin", folder=yours)
    (second,) = (line.split()[0] for line in git("for-each-ref", "refs/exps", folder=yours).splitlines() if line.endswith("/second"))
    dvc("exp", "apply", "second", folder=yours)
    monkeypatch.chdir(yours)
    locked = hashes.known(git("show", f"{second}:dvc.lock", folder=yours))
    assert hashes.digest(paths.DPO) == locked[str(paths.DPO)] != hashes.known((mine / "dvc.lock").read_text())[str(paths.DPO)]

    dvc("exp", "run", *TRACKED, folder=yours)  # back to the first; then to the second by its settings alone
    assert ran(dvc("exp", "run", *TRACKED, "-S", "dpo.beta=0.3", folder=yours)) == {"report"}
    assert hashes.digest(paths.DPO) == locked[str(paths.DPO)]
    until(lambda: sent(yours))

    kept = "".join(file.read_text() for folder in (mine, yours) for file in (folder / ".dvc").glob("config*"))
    assert bucket.SECRET not in kept
    assert place in kept
