"""A repository with a registry in it: three pipelines that came to two exports, as their stages tell of them, sent to a real database."""

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune import tracking
from finetune.config.schema import Config
from finetune.tracking import registry
from finetune.tracking.send import Sender
from tests.unit.tracking.conftest import MLFLOW, by_hand, database, empty_database, home, settings
from tests.unit.tracking.test_hashes import lock

__all__ = ["MLFLOW", "by_hand", "database", "empty_database", "home"]
WEIGHTS = "weights of {}"
Pipeline = Callable[..., None]


def git(*words: str) -> str:
    """What git says in the working directory."""
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()


def sha256(text: str) -> str:
    """Hex digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def md5(text: str) -> str:
    """Hex digest of a text."""
    return hashlib.md5(text.encode()).hexdigest()


@pytest.fixture
def pipeline(database: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Run a pipeline of two stages and its report: `pipeline("first", weights="a", records="x")`; the commit is HEAD's."""
    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "as it was")
    made: dict[str, Any] = {}

    def run(name: str, weights: str, records: str, stages: tuple[str, ...] = ("train", "export"), **tags: str) -> None:
        monkeypatch.setenv("DVC_EXP_NAME", name)
        loop = Sender(database.parent)
        for stage in stages:
            monkeypatch.setenv("DVC_STAGE", stage)
            with tracking.run(stage, cfg()):
                pass
            loop.step()
            reads = [{"path": "data/raw", "md5": md5(records) + ".dir"}, {"path": "finetune/cli.py", "md5": "c" * 32}]
            writes = [{"path": f"models/{stage}", "md5": md5(stage + weights) + ".dir"}]
            made[stage] = {
                "cmd": stage,
                "deps": reads if stage == "train" else [{"path": "models/train/weights", "md5": "w"}],
                "outs": writes,
            }
            lock(**made)
        Path("models/export").mkdir(parents=True, exist_ok=True)
        for file in ("manifest.json", "README.md"):
            Path("models/export", file).write_text("{}")
        monkeypatch.setenv("DVC_STAGE", "report")
        monkeypatch.setattr("finetune.tracking.sender.wait", lambda *_: loop.step() and None)
        with tracking.run("report", cfg()):
            tracking.made_by()
            tracking.params({"train.r": 8, "seed": 17}, on="pipeline")
            evidence = {
                registry.COMMIT: git("rev-parse", "HEAD"),
                "data.data/raw/records.jsonl": json.dumps({"md5": md5(records), "sha256": sha256(records), "bytes": len(records)}),
                "base.path": "LlamaConfig",
                "base.sha256": "b" * 64,
                "params.sha256": sha256("params"),
                "gates": "passed",
                f"md5.{md5(records)}": "data/raw/records.jsonl",
                f"sha256.{sha256(records)}": "data/raw/records.jsonl",
                f"sha256.{sha256(WEIGHTS.format(weights))}": "models/export/merged/model.safetensors",
                f"md5.{md5('train' + weights)}.dir": "models/train",
            }
            tracking.tags({**evidence, **tags}, on="pipeline")
            tracking.artifact(Path("dvc.lock"), on="pipeline")
            tracking.version("lamp", Path("models/export"))
            tracking.finish()
        loop.step()

    return run


@pytest.fixture
def three(pipeline: Pipeline, database: Path) -> Path:
    """`first` and `again` came to lamp/1, `other`, on other records, to lamp/2. The database."""
    pipeline("first", weights="a", records="x")
    pipeline("other", weights="b", records="y", **{"git.differs": "params.yaml, conf/config.yaml"})
    pipeline("again", weights="a", records="x", stages=("export",))
    return database


def cfg() -> Config:
    """Settings with tracking on."""
    return settings()
