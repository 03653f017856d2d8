"""A stage ends when it is told to, and not before what it does is kept."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune import ending
from finetune.ending import Terminated
from tests.conftest import ROOT

# a program of this name is taken for dvc; it starts a stage's work and is then killed
DVC = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]])
child.wait()
"""
WORK = """
import sys, time
from pathlib import Path
from finetune import ending
note = Path(sys.argv[1])
try:
    with ending.heeded():
        note.write_text("begun")
        time.sleep(60)
except ending.Terminated as told:
    note.write_text(str(told))
"""

KEEPS = """
import sys, time
from pathlib import Path
from finetune import ending
note, kept = Path(sys.argv[1]), False
try:
    with ending.heeded(), ending.put_off() as told:
        note.write_text("begun")
        while not told():
            time.sleep(0.01)
        time.sleep(0.5)
        kept = True
except ending.Terminated:  # by what it was told first, SIGTERM or the death of dvc, is chance
    note.write_text("kept" if kept else "lost")
"""


def test_sigterm_ends_the_work_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ending.heeded(), pytest.raises(Terminated, match="SIGTERM"):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_put_off_it_ends_when_the_work_is_kept() -> None:
    done = []

    def work() -> None:
        with ending.put_off() as told:
            assert told() is None
            signal.raise_signal(signal.SIGTERM)
            assert told() == "SIGTERM"
            done.append("kept")

    with ending.heeded(), pytest.raises(Terminated, match="SIGTERM"):
        work()
    assert done == ["kept"]


def test_told_twice_at_once_as_timeout_does_is_told_once() -> None:
    done = []

    def work() -> None:
        with ending.put_off():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            done.append("kept")

    with ending.heeded(), pytest.raises(Terminated, match="SIGTERM"):
        work()
    assert done == ["kept"]


def test_told_again_later_it_ends_at_once_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "ONE", 0.0)

    def work() -> None:
        with ending.put_off():
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(Terminated):
                signal.raise_signal(signal.SIGTERM)

    with ending.heeded(), pytest.raises(Terminated):
        work()


def test_what_was_put_off_before_does_not_hold_up_what_follows() -> None:
    with ending.heeded(), ending.put_off():
        pass
    with ending.heeded(), pytest.raises(Terminated):
        signal.raise_signal(signal.SIGTERM)


def test_an_error_is_not_hidden_by_the_end() -> None:
    def work() -> None:
        with ending.put_off():
            signal.raise_signal(signal.SIGTERM)
            raise ValueError("mine")

    with ending.heeded(), pytest.raises(ValueError, match="mine"):
        work()


def waited_for(note: Path, text: str) -> None:
    end = time.monotonic() + 60
    while not note.is_file() or note.read_text() != text:
        assert time.monotonic() < end, note.read_text()
        time.sleep(0.02)


def test_a_stage_ends_with_the_dvc_that_started_it(tmp_path: Path) -> None:
    program, note = tmp_path / "dvc", tmp_path / "note"
    program.write_text(DVC)
    dvc = subprocess.Popen([sys.executable, str(program), WORK, str(note)], cwd=ROOT)
    waited_for(note, "begun")
    dvc.send_signal(signal.SIGKILL)
    dvc.wait()
    waited_for(note, ending.ORPHANED)


def test_sigterm_to_dvc_and_its_stage_lets_the_stage_keep_what_it_is_at(tmp_path: Path) -> None:
    program, note = tmp_path / "dvc", tmp_path / "note"
    program.write_text(DVC)
    dvc = subprocess.Popen([sys.executable, str(program), KEEPS, str(note)], cwd=ROOT, start_new_session=True)
    waited_for(note, "begun")
    os.killpg(dvc.pid, signal.SIGTERM)
    assert dvc.wait() == -signal.SIGTERM
    waited_for(note, "kept")


def test_a_stage_whose_dvc_died_before_it_began_does_not_begin(tmp_path: Path) -> None:
    note = tmp_path / "note"
    subprocess.run([sys.executable, "-c", WORK, str(note)], cwd=ROOT, env=os.environ | {"DVC_STAGE": "train"}, check=True)
    assert note.read_text() == ending.UNKNOWN
