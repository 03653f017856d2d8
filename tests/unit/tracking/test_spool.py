"""A stage's side: everything it says is in a file at once, and nothing that happens to that file is the stage's concern."""

import json
import logging
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune import tracking
from finetune.tracking import spool
from finetune.tracking.spool import Spool, Writer
from tests.processes import until

from .conftest import settings

Start = Callable[..., "subprocess.Popen[str]"]


def kinds(path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (path / "events.jsonl").read_text().splitlines()]


def test_a_run_is_its_header_what_it_said_and_its_end(by_hand: Path) -> None:
    (by_hand / "curve.png").write_bytes(b"png")
    with tracking.run("train", settings()):
        tracking.metrics({"loss": 1.0}, step=3)
        tracking.params({"r": 16, "names": ["q", "v"]})
        tracking.artifact(Path("curve.png"), folder="figures")
        (by_hand / "curve.png").unlink()
        tracking.text("note.txt", "said", on="pipeline")
    (path,) = spool.waiting(by_hand)
    assert kinds(path) == ["start", "metrics", "metrics", "params", "artifact", "artifact", "metrics", "end"]
    assert (path / "artifacts/1/curve.png").read_bytes() == b"png"
    assert (path / "artifacts/2/note.txt").read_text() == "said"
    events = [event for event, _ in Spool(path).unsent()]
    assert events[3]["values"] == {"r": "16", "names": '["q", "v"]'}
    assert {"seconds", "peak_memory_gib"} <= events[-2]["values"].keys()
    assert events[-1]["status"] == "FINISHED"


@pytest.mark.parametrize(("error", "status"), [(ValueError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(1), "FAILED")])
def test_the_end_says_how_the_stage_ended(by_hand: Path, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), tracking.run("train", settings()):
        raise error
    (path,) = spool.waiting(by_hand)
    assert Spool(path).unsent()[-1][0]["status"] == status


@pytest.mark.parametrize("rank", ["", "1"])
def test_tracking_off_and_other_ranks_write_nothing(by_hand: Path, monkeypatch: pytest.MonkeyPatch, rank: str) -> None:
    monkeypatch.setenv("RANK", rank)
    with tracking.run("train", settings(enabled=bool(rank))):
        tracking.metrics({"loss": 1.0})
        tracking.params({"r": 1})
        tracking.tags({"a": "b"})
        tracking.text("a", "b")
        tracking.artifact(Path("nowhere"))
        tracking.dataset("none", Path("nowhere"))
        assert tracking.made_by() is None
        tracking.finish()
    assert spool.waiting(by_hand) == []


def test_a_full_disk_costs_one_line(by_hand: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tracking.run("train", settings()):
        assert tracking._open is not None
        assert tracking._open.spool._file is not None
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, tracking._open.spool._file)
        os.close(full)
        for step in range(5):
            tracking.metrics({"loss": 1.0}, step=step)
        tracking.text("note.txt", "said")
    assert [record.message for record in caplog.records if "No space left" in record.message] == [
        record.message for record in caplog.records
    ]
    assert len(caplog.records) == 1


def test_a_place_that_can_not_be_written_costs_one_line_a_reason(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / ".tracking").write_text("a file")
    with tracking.run("train", settings()):
        tracking.metrics({"loss": 1.0})
        tracking.text("note.txt", "said")
    assert ["tracking stopped" in caplog.messages[0], "no process" in caplog.messages[1]] == [True, True]
    assert len(caplog.messages) == 2


def test_what_can_not_be_said_is_named_and_the_rest_goes_on(by_hand: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tracking.run("train", settings()):
        tracking.artifact(Path("nowhere.png"))
        tracking.dataset("raw", Path("nowhere"))
        tracking.metrics({"loss": "much"})  # type: ignore[dict-item]
        tracking.metrics({"loss": 2.0})
    (path,) = spool.waiting(by_hand)
    assert Spool(path).unsent()[2][0]["values"] == {"loss": 2.0}
    assert [message.split()[0] for message in caplog.messages] == ["nowhere.png", "not", "not"]


def test_a_killed_stage_has_said_all_that_it_said(home: Path, start: Start) -> None:
    process = start(
        "train", "import time", "for n in range(50): tracking.metrics({'loss': n}, step=n)", "time.sleep(60)", uri="http://127.0.0.1:9"
    )
    until(lambda: any(kinds(path).count("metrics") == 51 for path in spool.waiting(home)))
    process.send_signal(signal.SIGKILL)
    process.wait()
    (path,) = spool.waiting(home)
    with (path / "events.jsonl").open("a") as lines:
        lines.write('{"event": "metr')
    found = Spool(path)
    assert len(found.unsent()) == 52
    assert not found.process.alive


def test_a_damaged_line_is_left_out(by_hand: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tracking.run("train", settings()):
        pass
    (path,) = spool.waiting(by_hand)
    with (path / "events.jsonl").open("a") as lines:
        lines.write("\0\0\0\n")
    assert Spool(path).unsent()[-1][0]["event"] == "end"
    assert "damaged" in caplog.text


def test_a_header_that_did_not_fit_leaves_no_spool(
    by_hand: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "write", lambda _file, data: len(data) // 2)
    writer = Writer(by_hand, "train", {"stage": "train"})
    writer.add("end")
    assert spool.waiting(by_hand) == []
    assert logging.WARNING in [record.levelno for record in caplog.records]
