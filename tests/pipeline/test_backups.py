"""A copy elsewhere: what `dvc push` sends to a folder and to a bucket comes back, whole, in a clone that has nothing."""

import subprocess
from pathlib import Path

import pytest

from tests import bucket
from tests.pipeline.test_dvc import dvc

pytestmark = pytest.mark.slow


def test_a_bucket_is_reached_with_what_the_environment_says_and_nothing_of_it_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, yours = tmp_path / "mine", tmp_path / "yours"
    mine.mkdir()
    (mine / "weights").write_bytes(bytes(range(256)))
    with bucket.served() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        subprocess.run(["git", "init", "-q"], cwd=mine, check=True)
        for command in (
            ["init", "-q"],
            ["add", "-q", "weights"],
            ["remote", "add", "-d", "backup", f"s3://{bucket.NAME}/finetune"],
            ["push"],
        ):
            dvc(*command, folder=mine)
        subprocess.run("git add -A && git commit -q -m weights", shell=True, cwd=mine, check=True)
        subprocess.run(["git", "clone", "-q", str(mine), str(yours)], check=True)
        dvc("pull", folder=yours)
    assert (yours / "weights").read_bytes() == bytes(range(256))
    written = [file.read_text(encoding="utf-8") for file in (mine / ".dvc").glob("config*")]
    assert len(written) == 1
    assert not [value for value in environment.values() if value in written[0]]
