"""Fixtures that every kind of test shares: configurations composed from conf/, folders to run a stage in, copies of the repository."""

import errno
import importlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf

import stages  # noqa: F401  # sets the environment before anything imports torch
from finetune import paths
from finetune.config.compose import validate
from finetune.config.schema import Config
from finetune.config.stage import cut

ROOT = Path(__file__).resolve().parents[1]
# for every process that a test starts: this environment's programs, a git identity, nothing of a surrounding dvc
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ.update(
    {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "test"), ("EMAIL", "test@example.org"))}
)
os.environ.pop("DVC_ROOT", None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a job in the background; what it starts would ignore Ctrl-C too
    signal.signal(signal.SIGINT, signal.default_int_handler)
STAGES = ("prepare", "format", "train", "reference", "dpo", "answer", "evaluate", "export")
Compose = Callable[..., Config]


def composed(*overrides: str) -> Config:
    """Return conf/ as `dvc exp run -S …` composes it, with tracking off."""
    importlib.import_module("hydra_plugins.finetune_settings")
    with hydra.initialize_config_dir(str(ROOT / paths.CONF), version_base=None):
        values = OmegaConf.to_container(hydra.compose("config", overrides=["tracking=off", *overrides]), resolve=True)
    return validate(values)  # type: ignore[arg-type]


@contextmanager
def full_disk() -> Iterator[None]:
    """Nothing that is written reaches the disk: flushing it fails, as on a full one."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        yield


@pytest.fixture(scope="session")
def compose() -> Compose:
    """`compose("experiment=tiny", "train.r=4")` → Config."""
    return composed


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run stages in; the working directory is there."""
    return _enter(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, set[str]]]:
    """`tiny_run`, and stage → the sections of params.yaml that it read there."""
    folder = tmp_path_factory.mktemp("tiny")
    read: dict[str, set[str]] = {name: set() for name in STAGES}
    with pytest.MonkeyPatch.context() as patch:
        _enter(folder, patch)
        for name in STAGES:
            main = importlib.import_module(f"stages.{name}").main
            patch.setattr(Config, "__getattribute__", _noting(read[name]), raising=False)
            patch.setattr("finetune.checkpoints.kept.key", lambda *_: "key")  # which asks for every section that there is
            for which in ("base", "train", "dpo") if name == "answer" else ("",):
                whole = composed("experiment=tiny", *([f"answer.which={which}"] if which else []))
                given = cut(whole, main.sections)
                read[name].clear()
                main(given)
    return folder, read


@pytest.fixture(scope="session")
def tiny_run(tiny: tuple[Path, dict[str, set[str]]]) -> Path:
    """A folder in which prepare to export ran once with `experiment=tiny`, in this process. Read it, never write to it."""
    return tiny[0]


def _noting(read: set[str]) -> Callable[[Config, str], Any]:
    """Attribute access of a configuration that notes which of its sections were asked for; iterating asks for all that it has."""

    def ask(config: Config, name: str) -> Any:
        found = object.__getattribute__(config, name)
        if name == "__dict__":
            read.update(found)
        elif name in Config.model_fields:
            read.add(name)
        return found

    return ask


@pytest.fixture
def tiny_copy(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `tiny_run` that a test may change; the working directory is there."""
    folder = shutil.copytree(tiny_run, tmp_path / "copy", symlinks=True)
    return _enter(folder, monkeypatch)


@pytest.fixture(scope="session")
def repository_at() -> Callable[[Path], Path]:
    """`repository_at(folder)`: a git repository there with this project's tracked and new files as they are now, all committed."""

    def copy(folder: Path) -> Path:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
        )
        for name in listed.stdout.decode().split("\0"):
            if name and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "as it is"]):
            subprocess.run(["git", *command], cwd=folder, check=True)
        return folder

    return copy


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository_at: Callable[[Path], Path]) -> Path:
    """A copy of the repository as it is now; the working directory is there."""
    monkeypatch.chdir(repository_at(tmp_path / "repository"))
    return tmp_path / "repository"


def _enter(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    (folder / paths.RAW).mkdir(parents=True, exist_ok=True)
    patch.chdir(folder)
    return folder
