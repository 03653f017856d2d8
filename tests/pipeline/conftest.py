"""Real runs that several files of tests look at; each takes a minute or two, so they are made once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.test_dvc import dvc
from tests.processes import sent, until

TRACKED = ("-S", "experiment=tiny")


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory, repository_at: Callable[[Path], Path]) -> Path:
    """A repository in which the tiny pipeline ran in the workspace (`first`), then with another beta in a temporary copy (`second`)."""
    folder = repository_at(tmp_path_factory.mktemp("tracked") / "repository")
    dvc("exp", "run", *TRACKED, "--name", "first", folder=folder)
    dvc("exp", "run", *TRACKED, "--name", "second", "--temp", "-S", "dpo.beta=0.3", folder=folder)
    until(lambda: sent(folder))
    return folder
