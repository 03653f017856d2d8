"""The environment .venv, made from a lock: `make setup` calls this whenever .venv was made from another one.

torch comes first and with its own requirements, because they differ between the CPU build and the CUDA builds that a registry may serve;
then the rest, exactly as locked and nothing else (`--no-deps`). What pip says is shown only when it fails.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path

from finetune.environment import LOCKS, pins
from finetune.errors import SetupError

ENVIRONMENT = Path(".venv")
PYTHON = ENVIRONMENT / "bin" / "python"
MADE_FROM = ENVIRONMENT / "installed"  # holds a copy of the lock, put there last
COMMAND = Path("tools/finetune.sh")
GPU = LOCKS[1]
CPU_PYTHONS, GPU_PYTHONS = ((3, 11), (3, 12), (3, 13)), ((3, 12),)


def make(lock: Path) -> None:
    """Make .venv hold what `lock` says, then look whether it does.

    Raises:
        SetupError: pip failed, or something is missing, of another version, or does not import.
    """
    wanted = pins(lock)
    stale = [name for before in MADE_FROM.glob("*.lock") for name in pins(before) if name not in wanted]
    shutil.rmtree(MADE_FROM, ignore_errors=True)
    usable = _version() == f"{sys.version_info[0]}.{sys.version_info[1]}"
    if not usable or not PYTHON.with_name("pip").exists():  # the last thing that venv writes
        _say(f".venv with Python {sys.version.split()[0]}")
        venv.create(ENVIRONMENT, with_pip=True, clear=not usable)
        stale = []
    if stale:
        _say(f"removing {len(stale)} packages that {lock.name} no longer has")
        _pip("uninstall", "--yes", *stale)
    _say(f"torch {wanted['torch']} with its requirements")
    _pip("install", "--constraint", str(lock), f"torch=={wanted['torch']}")
    _say(f"the rest of {len(wanted)} packages")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as rest:
        rest.writelines(f"{name}=={version}\n" for name, version in wanted.items() if name != "torch")
        rest.flush()
        _pip("install", "--no-deps", "--requirement", rest.name)
    _check(lock)
    shutil.copy(COMMAND, PYTHON.with_name("finetune"))
    MADE_FROM.mkdir()
    shutil.copy(lock, MADE_FROM)


def _version() -> str:
    """`3.11`, of the environment's Python; empty if there is none that runs."""
    try:
        return _run([str(PYTHON), "-c", "import sys; print(*sys.version_info[:2], sep='.')"]).stdout.strip()
    except OSError:
        return ""


def _check(lock: Path) -> None:
    _say("checking it")
    compared = _run([str(PYTHON), "-m", "tools.environment", str(lock)])
    if compared.returncode:
        raise SetupError(".venv is not as locked:", compared.stdout.splitlines(), "Run `rm -r .venv` and then `make setup`.")
    _say(compared.stdout.strip())


def _pip(*arguments: str) -> None:
    """Run the environment's pip, showing how many packages it has collected where someone is looking."""
    command = [str(PYTHON), "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"]
    said: list[str] = []
    collected = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None  # it was asked for
        for line in process.stdout:
            said.append(line.rstrip())
            collected += line.startswith(("Collecting ", "Requirement already satisfied"))
            if sys.stderr.isatty():
                print(f"\r  {collected} collected{' · installing' * line.startswith('Installing')}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r", " " * 40, end="\r", file=sys.stderr)
    if process.returncode:
        remedy = "Is a package registry reachable? Is the disk full? Mend that and run `make setup` again."
        raise SetupError(f"`pip {arguments[0]}` failed:", said[-10:], remedy)


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def _say(what: str) -> None:
    print(f"setup: {what}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lock", type=Path)
    lock = parser.parse_args().lock
    pythons = GPU_PYTHONS if lock.name == GPU else CPU_PYTHONS
    if sys.version_info[:2] not in pythons:
        found, wanted = sys.version.split()[0], " or ".join(f"3.{minor}" for _, minor in pythons)
        sys.exit(f"setup: this is Python {found}, and {lock} is for {wanted}: name one, make setup LOCK={lock} PYTHON=/path/to/python")
    started = time.monotonic()
    try:
        make(lock)
    except SetupError as error:
        sys.exit(f"setup: {error}")
    except KeyboardInterrupt:
        sys.exit("\nsetup: interrupted; `make setup` goes on from here")
    _say(f"ready after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
