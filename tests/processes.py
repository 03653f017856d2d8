"""What tests of real processes wait for, and what they find in MLflow's database afterwards."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.tracking import spool


def until(done: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.1)


def sent(home: Path) -> bool:
    """Whether nothing waits to be sent."""
    return not spool.waiting(home)


def rows(database: Path, query: str) -> list[Any]:
    """What a query of MLflow's database gives."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        found = connection.execute(query).fetchall()
    connection.close()
    return found
