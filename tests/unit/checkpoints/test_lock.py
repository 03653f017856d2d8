"""Two processes never do one thing at once, and a dead one holds nothing up."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetune.checkpoints import lock
from finetune.errors import OutputError, SetupError
from tests.conftest import ROOT

HOLD = """
import sys, time
from pathlib import Path
from finetune.checkpoints.lock import held
with held(Path(sys.argv[1])), open(sys.argv[3], "a", buffering=1) as noted:
    noted.write("begun ")
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
    noted.write("done ")
"""


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`hold(lock, seconds)`: another process that holds it, or waits for it."""
    started = []

    def start(path: Path, seconds: float, wait: bool = True) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(path), str(seconds), str(tmp_path / "noted")]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(process)
        if wait:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_second_waits_and_says_for_whom(
    tmp_path: Path, hold: Callable[..., subprocess.Popen[str]], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "locks" / "train.lock"
    process = hold(path, 0.5)
    with lock.held(path):
        assert (tmp_path / "noted").read_text() == "begun done ", "it has ended what it did"
    assert f"waiting for process {process.pid} (-c" in caplog.text


@pytest.mark.parametrize("processes", ["1", "2"])
def test_who_may_not_wait_says_for_whom(
    tmp_path: Path, hold: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch, processes: str
) -> None:
    """Of several processes that train together none may: the others would time out."""
    monkeypatch.setenv("WORLD_SIZE", processes)
    path = tmp_path / "locks" / "train.lock"
    process = hold(path, 60)
    with pytest.raises(SetupError, match=rf"process {process.pid} \(-c"), lock.held(path, wait=processes == "2"):
        pass
    assert path.is_file(), "it is the other's"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuses)
    said = pytest.raises(OutputError, match=r"train\.lock: .*(disk is full|may not be written).*run the same command again")
    with said, lock.held(tmp_path / "train.lock"):
        pass


def test_a_lock_that_finds_no_room_for_a_name_is_held_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "train.lock"
    monkeypatch.setattr(os, "pwrite", full)
    with lock.held(path):
        assert path.read_bytes() == b""
        with pytest.raises(SetupError, match="another process"), lock.held(path, wait=False):
            pass


def test_a_killed_process_holds_nothing(tmp_path: Path, hold: Callable[..., subprocess.Popen[str]]) -> None:
    path = tmp_path / "locks" / "train.lock"
    process = hold(path, 60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert path.is_file()
    with lock.held(path):
        pass
    assert not path.parent.exists(), "nothing is left of it"


def test_of_many_one_at_a_time(tmp_path: Path, hold: Callable[..., subprocess.Popen[str]]) -> None:
    """Whoever is done removes the file, while others wait for that very file: none of them may take it for the lock."""
    path = tmp_path / "locks" / "train.lock"
    first = hold(path, 0.2)
    rest = [hold(path, 0.2, wait=False) for _ in range(3)]
    for process in (first, *rest):
        assert process.wait(timeout=60) == 0
    assert (tmp_path / "noted").read_text() == "begun done " * 4
    assert not path.parent.exists()


def test_an_error_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "train.lock"
    with pytest.raises(KeyboardInterrupt), lock.held(path):
        raise KeyboardInterrupt
    with lock.held(path):
        pass
