"""A stage starts with its own sections of params.yaml, typed, and ends with a status and a sentence."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.config.compose import write_params
from finetune.config.stage import AGAIN, cut, stage
from tests.conftest import ROOT, Compose

# sitecustomize.py of a stage that sends itself SIGINT, as a terminal would, or another signal, where it imports a module or opens a file
INTERRUPT = """
import os, signal, sys
def interrupt(event, args):
    if event in ("import", "open") and str(args[0]) == os.environ["MOMENT"]:
        os.kill(os.getpid(), getattr(signal, os.environ.get("SIGNAL", "SIGINT")))
sys.addaudithook(interrupt)
"""


def start(stage: str, *overrides: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a stage as a user does and return what it printed."""
    return subprocess.run([sys.executable, "-m", f"stages.{stage}", *overrides], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def interrupt_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`interrupt_at("torch")`: stages started from here on get SIGINT at that import, or at the opening of that file."""
    folder = tmp_path / "interrupt"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(INTERRUPT)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return lambda moment: monkeypatch.setenv("MOMENT", moment)


@pytest.fixture
def prepared(repository: Path) -> Path:
    """A copy of the repository whose params.yaml is the tiny experiment without tracking."""
    write_params(["experiment=tiny", "tracking=off"], root=repository)
    return repository


def test_a_stage_sees_its_own_sections_and_tracking_alone(compose: Compose) -> None:
    config = cut(compose(), ("seed", "train"))
    assert (config.seed, config.train.method, config.tracking.enabled) == (17, "lora", False)
    with pytest.raises(AttributeError, match="dpo"):
        _ = config.dpo


def test_the_mark_is_what_dvc_yaml_has_to_list() -> None:
    @stage("seed", "train")
    def main(cfg: object) -> None: ...

    assert main.sections == ("seed", "train")  # type: ignore[attr-defined]


def test_a_stage_never_reads_conf(prepared: Path) -> None:
    (prepared / "conf").rename(prepared / "elsewhere")
    done = start("prepare", folder=prepared)
    assert (done.returncode, (prepared / "reports/prepare.json").is_file()) == (0, True), done.stderr


def test_overrides_of_a_stage_are_checked_like_any_setting(prepared: Path) -> None:
    done = start("prepare", "data.train=0", "prepare.min_records=x", folder=prepared)
    assert done.returncode == 1
    assert (
        "prepare: 2 settings refused:\n  data.train: found 0, expected greater than or equal to 1\n  prepare.min_records: found 'x'"
        in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_a_stage_leaves_no_files_but_its_outs(prepared: Path) -> None:
    def files() -> set[str]:
        names = {path.relative_to(prepared).as_posix() for path in prepared.rglob("*") if path.is_file()}
        return {name for name in names if not name.startswith(".git/") and "__pycache__" not in name}

    before = files()
    assert start("prepare", folder=prepared).returncode == 0
    new = files() - before
    assert len(new) >= 6
    assert {name for name in new if not name.startswith("data/prepared/")} == {"reports/prepare.json"}


def test_check_refuses_an_edit_of_conf_with_the_remedy(prepared: Path) -> None:
    assert start("check", folder=prepared).returncode == 0
    with (prepared / "conf/train/lora.yaml").open("a") as opened:
        opened.write("# a word\n")
    done = start("check", folder=prepared)
    assert done.returncode == 1
    assert "conf/ and params.yaml have parted" in done.stderr
    assert "run `make params`" in done.stderr


def test_a_stage_started_elsewhere_says_where_it_belongs(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import runpy; runpy.run_module('stages.check', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "expected the root of the repository" in done.stderr


@pytest.mark.parametrize("moment", ["finetune", "torch.nn", "pyarrow.lib", "hydra._internal.config_loader_impl"])
def test_ctrl_c_before_the_work_is_said_in_one_line(prepared: Path, interrupt_at: Callable[[str], None], moment: str) -> None:
    interrupt_at(moment)
    done = start("train", folder=prepared)
    says = "interrupted before the stage began; the same command starts it again\n"
    assert (done.returncode, done.stderr) == (130, says)


def test_sigterm_has_a_status_of_its_own_before_the_work_and_in_it(
    prepared: Path, interrupt_at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNAL", "SIGTERM")
    interrupt_at("torch.nn")
    done = start("train", folder=prepared)
    assert (done.returncode, done.stderr) == (143, "interrupted before the stage began; the same command starts it again\n")
    interrupt_at("conf/config.yaml")
    done = start("check", folder=prepared)
    assert (done.returncode, done.stderr) == (143, f"check: ended by SIGTERM; nothing half-written was kept, {AGAIN}\n")


def test_ctrl_c_in_the_work_is_said_in_one_line(prepared: Path, interrupt_at: Callable[[str], None]) -> None:
    interrupt_at("conf/config.yaml")
    done = start("check", folder=prepared)
    says = f"check: interrupted; nothing half-written was kept, {AGAIN}\n"
    assert (done.returncode, done.stderr) == (130, says)


def test_a_stage_in_the_background_goes_on_ignoring_ctrl_c(prepared: Path, interrupt_at: Callable[[str], None]) -> None:
    for moment in ("finetune", "conf/config.yaml"):
        interrupt_at(moment)
        command = f"trap '' INT; exec {sys.executable} -m stages.check"
        assert subprocess.run(command, shell=True, cwd=prepared, check=False).returncode == 0


def test_importing_the_stages_leaves_ctrl_c_alone() -> None:
    code = "import signal, stages; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    assert "stages" in sys.modules
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
