"""The sender: everything arrives, once, also after it was killed, and what can't be sent is kept. MLflow is real, its database sqlite."""

import dataclasses
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.tracking import MlflowClient

from finetune import tracking
from finetune.fingerprint import Fingerprint
from finetune.tracking import hashes, sender, spool
from finetune.tracking.send import Sender
from finetune.tracking.spool import Spool
from tests.processes import rows, sent

from .conftest import MLFLOW, runs, settings
from .test_hashes import lock

pytestmark = MLFLOW
Start = Callable[..., "subprocess.Popen[str]"]


class Killed(BaseException):
    """Stands for kill -9: nobody catches it."""


def train() -> None:
    """A run that says one of everything."""
    Path("curve.png").write_bytes(b"png")
    Path("figures").mkdir(exist_ok=True)
    Path("figures/a.png").write_bytes(b"a")
    with tracking.run("train", settings()):
        for step in range(40):
            tracking.metrics({"loss": 1 / (step + 1), "learning_rate": 1e-4}, step=step)
        tracking.params({"train.r": 16, "train.target_modules": ["q", "v"], "long": "x" * 7000})
        tracking.params({"seed": 17}, on="pipeline")
        tracking.tags({"mlflow.source.git.commit": "f" * 40}, on="pipeline")
        tracking.dataset("sft", Path("curve.png"))
        tracking.artifact(Path("curve.png"), folder="figures")
        tracking.artifact(Path("figures"), on="pipeline")


def contents(database: Path) -> dict[str, list[Any]]:
    """What MLflow has, without ids and times."""
    return {
        "metrics": rows(database, "select key, value, step from metrics where key in ('loss', 'learning_rate') order by 1, 3"),
        "params": rows(database, "select key, length(value) from params order by 1"),
        "datasets": rows(database, "select d.name, d.digest from datasets d join inputs i on i.source_id = d.dataset_uuid"),
        "artifacts": sorted("/".join(file.parts[-2:]) for file in (database.parent / "mlartifacts").rglob("*") if file.is_file()),
    }


def test_what_a_stage_said_is_in_mlflow(database: Path) -> None:
    train()
    Sender(database.parent).step()
    assert sent(database.parent)
    assert runs(database) == {"pipeline": "RUNNING", "train": "FINISHED"}
    found = contents(database)
    assert len(found["metrics"]) == 80
    assert found["params"] == [("long", 6000), ("seed", 2), ("train.r", 2), ("train.target_modules", 10)]
    assert found["datasets"] == [("sft", hashes.digest(Path("curve.png")))]
    assert found["artifacts"] == ["figures/a.png", "figures/curve.png", "params/long.txt"]
    (parent,) = rows(database, "select value from tags where key = 'mlflow.parentRunId'")
    assert rows(database, f"select key from params where run_uuid = '{parent[0]}'") == [("seed",)]


def test_tags_whose_names_mlflow_cant_hold_have_a_key_each(database: Path) -> None:
    names = ("data.a@b", "data.a.b", "data.a,b", f"data.{'c' * 300}", f"data.{'c' * 300}.jsonl")
    with tracking.run("train", settings()):
        tracking.tags({name: name for name in names})
    Sender(database.parent).step()
    keys = {value: key for key, value in rows(database, "select key, value from tags where key like 'data.%'")}
    cut = "c" * 240
    assert keys == dict(zip(names, ("data.a.b.3", "data.a.b", "data.a.b.2", f"data.{cut}ccccc", f"data.{cut}.2"), strict=True))


def test_a_sender_killed_anywhere_repeats_nothing_and_loses_nothing(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train()
    save, remove, saves = Spool.save, Spool.remove, 0

    def killed_instead_of_saving(found: Spool) -> None:
        nonlocal saves
        saves += 1
        if saves % 2:  # what was sent before this is sent again by the next sender
            raise Killed
        save(found)

    def killed_while_removing(found: Spool) -> None:
        monkeypatch.setattr(Spool, "remove", remove)
        (found.path / "events.jsonl").unlink()
        raise Killed

    monkeypatch.setattr(Spool, "save", killed_instead_of_saving)
    monkeypatch.setattr(Spool, "remove", killed_while_removing)
    kills = 0
    while not sent(database.parent):
        try:
            Sender(database.parent).step()
        except Killed:
            kills += 1
    assert kills == 12, "once for each thing that the run said, and once while removing"
    assert runs(database) == {"pipeline": "RUNNING", "train": "FINISHED"}
    found = contents(database)
    assert [len(found[kind]) for kind in ("metrics", "params", "datasets", "artifacts")] == [80, 4, 1, 3]


def test_a_run_that_grows_is_sent_as_it_grows(database: Path) -> None:
    loop = Sender(database.parent)
    with tracking.run("train", settings()):
        tracking.metrics({"loss": 1.0}, step=1)
        assert loop.step(), "somebody still writes"
        assert len(contents(database)["metrics"]) == 1
        tracking.metrics({"loss": 0.5}, step=2)
        loop.step()
        assert len(contents(database)["metrics"]) == 2
        assert runs(database) == {"pipeline": "RUNNING", "train": "RUNNING"}


def test_a_run_and_its_pipeline_say_in_which_environment_they_were(database: Path) -> None:
    train()
    Sender(database.parent).step()
    here = Fingerprint.of_this_machine()
    found = rows(database, "select key, value from tags where key like 'environment%'")
    assert sorted(found) == sorted([*here.as_tags().items()] * 2)


def test_the_end_of_the_report_ends_the_pipeline(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "LOOK", 0)
    monkeypatch.setattr(sender, "wait", lambda *_: Sender(database.parent).step() and None)
    with tracking.run("report", settings()):
        tracking.finish()
    assert runs(database) == {"pipeline": "FINISHED", "report": "FINISHED"}


def test_a_failure_is_told_with_its_error(database: Path) -> None:
    with pytest.raises(ValueError, match="no records"), tracking.run("prepare", settings()):
        raise ValueError("no records")
    Sender(database.parent).step()
    assert runs(database)["prepare"] == "FAILED"
    assert rows(database, "select value from tags where key = 'error'") == [("ValueError: no records",)]


@pytest.mark.parametrize(("body", "status"), [("pass", "FINISHED"), ("raise ValueError", "FAILED"), ("os.kill(os.getpid(), 9)", "KILLED")])
def test_runs_whose_process_is_gone_are_closed(database: Path, start: Start, body: str, status: str) -> None:
    start("train", "import os", body).wait()
    Sender(database.parent).step()
    assert runs(database) == {"pipeline": status, "train": status}
    assert rows(database, "select value from tags where key = 'report'") == [("missing",)]


def test_runs_of_a_dead_process_are_closed_without_their_spool(database: Path, start: Start) -> None:
    process = start("train", "import time", "time.sleep(60)")
    while not spool.waiting(database.parent):
        pass
    Sender(database.parent).step()
    assert runs(database) == {"pipeline": "RUNNING", "train": "RUNNING"}
    process.kill()
    process.wait()
    for path in spool.waiting(database.parent):
        Spool(path).remove()
    with tracking.run("dpo", settings()):
        pass
    Sender(database.parent).step()
    assert sorted(rows(database, "select name, status from runs where name not like '%-2%'")) == [("dpo", "FINISHED"), ("train", "KILLED")]
    assert rows(database, "select status from runs where name like 'train-%'") == [("KILLED",)]


def test_a_stage_of_another_host_holds_nobody_up_and_is_dead_after_a_day(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "a-container")
    run = tracking.run("train", settings())
    run.__enter__()
    monkeypatch.undo()
    loop = Sender(database.parent)
    assert not loop.step()
    (path,) = spool.waiting(database.parent)
    assert loop.elsewhere(path)
    assert set(runs(database).values()) == {"RUNNING"}
    os.utime(path / "events.jsonl", (0, 0))
    loop.step()
    assert set(runs(database).values()) == {"KILLED"}
    assert sent(database.parent)


def test_a_pipeline_gets_the_commit_that_dvc_makes_of_it_later(database: Path, start: Start) -> None:
    subprocess.run(["git", "init", "-q"], check=True)

    def experiment(**dates: str) -> str:
        words = "-c user.name=test -c user.email=test@example.org commit -q --allow-empty -m one"
        subprocess.run(["git", *words.split()], check=True, env={**os.environ, **dates})
        subprocess.run(["git", "update-ref", f"refs/exps/ab/{'ab' * 19}/puffy-daks", "HEAD"], check=True)
        return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()

    experiment(GIT_COMMITTER_DATE="2020-01-01T00:00:00Z")
    start("train", DVC_EXP_NAME="puffy-daks", DVC_EXP_BASELINE_REV="ab" * 20).wait()
    loop = Sender(database.parent)
    assert loop.step(), "DVC may still make one: that of the name is older than the run"
    commit = experiment()
    assert not loop.step()
    assert rows(database, "select value from tags where key = 'dvc.commit'") == [(commit,)]


def test_what_mlflow_refuses_for_good_does_not_hold_up_the_rest(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tracking.run("train", settings()):
        tracking.params({"r": 8})
        tracking.params({"r": 16})
        tracking.text("gone.txt", "gone")
        tracking.metrics({"loss": 1.0})
    (path,) = spool.waiting(database.parent)
    (path / "artifacts/1/gone.txt").unlink()
    Sender(database.parent).step()
    assert sent(database.parent)
    assert len(contents(database)["metrics"]) == 1
    assert "refuses this for good" in caplog.messages[0]
    assert "gone" in caplog.messages[1]


def test_a_damaged_spool_is_put_aside(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    (spool.folder(database.parent) / "1-train-1").mkdir(parents=True)
    (spool.folder(database.parent) / "1-train-1/events.jsonl").write_text("{}\n")
    train()
    Sender(database.parent).step()
    assert sent(database.parent)
    assert "put aside" in caplog.text
    assert (spool.folder(database.parent) / ".1-train-1/events.jsonl").exists()


def test_a_skipped_stage_is_linked_to_the_run_that_made_it(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Sender(database.parent)
    monkeypatch.setattr(sender, "wait", lambda done, *_: loop.step() and None)

    def pipeline(name: str, *stages: str) -> dict[str, Any] | None:
        monkeypatch.setenv("DVC_EXP_NAME", name)
        for stage in stages:
            with tracking.run(stage, settings()):
                pass
            made[stage] = {"cmd": stage, "params": {"by": name}}
            lock(**made)
        with tracking.run("report", settings()):
            return tracking.made_by()

    made: dict[str, Any] = {"elsewhere": {"cmd": "elsewhere"}}
    first = pipeline("first", "train", "answer@base")
    second = pipeline("second", "answer@base")
    assert first is not None
    assert second is not None
    assert first["elsewhere"] is second["elsewhere"] is None
    assert (first["train"]["here"], first["answer@base"]["here"], second["answer@base"]["here"]) == (True, True, True)
    assert second["train"] == {**first["train"], "here": False}
    assert second["train"]["name"] == "first"
    tags = rows(
        database, "select key, value from tags where key like 'made_by.%' and value = (select run_uuid from runs where name = 'train')"
    )
    assert tags == [("made_by.train", first["train"]["run"])] * 2


def test_a_maker_whose_pipeline_is_gone_from_mlflow_has_its_own_name(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Sender(database.parent)
    monkeypatch.setattr(sender, "wait", lambda done, *_: loop.step() and None)
    get_run = MlflowClient.get_run

    def without_first(client: MlflowClient, run: str) -> Run:
        found = get_run(client, run)
        if found.info.run_name == "first":
            raise MlflowException("gone", RESOURCE_DOES_NOT_EXIST)
        return found

    monkeypatch.setenv("DVC_EXP_NAME", "first")
    with tracking.run("train", settings()):
        pass
    loop.step()
    lock(train={"cmd": "train"})
    with tracking.run("report", settings()):
        tracking.made_by()
    monkeypatch.setattr(MlflowClient, "get_run", without_first)
    monkeypatch.setenv("DVC_EXP_NAME", "second")
    with tracking.run("report", settings()):
        makers = tracking.made_by()
    assert makers is not None
    assert makers["train"] is not None
    assert makers["train"]["name"] == "train"


def test_a_stage_that_was_made_in_another_environment_is_told(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Sender(database.parent)
    monkeypatch.setattr(sender, "wait", lambda done, *_: loop.step() and None)
    here = Fingerprint.of_this_machine()
    there = dataclasses.replace(here, cpu="another", libraries={**here.libraries, "torch": "2.0.0"})
    made: dict[str, Any] = {}

    def makers(name: str, stage: str, environment: Fingerprint) -> dict[str, Any]:
        monkeypatch.setenv("DVC_EXP_NAME", name)
        monkeypatch.setattr(Fingerprint, "of_this_machine", lambda: environment)
        with tracking.run(stage, settings()):
            pass
        made[stage] = {"cmd": stage, "params": {"by": name}}
        lock(**made)
        with tracking.run("report", settings()):
            found = tracking.made_by()
        assert found is not None
        return found

    assert makers("first", "train", there)["train"]["differences"] == []
    second = makers("second", "dpo", here)
    assert second["train"]["environment"] == there.id
    assert second["train"]["differences"] == [f"cpu: another → {here.cpu}", f"torch: 2.0.0 → {here.libraries['torch']}"]
    assert (second["dpo"]["environment"], second["dpo"]["differences"]) == (here.id, [])


def test_a_proof_asks_by_the_lock_that_it_is_about_and_is_noted_on_the_runs_that_it_is_of(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Sender(database.parent)
    monkeypatch.setattr(sender, "wait", lambda done, *_: loop.step() and None)
    monkeypatch.setenv("DVC_EXP_NAME", "first")
    for stage in ("answer@base", "report"):
        monkeypatch.setenv("DVC_STAGE", stage)
        with tracking.run(stage.partition("@")[0], settings()):
            lock(**{"answer@base": {"cmd": "answer"}})
    loop.step()
    for name in ("DVC_EXP_NAME", "DVC_STAGE"):
        monkeypatch.delenv(name)
    proved = hashes.read()
    lock(**{"answer@base": {"cmd": "another"}})
    with tracking.run("prove", settings(), proved):
        makers = tracking.made_by()
        assert makers is not None
        tracking.note(makers["answer@base"]["run"], {"proof": "same"})
    loop.step()
    assert sent(database.parent)
    noted = "select runs.name, key, value from tags join runs using (run_uuid) where key like 'proof%' order by 1"
    assert rows(database, noted) == [("answer@base", "proof", "same"), ("first", "proof.answer.base", "same")]


def test_a_server_that_is_away_leaves_everything_where_it_is(
    by_hand: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sender.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with tracking.run("train", settings("http://127.0.0.1:9")):
        tracking.metrics({"loss": 1.0})
    loop = Sender(by_hand)
    loop.step()
    (path,) = spool.waiting(by_hand)
    assert "http://127.0.0.1:9" in (path / "trouble").read_text()
    assert len(Spool(path).unsent()) == 5
    with tracking.run("dpo", settings("http://127.0.0.1:9")):
        assert tracking.made_by(limit=0) is None
    assert [message.split(":")[0] for message in caplog.messages if "earlier" in message or "not in MLflow" in message]
    assert "1 run not in MLflow yet" in caplog.text


def test_sending_goes_to_each_address_for_itself(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in sender.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with tracking.run("dpo", settings("http://127.0.0.1:9")):
        pass
    with tracking.run("train", settings()):
        pass
    Sender(database.parent).step()
    assert len(spool.waiting(database.parent)) == 1
    assert runs(database)["train"] == "FINISHED"


@pytest.mark.parametrize(("uri", "address"), [(None, "mlflow.db"), ("sqlite:///deep/own.db", "deep/own.db")])
def test_a_relative_database_is_the_users_own_also_in_a_copy(
    by_hand: Path, monkeypatch: pytest.MonkeyPatch, uri: str | None, address: str
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(by_hand))
    (by_hand / "copy").mkdir()
    monkeypatch.chdir(by_hand / "copy")
    with tracking.run("train", settings(uri)):
        pass
    (path,) = spool.waiting(by_hand)
    assert Spool(path).header["uri"] == f"sqlite:///{by_hand / address}"


def test_the_tags_say_which_process_a_run_was(database: Path) -> None:
    train()
    Sender(database.parent).step()
    found = dict(rows(database, "select key, value from tags where key like 'finetune.%' and key not in ('finetune.kind', 'finetune.key')"))
    assert (found["finetune.host"], found["finetune.pid"]) == (socket.gethostname(), str(os.getpid()))
