"""Figures are judged on raw samples and on the files that decide them; measured only on a commit."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import figures, pipeline, record, watching
from benchmarks.judging import Bound, Figure, Quantity, Verdict, judge, read_asked
from benchmarks.record import Samples
from finetune.errors import SetupError
from tools.imports import modules

ROOT = Path(__file__).resolve().parents[2]
MACHINERY = {"figures", "judging", "record", "watching", "idle", "mapping", "arithmetic"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one figure, `speed`, that imports finetune.used and runs the stages."""
    files = {
        "benchmarks/speed.py": 'import finetune.used\nLOADED = ("stages",)\nREADS = ("pyproject.toml",)\n',
        "finetune/__init__.py": "",
        "finetune/used.py": "import finetune.deeper\n",
        "finetune/deeper.py": "",
        "finetune/unrelated.py": "",
        "stages/train.py": "",
        "conf/config.yaml": "seed: 17\n",
        "dvc.yaml": "stages: {}\n",
        "params.yaml": "seed: 17\n",
        "requirements.lock": "torch==2.13.0\n",
        "Makefile": "",
        "pyproject.toml": "",
        "README.md": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def commit(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, committed, with a figure that measures 1 second."""
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "as it is")
    monkeypatch.setitem(sys.modules, "benchmarks.speed", SimpleNamespace(measure=lambda _: {"seconds": [1.0]}))
    return root


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)


def measured(root: Path, **samples: list[float]) -> None:
    """Leave a result of `speed` as of the files that are there."""
    file = record.result("speed", root)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"samples": samples, "covers": record.covers("speed", root)}))


def verdict(root: Path, *bounds: dict[str, Any], **more: Any) -> Verdict:
    return judge("speed", Figure(issue=2, asks="speed", bounds=[Bound(**bound) for bound in bounds], **more), root)


AT_MOST_2: dict[str, Any] = {"what": "speed", "sample": "seconds", "at_most": 2}


def test_a_result_that_keeps_its_bounds_is_ok(root: Path) -> None:
    measured(root, seconds=[1.0, 2.0])
    assert verdict(root, AT_MOST_2).state == "OK"


def test_a_result_that_breaks_a_bound_is_short_with_both_numbers(root: Path) -> None:
    measured(root, seconds=[1.0, 2.5])
    found = verdict(root, AT_MOST_2)
    assert (found.state, found.lines[0].found, found.lines[0].bound) == ("SHORT", 2.5, 2)


def test_a_figure_without_a_result_is_missing(root: Path) -> None:
    assert verdict(root, AT_MOST_2).state == "MISSING"


def test_a_result_without_a_sample_that_is_asked_for_is_missing(root: Path) -> None:
    measured(root, minutes=[1.0])
    assert verdict(root, AT_MOST_2).state == "MISSING"
    measured(root, seconds=[1.0])
    assert verdict(root, AT_MOST_2, shown=["minutes"]).state == "MISSING"


@pytest.mark.parametrize(
    "file",
    [
        "finetune/deeper.py",
        "conf/config.yaml",
        "requirements.lock",
        "dvc.yaml",
        "params.yaml",
        "pyproject.toml",
        "Makefile",
        "stages/train.py",
    ],
)
def test_a_change_of_a_file_that_decides_the_number_makes_it_stale(root: Path, file: str) -> None:
    measured(root, seconds=[1.0])
    (root / file).write_text("# changed\n")
    found = verdict(root, AT_MOST_2)
    assert (found.state, found.changed) == ("STALE", [file])


def test_a_file_that_came_or_went_makes_it_stale(root: Path) -> None:
    measured(root, seconds=[1.0])
    (root / "stages/dpo.py").write_text("")
    (root / "conf/config.yaml").rename(root / "conf/other.yaml")
    assert verdict(root, AT_MOST_2).changed == ["conf/config.yaml", "conf/other.yaml", "stages/dpo.py"]


def test_a_change_of_another_file_does_not(root: Path) -> None:
    measured(root, seconds=[1.0])
    (root / "README.md").write_text("changed\n")
    (root / "finetune/unrelated.py").write_text("# changed\n")
    assert verdict(root, AT_MOST_2).state == "OK"


@pytest.mark.parametrize(
    ("bound", "state"),
    [
        ({"statistic": "median", "at_most": 2}, "OK"),
        ({"at_most": 2}, "SHORT"),
        ({"at_least": 1}, "OK"),
        ({"above": 1}, "SHORT"),
        ({"statistic": "sum", "at_least": 9}, "OK"),
        ({"statistic": "mean", "at_most": 3}, "OK"),
        ({"statistic": "median", "at_most": {"sample": "other", "times": 3}}, "OK"),
        ({"statistic": "median", "at_most": {"sample": "other", "statistic": "max", "plus": -0.5}}, "SHORT"),
    ],
)
def test_bounds_compare_a_statistic_with_a_number_or_another_statistic(root: Path, bound: dict[str, Any], state: str) -> None:
    measured(root, seconds=[1.0, 2.0, 6.0], other=[0.7, 1.0])
    assert verdict(root, {"what": "speed", "sample": "seconds", **bound}).state == state


def test_two_points_below_are_two_points_below_in_binary_too() -> None:
    assert Quantity(sample="exact", plus=-0.02).of({"exact": [0.76]}) == 0.74


def test_a_bound_compares_once() -> None:
    with pytest.raises(ValueError, match="exactly one of at_most, at_least, above"):
        Bound(what="speed", sample="seconds", at_most=1, at_least=0)


def test_a_figure_measured_by_another_reads_that_result(root: Path) -> None:
    measured(root, seconds=[1.0])
    asked = Figure(issue=2, asks="also", measured_by="speed", bounds=[Bound(**AT_MOST_2)])
    assert judge("quality", asked, root).state == "OK"


def test_measuring_leaves_all_that_is_needed_and_neither_host_nor_path(commit: Path) -> None:
    text = record.measure("speed", commit).read_text()
    value = json.loads(text)
    assert value.keys() == {"figure", "command", "commit", "machine", "versions", "samples", "covers"}
    assert value["samples"] == {"seconds": [1.0]}
    assert len(value["commit"]) == 40
    assert value["versions"].keys() >= {"python", "torch", "trl", "dvc"}
    assert value["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert socket.gethostname() not in text
    assert str(commit) not in text
    assert verdict(commit, AT_MOST_2).state == "OK"


def test_measuring_again_beside_other_results_is_not_a_dirty_tree(commit: Path) -> None:
    record.measure("speed", commit)
    record.measure("speed", commit)


@pytest.mark.parametrize("file", ["finetune/unrelated.py", "new.txt"])
def test_a_tree_that_is_not_its_commit_is_refused(commit: Path, file: str) -> None:
    (commit / file).write_text("changed\n")
    with pytest.raises(SetupError, match=rf"(?s)the tree differs from its commit.*{file}"):
        record.measure("speed", commit)
    assert record.read("speed", commit) is None


def test_a_file_that_changes_meanwhile_is_noticed(commit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(root: Path) -> Samples:
        (root / "finetune/used.py").write_text("# changed\n")
        return {"seconds": [1.0]}

    monkeypatch.setitem(sys.modules, "benchmarks.speed", SimpleNamespace(measure=measure))
    with pytest.raises(SetupError, match=r"(?s)changed while it was measured.*finetune/used.py"):
        record.measure("speed", commit)


def test_a_folder_without_git_is_refused(root: Path) -> None:
    with pytest.raises(SetupError, match="a figure belongs to a commit"):
        record.measure("speed", root)


def test_every_figure_asked_for_has_a_module_and_the_other_way_round() -> None:
    asked = read_asked(ROOT / figures.ASKED)
    measuring = {figure.measured_by or name for name, figure in asked.items()}
    assert measuring == {file.stem for file in (ROOT / "benchmarks").glob("*.py")} - MACHINERY
    assert len(asked) == 19
    for name in measuring:
        assert "def measure(root: Path) -> Samples:" in (ROOT / f"benchmarks/{name}.py").read_text()


def test_figures_of_runs_cover_the_stages_and_not_what_only_prints() -> None:
    for name in ("pipeline", "smoke", "overhead"):
        files = modules(f"benchmarks.{name}", ROOT)
        assert Path("finetune/config/schema.py") in files
        assert Path("benchmarks/figures.py") not in files
        assert Path("benchmarks/judging.py") not in files


@pytest.mark.parametrize(("samples", "status"), [({"seconds": [1.0]}, 0), ({"seconds": [3.0]}, 1)])
def test_the_command_judges_and_says_it_by_its_status(
    root: Path, samples: Samples, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / figures.ASKED).write_text(json.dumps({"speed": {"issue": 2, "asks": "speed", "bounds": [AT_MOST_2]}}))
    measured(root, **samples)
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as ended:
        figures.main()
    assert ended.value.code == status
    assert ("SHORT" if status else "OK") in capsys.readouterr().out


def test_a_number_below_a_thousandth_is_not_shown_as_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured(root, seconds=[4.8e-7])
    figures.show([verdict(root, {**AT_MOST_2, "at_most": 1e-5})])
    shown = capsys.readouterr().out
    assert "4.8e-07" in shown
    assert "≤ 1e-05" in shown


def test_the_command_names_the_files_that_made_a_figure_stale(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured(root, seconds=[1.0])
    (root / "finetune/deeper.py").write_text("# changed\n")
    figures.show([verdict(root, AT_MOST_2)])
    shown = capsys.readouterr().out
    assert "STALE" in shown
    assert "changed: finetune/deeper.py" in shown
    assert "make figure-speed" in shown


def test_the_command_measures_one_and_judges_what_its_run_serves(commit: Path) -> None:
    asked = {"speed": Figure(issue=2, asks="", bounds=[]), "quality": Figure(issue=2, asks="", measured_by="speed", bounds=[])}
    assert figures.measure("quality", {**asked, "other": Figure(issue=2, asks="", bounds=[])}, commit) == asked
    with pytest.raises(SetupError, match="found sped, expected one of speed, quality"):
        figures.measure("sped", asked, commit)


WATCHED = """
import os, subprocess, sys
work = "import sys, time; kept = bytearray(40 << 20); time.sleep(float(sys.argv[1]))"
for stage, seconds in (("prepare", "0.6"), ("train", "1.2")):
    subprocess.run([sys.executable, "-c", work, seconds], env={**os.environ, "DVC_STAGE": stage})
sys.exit(int(sys.argv[1]))
"""


def test_watching_gives_each_stage_its_seconds_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_stages", lambda _: ["prepare", "train"])
    watched = watching.watch(tmp_path, sys.executable, "-c", WATCHED, "0")
    assert list(watched.started) == ["prepare", "train"]
    assert watched.total > watched.seconds("prepare") + watched.seconds("train") - 2 * watching.LOOK
    assert watched.seconds("train") > 1.2 - 2 * watching.LOOK
    assert min(watched.peak.values()) > 40 / 1024


def test_watching_a_command_that_fails_or_leaves_stages_out_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_stages", lambda _: ["prepare", "train", "dpo"])
    with pytest.raises(SetupError, match="failed with exit status 3"):
        watching.watch(tmp_path, sys.executable, "-c", WATCHED, "3")
    says = "import sys; print(*range(50), sep='\\n'); sys.exit(4)"
    for run in (watching.watch, watching.call):
        with pytest.raises(SetupError, match=r"failed with exit status 4:\n  40\n(.*\n)*  49$"):
            run(tmp_path, sys.executable, "-c", says)
    with pytest.raises(SetupError, match=r"(?s)did not run all of 3 stages.*dpo"):
        watching.watch(tmp_path, sys.executable, "-c", WATCHED, "0")


def test_seconds_that_no_line_of_the_budget_has_are_overhead() -> None:
    stages = ["check", "prepare", "format", *(stage for line in pipeline.LINES.values() for stage in line)]
    watched = watching.Watched(total=200.0)
    for second, stage in enumerate(stages):
        watched.started[stage], watched.ended[stage], watched.peak[stage] = second, second + 10.0, 1.0
    samples = pipeline.costs(watched, dict.fromkeys(stages, 2.0))
    working = len(stages) - 3
    assert samples["line.dpo"] == [20.0]
    assert samples["line.overhead"] == [200.0 - working * 10.0 + working * 2.0]
