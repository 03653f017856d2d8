"""Whether the newest models lie anywhere but on this disk: DVC asks its remote, within a limit, and nothing is sent."""

import json
import subprocess
import sys
from pathlib import Path

from finetune import paths
from finetune.tracking import hashes

LIMIT = 20.0  # seconds that the remote may take to answer
STAGES = {"train": paths.TRAIN, "dpo": paths.DPO, "export": paths.EXPORT}
HOW = "`dvc remote add --local -d backup <folder, or s3://bucket/path>` names a place for copies, `dvc push` sends them (docs/backups.md)"


def remark(limit: float = LIMIT) -> str | None:
    """What to say of the models that dvc.lock names and no remote has; None where there is nothing to say, as before any was made."""
    locked = hashes.known(hashes.read())
    made = {stage: path for stage, path in STAGES.items() if path.as_posix() in locked}
    here = [path for path in made.values() if Path(path).is_dir()]
    if _dvc("config", "core.remote", limit=limit) == "":
        return f"{_names(here)} {_have(here)} no copy elsewhere: no remote is set up. {HOW}" if here else None
    if not made:
        return None
    answered = _dvc("status", "--cloud", "--json", *made, limit=limit)
    try:
        status = json.loads(answered)
    except ValueError:
        return f"whether {_names(list(made.values()))} have a copy elsewhere is not known: the remote could not be asked ({answered})"
    new = {Path(name) for name, how in status.items() if how == "new"}
    lacking = [path for path in made.values() if any(one.is_relative_to(path) for one in new)]
    if not lacking:
        return None
    return f"{_names(lacking)} {_have(lacking)} no copy elsewhere: the remote has nothing of that. `dvc push` sends what is missing"


def _dvc(*words: str, limit: float) -> str:
    """What dvc prints; where it fails or takes too long, why."""
    try:
        done = subprocess.run([sys.executable, "-m", "dvc", *words], capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"no answer within {limit:g} s"
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    return errors[0].removeprefix("ERROR: ").removeprefix("unexpected error - ") if errors else done.stdout.strip()


def _names(folders: list[Path]) -> str:
    *most, last = map(str, folders)
    return f"{', '.join(most)} and {last}" if most else last


def _have(folders: list[Path]) -> str:
    return "have" if len(folders) > 1 else "has"
