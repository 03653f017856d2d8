"""What a measurement leaves: benchmarks/results/<name>.json, with the raw samples and all that is needed to trust or doubt them.

`covers` names the files that decide the numbers, with their sha256: what the figure's module imports and runs (read from the source), the
files it declares in READS, and what ALWAYS names. When one of them changes, the result is stale. What only prints or judges is
not among them.
"""

import hashlib
import importlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import psutil

from finetune import outputs
from finetune.errors import SetupError
from tools.imports import constant, modules

Samples = dict[str, list[float]]

RESULTS = Path("benchmarks/results")
ALWAYS = ("conf", "dvc.yaml", "params.yaml", "requirements.lock", "Makefile")
LIBRARIES = ("torch", "transformers", "trl", "peft", "dvc", "mlflow")
QUIET = 0.5  # processes waiting for a core, by the system's average over a minute; above it times are too long


class Figure(Protocol):
    """A module benchmarks/<name>.py; it may also declare READS, further files and folders that decide its numbers."""

    def measure(self, root: Path) -> Samples:
        """Raw samples by name, measured on the repository at root."""


def result(name: str, root: Path) -> Path:
    """Where the result of a figure lies."""
    return root / RESULTS / f"{name}.json"


def measure(name: str, root: Path) -> Path:
    """Measure a figure on the commit that is checked out, and write its result.

    Raises:
        SetupError: the tree is not the commit, or became another while it was measured.
    """
    dirty = [path for path in changed(root) if not path.startswith(f"{RESULTS.as_posix()}/")]
    if dirty:
        raise SetupError("the tree differs from its commit:", dirty, "commit or remove them: a figure belongs to a commit")
    figure: Figure = importlib.import_module(f"benchmarks.{name}")
    before, around = covers(name, root), machine()
    samples = figure.measure(root)
    moved = differing(before, covers(name, root))
    if moved:
        raise SetupError(f"{name}: these files changed while it was measured:", moved, "measure it again")
    value = {
        "figure": name,
        "command": f"make figure-{name}",
        "commit": _git(root, "rev-parse", "HEAD").strip(),
        "machine": around,
        "versions": {"python": platform.python_version(), **{library: version(library) for library in LIBRARIES}},
        "samples": samples,
        "covers": before,
    }
    outputs.write_json(result(name, root), value)
    return result(name, root)


def read(name: str, root: Path) -> dict[str, Any] | None:
    """The result of a figure; None when it was never measured."""
    file = result(name, root)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def covers(name: str, root: Path) -> dict[str, str]:
    """sha256 of each file that decides a figure's numbers, by its path."""
    files = set(modules(f"benchmarks.{name}", root))
    reads = {path for module in files if module.parts[0] == "benchmarks" for path in constant(root / module, "READS")}
    files |= {file.relative_to(root) for path in (*ALWAYS, *sorted(reads)) for file in _files(root / path)}
    return {file.as_posix(): hashlib.sha256((root / file).read_bytes()).hexdigest() for file in sorted(files)}


def differing(then: dict[str, str], now: dict[str, str]) -> list[str]:
    """Paths whose bytes differ, or that are on one side only."""
    return sorted(path for path in then.keys() | now.keys() if then.get(path) != now.get(path))


def changed(root: Path) -> list[str]:
    """Paths by which the tree differs from its commit, untracked files included."""
    return [line[3:] for line in _git(root, "status", "--porcelain", "--untracked-files=all").splitlines()]


def machine() -> dict[str, Any]:
    """What the times depend on; neither host name nor path."""
    processor = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return {
        "cpu": processor[1] if processor else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def _files(path: Path) -> Iterable[Path]:
    """The file, or the files of the folder that are not caches; a path that is not there is refused."""
    if not path.exists():
        raise SetupError("a file that decides a figure is missing:", [path.name])
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and file.suffix != ".pyc"]


def _git(root: Path, *arguments: str) -> str:
    """Standard output of git in the repository."""
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        raise SetupError(f"git {arguments[0]} failed:", error.stderr.splitlines(), "a figure belongs to a commit of a repository") from None
