"""`finetune …`: what it prints, and what it says when something is wrong."""

import json
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from finetune import cli, environment, paths
from finetune.config import compose
from finetune.errors import ConfigError, FinetuneError, SetupError
from tests.conftest import ROOT
from tests.unit.lineage.conftest import by_hand, database, empty_database, home, md5, pipeline, three

__all__ = ["by_hand", "database", "empty_database", "home", "pipeline", "three"]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The root logger's handlers are the process's again: check logs to an output that is gone after the test."""
    before = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = before


@pytest.fixture
def settings(workspace: Path) -> Path:
    """A folder with conf/ and the params.yaml composed from it; the working directory is there."""
    for name in ("conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, workspace / name)
    compose.write_params(["tracking=off"])
    return workspace


def error(*words: str) -> FinetuneError:
    """What a command raises."""
    raised = CliRunner().invoke(cli.app, words).exception
    assert isinstance(raised, FinetuneError), raised
    return raised


def printed(*words: str) -> str:
    """What a command prints."""
    result = CliRunner().invoke(cli.app, words)
    assert result.exception is None
    return result.output


def test_params_takes_conf_and_overrides_over(settings: Path) -> None:
    assert "params.yaml is what conf/ composes to" in printed("params", "train.r=4")
    assert "r: 4" in paths.PARAMS.read_text()


def test_check_is_content_with_what_was_composed_and_locked(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "locked_differences", lambda _lock: [])
    told = printed("check", "experiment=tiny", "tracking=off")
    assert "settings were composed from conf/ as it is now, packages are those of requirements.lock" in told
    assert "prepare and format would refuse nothing (all records were tried)" in told


def test_check_tells_what_a_full_run_would_refuse(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "locked_differences", lambda _lock: [])
    compose.write_params(["experiment=tiny", "tracking=off", "format.max_length=40"])
    refused = str(error("check"))
    assert refused.startswith("a full run would be refused:\n")
    assert "smart_home:1: found " in refused
    assert refused.endswith("(all records were tried)")


def test_check_tells_a_drift_and_a_package_of_another_version(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "locked_differences", lambda _lock: ["torch is missing, the lock says 2.13.0"])
    assert isinstance(error("check"), SetupError)
    assert "torch is missing" in str(error("check"))
    (settings / "conf/train/lora.yaml").write_text("r: 1\n")
    assert isinstance(error("check"), ConfigError)


def test_diff_compares_head_and_workspace_unless_told_otherwise(settings: Path) -> None:
    for command in (["init", "-q"], ["add", "params.yaml"], ["commit", "-q", "-m", "settings"]):
        subprocess.run(["git", *command], check=True)
    compose.write_params(["tracking=off", "dpo.beta=0.3"])
    found = json.loads(printed("diff", "--json"))
    assert found["params"] == {"dpo.beta": {"a": 1.0, "b": 0.3}}
    assert found["environment"]["unknown_because"] == "tracking is off"
    assert "dpo.beta  1.0  0.3" in printed("diff", "HEAD", "workspace")
    assert "found no such run" in str(error("diff", "HEAD", "nothing"))


def test_diff_does_without_settings_that_say_where_mlflow_is(workspace: Path) -> None:
    assert "none: found no such run" in str(error("diff", "none"))
    paths.PARAMS.write_text("tracking: {enabled: maybe}\n")
    assert "name or id of a run in MLflow: tracking is off" in str(error("diff", "none"))


@pytest.fixture
def commit(settings: Path) -> Path:
    """A repository with one commit, that records nothing yet."""
    (settings / ".gitignore").write_text("/reports/\n")
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=settings, check=True)
    return settings


def proved(*words: str) -> Result:
    """What `finetune prove` ends with; Ctrl-C and SIGTERM are this process's again afterwards."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        return CliRunner().invoke(cli.app, ["prove", *words])
    finally:
        signal.signal(signal.SIGTERM, before)


def test_prove_ends_with_2_where_it_can_not_be_made_and_says_why(commit: Path) -> None:
    done = proved()
    assert done.exit_code == 2
    assert "dvc.lock: found no stages in that of this folder" in done.stderr
    (commit / "params.yaml").write_text((commit / "params.yaml").read_text() + "\n")
    assert "params.yaml: differs from the commit" in proved().stderr
    both = proved("--rev", "main", "--dirty")
    assert (both.exit_code, "found both" in both.stderr) == (2, True)
    shutil.rmtree(commit / ".git")
    assert "git init && git add -A && git commit" in proved().stderr


@pytest.mark.parametrize("lock", [b"stages: {train: null}", b"stages: [a]", b"stages: {train: {outs: [1]}}", b"stages:\n  \xff: {}\n"])
def test_prove_of_a_dvc_lock_that_is_none_ends_with_2(commit: Path, lock: bytes) -> None:
    (commit / "dvc.lock").write_bytes(lock)
    for words in ([], ["--dirty"]):
        done = proved(*words)
        assert (done.exit_code, "dvc.lock: found no stages in that of this folder" in done.stderr) == (2, True)
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(["git", "commit", "-qm", "spoiled"], check=True)
    done = proved("--rev", "main")
    assert (done.exit_code, "dvc.lock: found no stages in that of commit" in done.stderr) == (2, True)


def test_prove_of_settings_that_are_none_ends_with_2(commit: Path) -> None:
    paths.PARAMS.write_text("a: [")
    done = proved()
    assert (done.exit_code, "settings can't be read:\n  params.yaml: while parsing" in done.stderr) == (2, True)


def test_what_nobody_foresaw_is_no_verdict(commit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune import proving
    from tests.unit.proving.conftest import LOCKED

    def crashed(*_: object) -> None:
        raise KeyError("weights")

    (commit / "dvc.lock").write_text(LOCKED)
    monkeypatch.setattr(proving, "prove", crashed)
    done = proved("--dirty")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (
        2,
        "it could not be made, for a reason that nobody foresaw: KeyError('weights')",
    )
    assert "Traceback" in done.stderr
    done = CliRunner().invoke(cli.app, ["reproduce", "x" * 300])
    assert done.exit_code == 2


@pytest.mark.parametrize("status", [0, 1])
def test_prove_ends_with_the_verdict_and_prints_the_certificate_alone_where_a_machine_reads_it(
    commit: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    from finetune import proving  # 3 s of imports, which the other tests are spared
    from finetune.proving import telling
    from tests.unit.proving.conftest import LOCKED, certificate

    (commit / "dvc.lock").write_text(LOCKED)
    found = certificate(parted=bool(status))

    def made(repository: object, subject: object, stages: list[str], *_: object) -> object:
        assert stages == ["train", "dpo"]
        telling.write(found)
        return found

    monkeypatch.setattr(proving, "prove", made)
    done = proved("train", "dpo", "--json", "--dirty")
    assert done.exit_code == status
    assert json.loads(done.stdout)["verdict"] == ("differs" if status else "same")
    assert ("not the same: the first stage that parts is train" in done.stderr) == bool(status)


def test_prove_interrupted_says_what_is_left(commit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune import proving
    from tests.unit.proving.conftest import LOCKED

    (commit / "dvc.lock").write_text(LOCKED)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(proving, "prove", interrupted)
    done = proved("--dirty")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (
        130,
        "interrupted; the clone is removed, and nothing of the folder was changed",
    )


def test_without_params_it_says_where_it_looked(workspace: Path) -> None:
    assert str(workspace) in str(error("ui"))


def test_ui_serves_the_database_on_loopback_with_one_worker(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(
        os, "execve", lambda _file, words, environment: started.append([*words, environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"]])
    )
    assert "http://127.0.0.1:5001" in printed("ui", "--port", "5001")
    assert f"sqlite:///{settings}/mlflow.db --host 127.0.0.1 --port 5001 --workers 1 false" in " ".join(started[0])


def test_ui_of_a_server_names_its_address(settings: Path) -> None:
    compose.write_params(["tracking.uri='http://mlflow.example.org'"])
    assert "MLflow is at http://mlflow.example.org" in printed("ui")


def test_what_a_user_can_mend_is_said_without_a_traceback(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["finetune", "check"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "no settings here" in capsys.readouterr().err


def test_lineage_prints_a_tree_or_json_and_says_what_is_not_sent_yet(settings: Path, three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compose.write_params(["tracking.uri=null"])
    told = CliRunner().invoke(cli.app, ["lineage", "lamp/2"])
    assert told.stdout.startswith("lamp/2: export ")
    assert told.stderr == ""
    (settings / ".tracking/spool/1-train-1").mkdir(parents=True)
    told = CliRunner().invoke(cli.app, ["lineage", "--json", "lamp@candidate"])
    assert json.loads(told.stdout)["ancestry"]["version"] == "lamp/1"
    assert told.stderr == "1 run of stages not in MLflow yet, so not in this answer\n"


def test_promote_says_all_that_is_against_it(settings: Path, three: Path) -> None:
    compose.write_params(["tracking.uri=null"])
    subprocess.run(["dvc", "init", "-q"], check=True)
    refused = str(error("promote", "lamp/2"))
    assert refused.startswith("lamp/2 can't be promoted:\n  tree: found changes in params.yaml, conf/config.yaml, expected it as committed")


def test_reproduce_that_can_not_be_made_has_a_status_of_its_own(settings: Path, three: Path) -> None:
    compose.write_params(["tracking.uri=null"])
    told = CliRunner().invoke(cli.app, ["reproduce", "nobody"])
    assert told.exit_code == cli.UNMADE
    assert "found 'nobody', expected NAME/NUMBER" in told.stderr


def test_reproduce_of_bytes_that_only_a_version_remembers_says_how_its_run_comes_back(settings: Path, three: Path) -> None:
    compose.write_params(["tracking.uri=null"])
    with closing(sqlite3.connect(three)) as connection, connection:
        connection.execute("update runs set lifecycle_stage = 'deleted'")
    told = CliRunner().invoke(cli.app, ["reproduce", md5("y")])
    assert told.exit_code == cli.UNMADE
    assert "the run of this version was deleted" in told.stderr
    assert "mlflow runs restore" in told.stderr
