"""The bytes of a run do not tell where, by whom and how it was started: the two rows of the figure that differ in everything."""

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import two_clones
from benchmarks.exactness import SETTINGS, hashes, shared_folder

pytestmark = pytest.mark.slow


@pytest.mark.skipif(shutil.which("localedef") is None, reason="no localedef, which makes the Turkish locale")
def test_two_runs_that_differ_in_every_circumstance_have_the_same_outs(repository: Path) -> None:
    (repository / ".venv").symlink_to(Path(__file__).resolve().parents[2] / ".venv")
    first, second = ({**row, "cores": cores} for row, cores in zip(two_clones.ROWS, ("2", "1"), strict=True))
    with shared_folder() as scratch:
        found = [hashes(repository, scratch, row, SETTINGS) for row in (first, second)]
    assert found[0] == found[1]
    assert len(found[0]) > 20
    assert subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout in ("", "?? .venv\n")
