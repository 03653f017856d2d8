"""The remark on models that lie on one disk alone; dvc itself answers at the end, and in tests/pipeline/test_backups.py."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune import backups
from finetune.tracking import hashes

MODELS = ("models/train", "models/dpo", "models/export")
COPIES = ("copies", ".dvc/cache")


@pytest.fixture
def made(workspace: Path) -> None:
    """A dvc.lock that names three models, and the folders."""
    stages = {name: {"cmd": "x", "outs": [{"path": f"models/{name}", "md5": f"a0{name}.dir"}]} for name in ("train", "dpo", "export")}
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
            assert words == ("data", "status", "--not-in-remote", "--granular", "--json", *MODELS)
            return status

        monkeypatch.setattr(backups, "_dvc", answer)
        monkeypatch.setattr("finetune.lineage.cache.folder", lambda root: root / ".dvc/cache/files/md5")

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


def test_models_that_are_in_the_cache_alone_have_no_copy_elsewhere_either(made: None, dvc: Callable[..., None]) -> None:
    dvc(remote="")
    for model in MODELS:
        Path(model).rmdir()
    listing = Path(".dvc/cache/files/md5/a0/dpo.dir")
    listing.parent.mkdir(parents=True)
    listing.write_text("[]")
    assert str(backups.remark()).startswith("models/dpo has no copy elsewhere: no remote is set up.")


@pytest.mark.parametrize("remote", ["", "backup"])
def test_a_dvc_lock_that_is_none_any_more_is_said(workspace: Path, dvc: Callable[..., None], remote: str) -> None:
    Path("dvc.lock").write_text("<<<<<<< HEAD\nschema: '2.0'\n=======\n")
    dvc(remote=remote)
    assert "is not known: found no stages in dvc.lock, as after a merge conflict" in str(backups.remark())


def test_what_the_remote_lacks_is_named(made: None, dvc: Callable[..., None]) -> None:
    dvc(status='{"not_in_remote": ["models/dpo/", "models/dpo/adapter_model.safetensors"], "not_in_cache": ["models/train/"]}')
    assert backups.remark() == "models/dpo has no whole copy elsewhere: not all of that is in the remote. `dvc push` sends what is missing"
    dvc(status='{"not_in_cache": ["models/train/"], "uncommitted": {"modified": ["models/dpo/"]}}')
    assert backups.remark() is None
    dvc(status="{}")
    assert backups.remark() is None


def test_what_neither_the_remote_nor_the_cache_has_is_to_be_made_again(made: None, dvc: Callable[..., None]) -> None:
    gone = ["models/train/", "models/dpo/adapter_model.safetensors"]
    dvc(status=json.dumps({"not_in_remote": gone, "not_in_cache": gone}))
    said = backups.remark()
    assert said is not None
    assert said.startswith("models/train and models/dpo have no whole copy elsewhere: neither the remote nor DVC's cache has all of that.")
    assert "`dvc repro` makes it again" in said


def test_a_file_that_the_remote_lost_is_named_with_the_listing_that_hides_it(made: None, dvc: Callable[..., None]) -> None:
    dvc(status='{"not_in_remote": ["models/train/", "models/dpo/adapter_model.safetensors", "models/export/a", "models/export/b"]}')
    train, dpo, export = str(backups.remark()).split("; ")
    assert train.startswith("models/train has no whole copy elsewhere: not all of that")
    assert dpo.startswith(
        "models/dpo has no whole copy elsewhere: the remote lost models/dpo/adapter_model.safetensors and kept the listing"
    )
    assert dpo.endswith("Remove files/md5/a0/dpo.dir there, then `dvc push`")
    assert "the remote lost 2 files, models/export/a among them, and kept" in export


def test_dvc_itself_is_asked_for_every_file_of_the_remote(workspace: Path) -> None:
    def dvc(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *words], check=True, capture_output=True)

    Path("dvc.yaml").write_text(
        "stages: {train: {cmd: mkdir -p models/train && echo a > models/train/a && echo b > models/train/b, outs: [models/train]}}"
    )
    dvc("init", "--no-scm")
    dvc("remote", "add", "-d", "backup", "copies")
    dvc("repro")
    assert "not all of that is in the remote" in str(backups.remark())
    dvc("push")
    assert backups.remark() is None

    listing = hashes.known(hashes.read())["models/train"]
    kept = [Path(folder, "files/md5", md5[:2], md5[2:]) for md5 in (hashes.md5(Path("models/train/a")), listing) for folder in COPIES]
    kept[0].unlink()
    dvc("push")
    said = str(backups.remark())
    assert "the remote lost models/train/a and kept the listing" in said
    assert f"Remove files/md5/{listing[:2]}/{listing[2:]} there, then `dvc push`" in said
    kept[2].unlink()
    dvc("push")
    assert backups.remark() is None

    kept[0].unlink()
    kept[1].unlink()
    assert "neither the remote nor DVC's cache has all of that" in str(backups.remark())
    dvc("repro")
    assert "the remote lost models/train/a" in str(backups.remark())


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


@pytest.mark.parametrize(
    ("stderr", "said"), [("Traceback:\ndvc.config.ConfigError: it is none\n", "dvc.config.ConfigError: it is none"), ("", "status 1")]
)
def test_a_dvc_that_breaks_down_is_not_one_without_a_remote(made: None, monkeypatch: pytest.MonkeyPatch, stderr: str, said: str) -> None:
    failing = Path("failing").resolve()
    failing.write_text(f"#!/bin/sh\nprintf '{stderr}' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(failing))
    remark = str(backups.remark())
    assert "the remote could not be asked" in remark
    assert said in remark
