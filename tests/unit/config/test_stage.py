"""A stage starts with its own sections of params.yaml, typed, and ends with a status and a sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

from finetune.config.compose import write_params
from finetune.config.stage import cut, stage
from tests.conftest import ROOT, Compose


def start(stage: str, *overrides: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a stage as a user does and return what it printed."""
    return subprocess.run([sys.executable, "-m", f"stages.{stage}", *overrides], cwd=folder, capture_output=True, text=True, check=False)


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
