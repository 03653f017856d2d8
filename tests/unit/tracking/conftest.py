"""A repository of its own for each test, a real MLflow database in it, and stages as processes of their own."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetune.config.schema import Config, Tracking
from finetune.tracking import sender
from tests.processes import rows, until

ROOT = Path(__file__).resolve().parents[3]
MLFLOW = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # of SQLAlchemy 2.1, about MLflow's own tables
STAGE = """
import sys
from pathlib import Path
from finetune import tracking
from finetune.config.schema import Config, Tracking
cfg = Config.model_construct(tracking=Tracking(enabled=True, uri={uri!r}, experiment="finetune", model=None))
with tracking.run({name!r}, cfg):
{body}
"""


def settings(uri: str | None = None, enabled: bool = True) -> Config:
    """What tracking.run reads of a configuration."""
    return Config.model_construct(tracking=Tracking(enabled=enabled, uri=uri, experiment="finetune", model=None))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository; the working directory is there, and no dvc or launcher is above."""
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "RANK"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def by_hand(home: Path) -> Iterator[Path]:
    """A repository where no sender starts by itself, because its lock is taken: the test is the sender."""
    held = sender.lock(home, fcntl.LOCK_EX)
    assert held is not None
    yield home
    os.close(held)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables: making one takes 4 s, copying it none."""
    from mlflow.tracking import MlflowClient  # 2 s, and only the tests that send need it

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").get_experiment_by_name("finetune")
    return path


@pytest.fixture
def database(by_hand: Path, empty_database: Path) -> Path:
    """MLflow's database of a repository whose sender is the test."""
    return shutil.copyfile(empty_database, by_hand / "mlflow.db")


@pytest.fixture
def start(home: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start a stage as a process: `start("train", "tracking.metrics({'loss': 1.0})")`."""
    started = []

    def begin(name: str, *body: str, uri: str | None = None, **environment: str) -> "subprocess.Popen[str]":
        code = STAGE.format(name=name, uri=uri, body="\n".join(f"    {line}" for line in body or ("pass",)))
        variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        process = subprocess.Popen([sys.executable, "-c", code], cwd=home, env=variables, text=True, stdout=-1, stderr=-1)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()
    if "by_hand" not in request.fixturenames:
        until(lambda: not sender.is_live(home))


def statuses(database: Path) -> list[tuple[str, str]]:
    """(stage or `pipeline`, status) of every run, sorted."""
    query = """select coalesce(stage.value, kind.value), runs.status from runs
        join tags kind on kind.run_uuid = runs.run_uuid and kind.key = 'finetune.kind'
        left join tags stage on stage.run_uuid = runs.run_uuid and stage.key = 'stage'"""
    return sorted(rows(database, query))


def runs(database: Path) -> dict[str, str]:
    """Stage, or `pipeline`, → status of its run; each must be there once."""
    found = statuses(database)
    assert len(found) == len(dict(found)), found
    return dict(found)
