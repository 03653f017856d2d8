"""The wiring of dvc.yaml is what the stages do: deps are the modules they import, params what they read, outs what they write."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import paths
from finetune.config.stage import EVERYWHERE
from tools.imports import PACKAGES, TRACKING, Stage, modules, pipeline

ROOT = Path(__file__).resolve().parents[2]
LOCKS = {"requirements.lock", "requirements-gpu.lock"}
STAGES = pipeline(ROOT)
NAMES = ["check", "prepare", "format", "train", "reference", "dpo", "answer", "evaluate", "export", "report"]
every_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)


def written(stage: Stage) -> list[str]:
    """Outs and metrics, those of a foreach stage for each of its models."""
    return [out.replace("${key}", key) for out in (*stage.listed("outs"), *stage.listed("metrics")) for key in ("base", "train", "dpo")]


def calls(file: Path, name: str) -> list[ast.Call]:
    """Calls of a function by its name, also as a decorator or by `module.name`."""
    nodes = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
    return [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name]


def test_all_stages_are_seen() -> None:
    assert [stage.name for stage in STAGES] == NAMES
    assert {f"stages/{name}.py" for name in (*NAMES, "__init__")} == {
        file.relative_to(ROOT).as_posix() for file in (ROOT / "stages").glob("*.py")
    }


@every_stage
def test_a_stage_runs_the_module_of_its_name(stage: Stage) -> None:
    assert stage.module == f"stages.{stage.name}"


@every_stage
def test_deps_are_the_modules_that_a_stage_imports(stage: Stage) -> None:
    listed = [dep for dep in stage.listed("deps") if dep.endswith(".py")]
    imported = [path.as_posix() for path in modules(stage.module, ROOT, TRACKING)]
    assert listed == imported, "run `python -m tools.imports --write`"
    assert f"stages/{stage.name}.py" in imported


@every_stage
def test_no_stage_depends_on_tracking_and_only_the_last_on_launch_which_it_tells(stage: Stage) -> None:
    assert not [dep for dep in stage.listed("deps") if dep.startswith("finetune/tracking")]
    assert {"tracking", "launch"} & set(stage.listed("params")) == ({"launch"} if stage.name == "report" else set())


@every_stage
def test_params_are_the_sections_that_a_stage_reads(stage: Stage) -> None:
    (marked,) = calls(Path(f"stages/{stage.name}.py"), "stage")
    assert [ast.literal_eval(section) for section in marked.args] == stage.listed("params")


# check reads the fingerprint by itself, and report tells MLflow of every section that it is given, whichever are listed
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage.name not in ("check", "report")], ids=lambda stage: stage.name)
def test_a_stage_reads_every_section_that_is_listed_for_it(tiny: tuple[Path, dict[str, set[str]]], stage: Stage) -> None:
    assert tiny[1][stage.name] - set(EVERYWHERE) == set(stage.listed("params")) - {"threads", "instructions"}  # which run() sees to


@every_stage
def test_what_a_stage_writes_is_a_path_of_ours_that_its_modules_name(stage: Stage) -> None:
    named: set[Path] = set()
    for file in modules(stage.module, ROOT, TRACKING):
        attributes = (node for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute))
        values = [getattr(paths, node.attr) for node in attributes if ast.unparse(node.value) == "paths" and hasattr(paths, node.attr)]
        named |= {value for value in values if isinstance(value, Path)}
        named |= {paths.metrics(ast.literal_eval(call.args[0])) for call in calls(file, "metrics") if _literal(call)}
    for out in map(Path, written(stage)):
        assert named & {out, *out.parents}, f"{out} is named by no module of the stage"


@every_stage
def test_stages_that_compute_depend_on_both_locks(stage: Stage) -> None:
    assert LOCKS & set(stage.listed("deps")) == (set() if stage.name == "check" else LOCKS)


@every_stage
def test_data_that_a_stage_reads_is_in_the_repository_or_written_before(stage: Stage) -> None:
    before = [Path(out) for earlier in STAGES[: STAGES.index(stage)] for out in written(earlier)]
    if stage.name == "answer":  # reads what its foreach names
        read = [path for item in stage.foreach.values() for path in item.values()]
    else:
        read = [dep for dep in stage.listed("deps") if not dep.endswith(".py")]
    for dep in map(Path, read):
        made = any(dep.is_relative_to(out) or out.is_relative_to(dep) for out in before)
        assert made or (ROOT / dep).exists(), f"{dep} is neither in the repository nor written by an earlier stage"


def test_the_stages_write_their_outs_and_nothing_else(tiny_run: Path) -> None:
    outs = [Path(out) for stage in STAGES if stage.name != "report" for out in written(stage)]
    assert [out for out in outs if not (tiny_run / out).exists()] == []
    files = [
        file.relative_to(tiny_run) for folder in ("data", "models", "reports") for file in (tiny_run / folder).rglob("*") if file.is_file()
    ]
    assert len(files) > len(set(outs))
    assert [file for file in files if not any(file.is_relative_to(out) for out in outs) and not file.is_relative_to(paths.RAW)] == []


@pytest.mark.slow
def test_what_python_loads_is_what_reading_the_source_finds() -> None:
    read = {path.as_posix() for stage in STAGES for path in modules(stage.module, ROOT)}
    program = (
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(json.dumps([module.__file__ for module in list(sys.modules.values()) if getattr(module, '__file__', None)]))"
    )
    command = [sys.executable, "-c", program, *(stage.module for stage in STAGES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    files = [Path(file) for file in json.loads(done.stdout.splitlines()[-1])]
    loaded = {
        file.relative_to(ROOT).as_posix() for file in files if file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[0] in PACKAGES
    }
    assert len(loaded) > len(NAMES)
    assert loaded - read == set()


def _literal(call: ast.Call) -> bool:
    return bool(call.args) and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
