"""What must be so before any stage imports anything: the right Python, variables that libraries read once, Ctrl-C in one line.

Standard library only, in syntax that old Pythons read: it may be started by any of them.
"""

import gc
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

NEEDED = ("dvc", "hydra", "mlflow", "peft", "pydantic", "torch", "transformers", "trl")  # found, not imported: 1 ms

DEFAULTS = {
    "OMP_WAIT_POLICY": "PASSIVE",  # a step took 8.7 s beside a busy process; without it five steps did not end in 280 s
    "TOKENIZERS_PARALLELISM": "false",  # else a warning at each fork
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "DO_NOT_TRACK": "1",
}


def wrong_python(home: Path) -> str:
    """Why this Python can't run a stage, and what to type; empty if it can.

    `home` is the user's repository. Without a .venv there (a GPU machine with packages of its own) any Python that has them will do.
    """
    environment = home / ".venv"
    version = ".".join(str(part) for part in sys.version_info[:3])
    if environment.is_dir() and Path(sys.prefix).resolve() != environment.resolve():
        return (
            f"This is {sys.executable} ({version}), not the environment's Python, {environment}/bin/python: "
            f'run `make run`, or first `export PATH="{environment}/bin:$PATH"`.'
        )
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        return f"This is {sys.executable} ({version}), and it lacks {', '.join(missing)}: run `make setup` in {home}."
    return ""


def end_at_once(told: int, _: object) -> None:
    """Say in one line that nothing began, and end: imports turn KeyboardInterrupt into errors of their own, a traceback and status 1."""
    os.write(2, b"interrupted before the stage began; the same command starts it again\n")
    os._exit(128 + told)  # what shells report of a signal


# sys.argv[0] is "-m" while Python looks for the module to run, and a path later: an import of this package alone changes nothing.
# A job in the background ignores SIGINT, and goes on doing so. finetune/config/stage.py takes both over when the work begins.
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, end_at_once)
if sys.argv[0] == "-m":
    signal.signal(signal.SIGTERM, end_at_once)

_problem = wrong_python(Path(os.environ.get("DVC_ROOT") or Path(__file__).resolve().parents[1]))
if _problem:
    sys.exit(_problem)

from finetune import instructions  # noqa: E402  # standard library too, but in this Python's syntax

_problem = instructions.pin(Path("params.yaml"), sys.argv[1:])
if _problem:
    sys.exit(_problem)

for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)

gc.disable()  # it walked through all of torch again and again, 1 of 4.4 s of imports; the decorator of each stage turns it on again
