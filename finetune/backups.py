"""Whether the newest models lie anywhere but on this disk: DVC asks its remote, within a limit, and nothing is sent."""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from finetune import locks, paths
from finetune.lineage import cache
from finetune.tracking import hashes

LIMIT = 20.0  # seconds that the remote may take to answer
MODELS = (paths.TRAIN, paths.DPO, paths.EXPORT)
HOW = "`dvc remote add --local -d backup <folder, or s3://bucket/path>` names a place for copies, `dvc push` sends them (docs/backups.md)"
UNSENT = "not all of that is in the remote. `dvc push` sends what is missing"
NOWHERE = "neither the remote nor DVC's cache has all of that. `dvc repro` makes it again, `dvc push` sends it"
UNREADABLE = "whether the models have a copy elsewhere is not known: found no stages in {}, as after a merge conflict. Mend that file"
LOST = "the remote lost {} and kept the listing, by which `dvc push` takes it for whole. Remove files/md5/{}/{} there, then `dvc push`"


def remark(limit: float = LIMIT) -> str | None:
    """What to say of the models that dvc.lock names and no remote has; None where there is nothing to say, as before any was made."""
    text = hashes.read()
    locked = hashes.known(text)
    if text and not locks.stages(text):
        return UNREADABLE.format(paths.LOCK)
    made = [path for path in MODELS if path.as_posix() in locked]
    if _dvc("config", "core.remote", limit=limit) == "":
        here = _here({path: locked[path.as_posix()] for path in made})
        return f"{_names(here)} {_have(here)} no copy elsewhere: no remote is set up. {HOW}" if here else None
    if not made:
        return None
    # not `dvc status --cloud`: it takes a folder whose listing the remote has for whole, and is silent on what neither side has
    answered = _dvc("data", "status", "--not-in-remote", "--granular", "--json", *map(str, made), limit=limit)
    try:
        status = json.loads(answered)
    except ValueError:
        return f"whether {_names(made)} have a copy elsewhere is not known: the remote could not be asked ({answered})"
    uncached, lacking = set(status.get("not_in_cache", [])), defaultdict(list)
    for path in made:
        if absent := [name for name in status.get("not_in_remote", []) if Path(name).is_relative_to(path)]:
            lacking[_why(path, absent, uncached, locked[path.as_posix()])].append(path)
    return "; ".join(f"{_names(paths)} {_have(paths)} no whole copy elsewhere: {why}" for why, paths in lacking.items()) or None


def _here(made: Mapping[Path, str]) -> list[Path]:
    """Folders that lie here, or are in DVC's cache and not checked out."""
    if all(path.is_dir() for path in made):
        return [*made]
    cached = cache.folder(Path.cwd())
    return [path for path, md5 in made.items() if path.is_dir() or cache.kept(cached, md5).is_file()]


def _why(path: Path, absent: list[str], uncached: set[str], md5: str) -> str:
    """What is wrong with a folder's copy, and what mends it; `absent`: files of it that the remote lacks, and `path/` for their listing."""
    if uncached.intersection(absent):
        return NOWHERE
    if f"{path.as_posix()}/" in absent:
        return UNSENT
    return LOST.format(absent[0] if len(absent) == 1 else f"{len(absent)} files, {absent[0]} among them,", md5[:2], md5[2:])


def _dvc(*words: str, limit: float) -> str:
    """What dvc prints; where it fails or takes too long, why."""
    try:
        done = subprocess.run([sys.executable, "-m", "dvc", *words], capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"no answer within {limit:g} s"
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    if errors:
        return errors[0].removeprefix("ERROR: ").removeprefix("unexpected error - ")
    if done.returncode:  # it broke down before it could say it in its own way, as on a .dvc/config that is none
        return (done.stderr.strip().splitlines() or [f"dvc {words[0]} ended with status {done.returncode}"])[-1]
    return done.stdout.strip()


def _names(folders: list[Path]) -> str:
    *most, last = map(str, folders)
    return f"{', '.join(most)} and {last}" if most else last


def _have(folders: list[Path]) -> str:
    return "have" if len(folders) > 1 else "has"
