"""Work over processes comes back in its order, ends with the first error or death, and changes nothing by the number of processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune import workers
from finetune.errors import DataError, SetupError


def square(number: int) -> tuple[int, int]:
    time.sleep(0.01 * (number % 3))  # the later often end before the earlier
    return number * number, os.getpid()


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_results_come_in_the_order_of_the_items(processes: int) -> None:
    found = list(workers.each(range(20), square, processes))
    assert [value for value, _ in found] == [number * number for number in range(20)]
    assert len({process for _, process in found} - {os.getpid()}) == (processes if processes > 1 else 0)


@pytest.mark.parametrize("processes", [1, 2])
def test_nothing_comes_of_nothing(processes: int) -> None:
    assert list(workers.each([], str, processes)) == []


def test_little_work_stays_in_this_process() -> None:
    assert {process for _, process in workers.each(range(workers.WORTH_IT - 1), square, 2)} == {os.getpid()}


def test_large_items_and_results_do_not_block() -> None:
    items = [bytes(1 << 20)] * 9
    assert [len(result) for result in workers.each(items, lambda item: item + item, 2)] == [2 << 20] * 9


def test_an_error_is_raised_at_its_place() -> None:
    def work(number: int) -> int:
        if number == 5:
            raise DataError("unusable:", ["found 5"], "mend it", 7)
        return number

    results = workers.each(range(1_000), work, 2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match=r"unusable:\n.*found 5\n.*7 more\nmend it"):
        next(results)


def test_a_process_that_dies_is_told() -> None:
    def work(number: int) -> int:
        if number == 3:
            os._exit(9)
        return number

    with pytest.raises(SetupError, match=r"a process that shared the work ended .*\n.*\n.*format\.processes=1"):
        list(workers.each(range(9), work, 2))


def test_no_more_is_begun_than_is_waited_for() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = workers.each(items(), square, 2)
    next(results)
    assert len(taken) <= workers.AHEAD * 2 + 1
    results.close()  # type: ignore[attr-defined]


def test_none_outlives_a_parent_that_is_killed() -> None:
    script = (
        "import os, time\n"
        "from finetune import workers\n"
        "for pid in workers.each(range(99), lambda number: os.getpid(), 2):\n"
        "    print(pid, flush=True)\n"
        "    time.sleep(1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers_pids = {int(parent.stdout.readline()) for _ in range(2)}
        parent.send_signal(signal.SIGKILL)
    for _ in range(100):
        if not any(_runs(pid) for pid in workers_pids):
            return
        time.sleep(0.1)
    pytest.fail(f"still running: {workers_pids}")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
