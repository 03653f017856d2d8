"""Photograph MLflow's comparison of the last two pipelines of this repository: python -m tools.picture docs/images/mlflow-compare.png

A real browser, so that the picture is what people see: Debian's chromium, headless.
"""

import contextlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from finetune import paths
from finetune.errors import SetupError

WIDTH, HEIGHT = 1280, 2040
# MLflow opens its assistant over a third of the page when the address is the loopback's, and people close it once: another name for it
NAME = "10.0.0.1"
PATIENCE = 120  # seconds that MLflow has to answer


def compare(database: Path) -> str:
    """The page that compares the last two pipelines, as the part of MLflow's address behind the host."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        found = connection.execute(
            """select runs.run_uuid, runs.experiment_id from runs join tags on tags.run_uuid = runs.run_uuid
            where tags.key = 'finetune.kind' and tags.value = 'pipeline' and runs.status = 'FINISHED'
            order by runs.start_time desc limit 2"""
        ).fetchall()
    if len(found) < 2:
        problem = f"{database} has {len(found)} finished pipelines, expected two"
        raise SetupError("nothing to compare:", [problem], "run `dvc repro`, then `dvc exp run -S train.r=32`")
    runs, experiments = ([str(row[column]) for row in reversed(found)] for column in (0, 1))
    query = {"runs": json.dumps(runs), "experiments": json.dumps(sorted(set(experiments)))}
    return f"/#/compare-runs?{urllib.parse.urlencode(query)}"


def photograph(page: str, picture: Path) -> str:
    """Serve MLflow as `finetune ui` does, save the page as a picture of WIDTH pixels, and return its HTML as the browser built it.

    Raises:
        SetupError: there is no chromium.
    """
    browser = shutil.which("chromium")
    if browser is None:
        raise SetupError("no browser:", ["found no chromium on the path"], "run `apt-get install chromium`")
    picture.parent.mkdir(parents=True, exist_ok=True)
    with _mlflow() as address, tempfile.TemporaryDirectory() as profile:
        # time goes as fast as the page has something to do, until it has been idle for so many milliseconds
        words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        words += [f"--host-resolver-rules=MAP {NAME} 127.0.0.1", f"--window-size={WIDTH},{HEIGHT}", "--virtual-time-budget=30000"]
        words += [f"--screenshot={picture.resolve()}", "--dump-dom"]
        return subprocess.run([*words, address + page], capture_output=True, text=True, check=True, timeout=300).stdout


@contextlib.contextmanager
def _mlflow() -> Iterator[str]:
    """The address of `finetune ui` on a free port, from when it answers to the end of the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "finetune", "ui", "--port", str(port)]
    address = f"http://{NAME}:{port}"
    environment = {**os.environ, "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": address}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        end = time.monotonic() + PATIENCE
        while not _answers(f"http://127.0.0.1:{port}"):
            if time.monotonic() > end or process.poll() is not None:
                raise SetupError("MLflow does not answer:", [f"waited {PATIENCE} s for {address}"], "see what `finetune ui` says")
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    photograph(compare(paths.home() / "mlflow.db"), Path(sys.argv[1]))
