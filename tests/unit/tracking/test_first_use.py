"""Real processes: the first stages of a new repository, a database that is locked, a server that comes late, a sender's full disk."""

import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune import tracking
from finetune.tracking import sender, spool
from tests.processes import rows, sent, until

from .conftest import MLFLOW, ROOT, runs, settings, statuses

pytestmark = MLFLOW
Start = Callable[..., "subprocess.Popen[str]"]


def test_eight_stages_at_once_share_a_new_database(home: Path, start: Start) -> None:
    stages = [start(f"stage{number}", "tracking.metrics({'loss': 1.0})") for number in range(8)]
    assert [stage.wait() for stage in stages] == [0] * 8
    until(lambda: sent(home) and not sender.is_live(home))
    found = rows(home / "mlflow.db", "select name, status from runs where name not like '%-%'")
    assert sorted(found) == [(f"stage{number}", "FINISHED") for number in range(8)]
    assert rows(home / "mlflow.db", "select count(*) from experiments where name = 'finetune'") == [(1,)]
    assert rows(home / "mlflow.db", "select count(*) from metrics where key = 'loss'") == [(8,)]
    assert (home / ".tracking/sender.log").read_text() == ""


def test_a_locked_database_fails_no_stage_is_told_at_the_end_and_gets_everything(home: Path, start: Start, empty_database: Path) -> None:
    (home / "mlflow.db").write_bytes(empty_database.read_bytes())
    other = sqlite3.connect(home / "mlflow.db")
    other.execute("begin exclusive")
    stage = start("train", "tracking.metrics({'loss': 1.0})")
    assert stage.wait() == 0
    last = start("report", "tracking.finish()")
    said = last.communicate()[1]
    assert last.returncode == 0
    assert "1 run not in MLflow yet, kept in .tracking/spool and sent at the next chance: " in said
    troubles = [path / "trouble" for path in spool.waiting(home)]
    assert len(troubles) == 2
    until(lambda: all(path.exists() and "database is locked" in path.read_text() for path in troubles))
    other.rollback()
    other.close()
    until(lambda: sent(home) and not sender.is_live(home))
    ended = [("pipeline", "FINISHED"), ("report", "FINISHED"), ("train", "FINISHED")]
    assert statuses(home / "mlflow.db") == sorted([*ended, ("pipeline", "FINISHED")])  # each was started by hand, so each is a pipeline


@pytest.mark.slow
def test_a_server_that_comes_late_gets_everything(home: Path, start: Start) -> None:
    port = 5923
    uri = f"http://127.0.0.1:{port}"
    assert start("train", "tracking.metrics({'loss': 1.0})", uri=uri).wait() == 0
    until(lambda: not sender.is_live(home))
    assert "127.0.0.1" in (home / ".tracking/sender.log").read_text()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        "sqlite:///server.db",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    server = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until((home / "server.db").exists)
        later = start("dpo", "import time", "time.sleep(1)", uri=uri)
        assert "1 run not in MLflow yet" in later.communicate()[1]
        until(lambda: tracking.flush(home, 30) is None)
        assert {("train", "FINISHED"), ("dpo", "FINISHED")} < set(rows(home / "server.db", "select name, status from runs"))
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_a_disk_that_is_full_for_mlflow_keeps_the_spool(by_hand: Path) -> None:
    with tracking.run("train", settings()):
        tracking.metrics({"loss": 1.0})

    def send(largest_file: int) -> str:
        """What a sender says whose files may not grow beyond so many bytes."""
        words = [sys.executable, "-m", "finetune.tracking.send", str(by_hand)]
        limit = (largest_file, resource.RLIM_INFINITY)
        with (by_hand / ".tracking/other.lock").open("w") as lock:
            process = subprocess.Popen(words, stdin=lock, stderr=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)}, text=True)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limit)
            until(lambda: sent(by_hand) or any((path / "trouble").exists() for path in spool.waiting(by_hand)))
            process.terminate()
            return process.communicate()[1]

    assert "kept and sent at the next chance" in send(largest_file=100_000)
    assert not sent(by_hand)
    (path,) = spool.waiting(by_hand)
    (path / "trouble").unlink()
    send(largest_file=resource.RLIM_INFINITY)
    assert sent(by_hand)
    assert runs(by_hand / "mlflow.db") == {"pipeline": "RUNNING", "train": "FINISHED"}
