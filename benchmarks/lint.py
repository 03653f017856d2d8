"""How many findings ruff and mypy have, and how many files ruff would format otherwise."""

import subprocess
from pathlib import Path

from benchmarks.record import Samples

LOADED = ("finetune", "stages", "hydra_plugins", "tools", "benchmarks", "tests")
READS = ("pyproject.toml",)
COMMANDS = {  # a finding each line that has the mark
    "ruff": (("ruff", "check", "--output-format=concise", "."), ":"),
    "format": (("ruff", "format", "--check", "."), "Would reformat"),
    "mypy": (("mypy", "--no-error-summary"), "error:"),
}


def measure(root: Path) -> Samples:
    """Run each once. A command that fails without a finding counts as one: it did not look."""
    samples: Samples = {}
    for name, (command, mark) in COMMANDS.items():
        done = subprocess.run((root / ".venv/bin" / command[0], *command[1:]), cwd=root, capture_output=True, text=True, check=False)
        findings = sum(mark in line for line in done.stdout.splitlines()) if done.returncode else 0
        samples[name] = [max(findings, int(done.returncode != 0))]
    return samples
