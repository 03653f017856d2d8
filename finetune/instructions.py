"""The instruction set of all that computes on the CPU, by the setting `instructions`: so that another CPU model gives the same bytes.

Libraries look at the processor as they are loaded and take the widest instructions it has; wider ones add in another order. What tells
them otherwise are variables of the environment, read once. So stages/__init__.py calls `pin` before anything else is imported, and
finetune/config/stage.py calls `verify` when the settings have been read as all others are. Standard library only.
"""

import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.errors import SetupError

CPUINFO = Path("/proc/cpuinfo")
NATIVE = "native"
AVX2 = frozenset({"avx2", "fma"})
AVX512 = frozenset({"avx512vl", "avx512bw", "avx512dq", "fma"})  # what torch asks for before it uses it

_EVERYWHERE = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels: softmax and attention sum as many numbers at once as fit
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # products of 16-bit numbers
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # NumPy's exponentials and logarithms have others with AVX-512
}
# MKL multiplies matrices and takes exponentials; its AVX2 code asks who made the processor, its compatible code (SSE2) does not.
VARIABLES: Mapping[str, Mapping[str, str]] = {
    NATIVE: {},
    "avx2": {**_EVERYWHERE, "MKL_CBWR": "AVX2"},
    "compatible": {**_EVERYWHERE, "MKL_CBWR": "COMPATIBLE"},
}


def pin(params: Path, overrides: Sequence[str]) -> str:
    """Set the variables of the setting that a stage is about to read; return what this processor lacks for it, empty if nothing.

    It is looked for as a line of params.yaml and as a word of the command line, because nothing that reads YAML may be imported yet.
    """
    wanted = asked(params, overrides)
    variables = VARIABLES.get(wanted, {})  # an unknown word is refused with all other settings
    lacking = sorted(AVX2 - cpu_flags()) if variables else []
    if lacking:
        return (
            f"instructions: found {wanted!r}, and this processor ({platform.machine()}) lacks {', '.join(lacking)}; expected one that has "
            f"{' and '.join(sorted(AVX2))}; set instructions=native, whose bytes are those of this kind of processor alone"
        )
    os.environ.update(variables)
    return ""


def asked(params: Path, overrides: Sequence[str]) -> str:
    """The value of `instructions`: of the last override that sets it, else of params.yaml, else native."""
    lines = params.read_text(encoding="utf-8").splitlines() if params.is_file() else []
    found = [line.partition(":")[2].partition(" #")[0] for line in lines if line.startswith("instructions:")]
    found += [word.partition("=")[2] for word in overrides if re.match(r"\+{0,2}instructions=", word)]
    return found[-1].strip().strip("'\"") if found else NATIVE


def verify(wanted: str) -> None:
    """Refuse to compute otherwise than the settings say.

    Raises:
        SetupError: the variables are not those of the setting, or torch uses other instructions all the same.
    """
    pinned = {name for variables in VARIABLES.values() for name in variables}
    problems = [
        f"found {name}={os.environ.get(name)!r}, expected {value!r}"
        for name, value in VARIABLES[wanted].items()
        if os.environ.get(name) != value
    ]
    if wanted == NATIVE:
        problems = [f"found {name}={os.environ[name]!r}, expected none" for name in sorted(pinned) if name in os.environ]
    torch = sys.modules.get("torch")  # only stages that compute import it
    if wanted != NATIVE and torch is not None and (used := torch.backends.cpu.get_cpu_capability()) != "AVX2":
        problems.append(f"torch uses {used}, expected AVX2")
    if problems:
        raise SetupError(
            f"instructions={wanted} does not hold in this process:",
            problems,
            "they are set when a stage begins, from params.yaml or `instructions=…` on its command line: take them out of the environment",
        )


def widest(root: Path) -> str:
    """What torch calls the instructions that it uses on this processor in this repository; on another one than x86 its architecture.

    Also asked by processes that compute nothing and whose environment nobody set: they answer what a stage would.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return platform.machine()
    pinned = VARIABLES.get(asked(root / "params.yaml", sys.argv[1:]), {})
    wanted = os.environ.get("ATEN_CPU_CAPABILITY") or pinned.get("ATEN_CPU_CAPABILITY")
    if wanted:  # torch takes it by its word, and any other word for the default
        return wanted.upper() if wanted in ("avx2", "avx512") else "DEFAULT"
    flags = cpu_flags()
    return "AVX512" if flags >= AVX512 else "AVX2" if flags >= AVX2 else "DEFAULT"


def cpu() -> dict[str, str]:
    """What /proc/cpuinfo says of the first processor, by name; {} where there is no such file."""
    try:
        first = CPUINFO.read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}


def cpu_flags() -> frozenset[str]:
    """The names of what this processor can do."""
    return frozenset(cpu().get("flags", "").split())
