"""Processes are told apart, and stages find the pipeline they belong to."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from finetune.tracking.process import Pipeline, Process

ROOT = Path(__file__).resolve().parents[3]
KEY = "from finetune.tracking.process import Pipeline; print(Pipeline.current('train').key)"


def test_a_process_is_alive_until_it_is_not() -> None:
    child = subprocess.Popen(["sleep", "60"])
    found = Process.of(psutil.Process(child.pid))
    running = found.alive
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    zombie = found.alive
    child.wait()
    gone = found.alive
    assert (running, zombie, gone) == (True, False, False), "a zombie does nothing any more"


def test_a_pid_that_is_used_again_is_another_process() -> None:
    this = Process.of(psutil.Process())
    assert this.alive
    assert not replace(this, created=this.created - 60).alive


def test_processes_of_another_host_are_left_alone() -> None:
    assert Process("elsewhere", 1, 0.0).alive


def test_stages_of_one_dvc_share_a_pipeline_and_others_do_not(home: Path) -> None:
    dvc = home / "dvc"
    dvc.write_text(f"import subprocess, sys\nfor _ in range(2): subprocess.run(['sh', '-c', '{sys.executable} -c \"$CODE\"; true'])\n")

    def keys() -> list[str]:
        variables = {**os.environ, "CODE": KEY, "PYTHONPATH": str(ROOT)}
        return subprocess.run([sys.executable, str(dvc)], env=variables, capture_output=True, text=True, check=True).stdout.splitlines()

    first, second = keys(), keys()
    assert len(first) == len(second) == 2
    assert first[0] == first[1] != second[0] == second[1]


def test_an_experiment_gives_its_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = Pipeline.current("train")
    assert by_hand.name.startswith("train-")
    assert by_hand.process.pid == os.getpid()
    monkeypatch.setenv("DVC_EXP_NAME", "puffy-daks")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "0" * 40)
    experiment = Pipeline.current("train")
    assert (experiment.name, experiment.experiment, experiment.baseline) == ("puffy-daks", "puffy-daks", "0" * 40)
    assert experiment.key != by_hand.key


@pytest.mark.parametrize("options", [(), ("-X", "utf8"), ("-W", "ignore", "-X", "utf8")])
def test_dvc_is_known_however_python_was_told_to_run_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "dvc.py").write_text("import subprocess, sys\nsubprocess.run([sys.executable, '-c', sys.argv[1]], check=True)\n")
    ask = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from finetune.tracking import process; print(process.dvc().cmdline()[-1])"
    said = subprocess.run([sys.executable, *options, "-m", "dvc", ask], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout == f"{ask}\n"
