"""The remark on models that lie on one disk alone; dvc itself answers in tests/pipeline/test_backups.py."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune import backups

MODELS = ("models/train", "models/dpo", "models/export")


@pytest.fixture
def made(workspace: Path) -> None:
    """A dvc.lock that names three models, and the folders."""
    stages = {name: {"cmd": "x", "outs": [{"path": f"models/{name}", "md5": "0.dir"}]} for name in ("train", "dpo", "export")}
    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
    for model in MODELS:
        Path(model).mkdir(parents=True)


@pytest.fixture
def dvc(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`dvc(remote="backup", status="{}")`: what dvc will print."""

    def prints(remote: str = "backup", status: str = "{}") -> None:
        def answer(*words: str, limit: float) -> str:
            if words[0] == "config":
                return remote
            assert words == ("status", "--cloud", "--json", "train", "dpo", "export")
            return status

        monkeypatch.setattr(backups, "_dvc", answer)

    return prints


def test_before_anything_was_made_there_is_nothing_to_say(workspace: Path, dvc: Callable[..., None]) -> None:
    dvc(remote="")
    assert backups.remark() is None
    dvc()
    assert backups.remark() is None


def test_without_a_remote_it_names_the_commands_that_make_a_copy(made: None, dvc: Callable[..., None]) -> None:
    dvc(remote="")
    said = backups.remark()
    assert said is not None
    assert said.startswith("models/train, models/dpo and models/export have no copy elsewhere: no remote is set up.")
    assert "`dvc remote add --local -d backup " in said
    assert "`dvc push`" in said


def test_models_that_are_not_here_either_are_nothing_to_copy(made: None, dvc: Callable[..., None]) -> None:
    dvc(remote="")
    for model in MODELS:
        Path(model).rmdir()
    assert backups.remark() is None


def test_what_the_remote_lacks_is_named_a_file_of_it_too(made: None, dvc: Callable[..., None]) -> None:
    dvc(status='{"models/dpo/adapter_model.safetensors": "new", "models/train": "deleted", "reports/dpo.json": "new"}')
    assert backups.remark() == "models/dpo has no copy elsewhere: the remote has nothing of that. `dvc push` sends what is missing"
    dvc(status="{}")
    assert backups.remark() is None


def test_a_remote_that_does_not_answer_is_told_with_its_reason(made: None, dvc: Callable[..., None]) -> None:
    dvc(status="Unable to locate credentials")
    said = backups.remark()
    assert said is not None
    assert said.endswith("is not known: the remote could not be asked (Unable to locate credentials)")


def test_dvc_is_not_waited_for_longer_than_the_limit(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = workspace / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    assert backups._dvc("status", limit=0.05) == "no answer within 0.05 s"


def test_of_what_dvc_says_when_it_fails_the_error_is_told(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = workspace / "failing"
    failing.write_text("#!/bin/sh\necho 'WARNING: old' >&2\necho 'ERROR: unexpected error - no such bucket' >&2\nexit 255\n")
    failing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(failing))
    assert backups._dvc("status", limit=60) == "no such bucket"
