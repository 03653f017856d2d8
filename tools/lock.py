"""pyproject.toml → requirements.lock and requirements-gpu.lock, each package at one exact version.

    make lock                     keeps every version that still fits pyproject.toml
    make lock UPGRADE=1           takes the newest that fit
    make check-pythons            refuses locks that pyproject.toml, a Python or an architecture disagrees with

Wheels are never looked at, only their metadata. The GPU lock takes the versions of the CPU lock wherever they fit.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from finetune.environment import pins
from finetune.errors import SetupError

CPU, GPU = Path("requirements.lock"), Path("requirements-gpu.lock")
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")


def compile_cpu(out: Path, *options: str, python: str = PYTHONS[0], platform: str = PLATFORMS[0]) -> None:
    """Write the CPU lock to `out`; versions that stand there already are kept where they fit."""
    _compile(out, "--group", "cpu", "--python-version", python, "--python-platform", platform, *options)


def compile_gpu(out: Path, *options: str) -> None:
    """Write the GPU lock to `out`, with the versions of the CPU lock and then of `out` itself wherever they fit."""
    versions = (pins(out) if out.exists() else {}) | pins(CPU)
    out.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()), encoding="utf-8")
    _compile(out, "--extra", "gpu", "--python-version", "3.12", "--python-platform", PLATFORMS[0], *options)


def check() -> None:
    """Resolve pyproject.toml for every Python and architecture that it declares, starting from the locks.

    Raises:
        SetupError: a resolution is not the lock.
    """
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for python in PYTHONS:
            for platform in PLATFORMS:
                copy = Path(folder, f"{python}-{platform}")
                copy.write_bytes(CPU.read_bytes())
                compile_cpu(copy, python=python, platform=platform)
                wrong += _differences(CPU, copy, f"Python {python}, {platform}")
        copy = Path(folder, "gpu")
        copy.write_bytes(GPU.read_bytes())
        compile_gpu(copy)
        wrong += _differences(GPU, copy, "Python 3.12 with CUDA")
    if wrong:
        raise SetupError("pyproject.toml does not resolve to the locks:", wrong, "Run `make lock` and commit what it writes.")
    print(f"pyproject.toml resolves to {CPU} on Python {', '.join(PYTHONS)} ({len(pins(CPU))} packages), and to {GPU} ({len(pins(GPU))})")


def _compile(out: Path, *options: str) -> None:
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--group", "dev", "--output-file", str(out), "--quiet"]
    command += ["--no-annotate", "--custom-compile-command", "make lock", *options]
    environment = os.environ | {"UV_PYTHON_DOWNLOADS": "never"}  # metadata of a 3.12 is resolved by any Python
    resolved = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=environment)
    if resolved.returncode:
        raise SetupError(f"pyproject.toml does not resolve ({' '.join(options)}):", resolved.stdout.splitlines())


def _differences(lock: Path, resolved: Path, where: str) -> list[str]:
    before, after = pins(lock).items(), pins(resolved).items()
    return [f"{where}: {name}=={version} is not in {lock}" for name, version in sorted(after - before)] + [
        f"{where}: {name}=={version} of {lock} is not wanted" for name, version in sorted(before - after)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the locks are not what pyproject.toml resolves to")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    options = parser.parse_args()
    try:
        if options.check:
            check()
        else:
            upgrade = ["--upgrade"] if options.upgrade else []
            compile_cpu(CPU, *upgrade)
            compile_gpu(GPU, *upgrade)
            print(f"{CPU}: {len(pins(CPU))} packages, {GPU}: {len(pins(GPU))}")
    except SetupError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
