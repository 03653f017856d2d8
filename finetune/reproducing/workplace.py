"""A clean clone to make a run again in: its code, settings and raw data, and nothing that was made before.

It lies in .cache/reproduce of the repository, on the same disk, and shares git's objects with it: the commit may be one that no branch
leads to. DVC's cache there is its own and empty.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import yaml

from finetune import paths
from finetune.errors import SetupError
from finetune.lineage import cache
from finetune.reproducing.source import Source
from finetune.tracking import hashes

PLACE = Path(".cache") / "reproduce"
KEPT = ".kept"  # file beside a clone that was to be kept
DROPPED = ("DVC_", "MLFLOW_", "HYDRA_", "PYTHONHASHSEED", "PYTHONPATH", "RANK", "WORLD_SIZE", "LOCAL_RANK")  # of another run


@contextmanager
def clone(root: Path, source: Source, keep: bool) -> Iterator[Path]:
    """Yield the clone; removed at the end, unless it is to be kept.

    Raises:
        SetupError: git can't check it out, or the patch doesn't fit.
    """
    _sweep(root / PLACE)
    work = root / PLACE / str(os.getpid())
    shutil.rmtree(work, ignore_errors=True)
    folder = work / root.resolve().name
    folder.parent.mkdir(parents=True)
    try:
        _git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root.resolve()), str(folder))
        _git(folder, "checkout", "--quiet", "--detach", source.commit)
        if source.patch is not None:
            _git(folder, "apply", "--whitespace=nowarn", "-", given=source.patch)
        if source.params is not None:
            (folder / paths.PARAMS).write_bytes(source.params)
        _prepare(folder, root)
        yield folder
    finally:
        if keep and folder.is_dir():
            (work / KEPT).touch()
        else:
            shutil.rmtree(work, ignore_errors=True)


def bring(folder: Path, root: Path, raw: Mapping[str, str]) -> list[str]:
    """Bring raw files that the clone lacks, from the user's folder or DVC's cache, by their md5; return a line for each that was brought.

    Raises:
        SetupError: some can't be had.
    """
    told, lost = [], []
    here = None
    for path, md5 in raw.items():
        if _is(folder / path, md5):
            continue
        here = here or cache.folder(root)
        places = {f"{root.name}/{path}": root / path, "DVC's cache": cache.kept(here, md5)}
        place = next((name for name, file in places.items() if _is(file, md5)), None)
        if place is None:
            found = "other bytes" if (root / path).is_file() else "no such file"
            lost.append(f"{path}: found {found} here and none of md5 {md5} in DVC's cache, expected the data that was read")
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).unlink(missing_ok=True)
        shutil.copyfile(places[place], folder / path)
        told.append(f"{path} comes from {place}: git does not have it")
    if lost:
        remedy = "put the files there; where DVC tracks them, `dvc pull` brings them: it needs the remote that they were pushed to"
        raise SetupError("data that the run read is lost here:", lost, remedy)
    return told


def environment() -> dict[str, str]:
    """Variables for programs in a clone: this environment's Python, and nothing of a surrounding run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
    return {**kept, "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]), "DVC_NO_ANALYTICS": "1"}


def _prepare(folder: Path, root: Path) -> None:
    """The environment of stages, an empty cache whatever a user has set, and no word to MLflow, where this is no run of its own."""
    if (root / ".venv").is_dir():  # stages insist on the environment of their repository
        (folder / ".venv").symlink_to((root / ".venv").resolve())
    (folder / ".dvc" / "config.local").write_text("[cache]\n    dir = cache\n    type = hardlink,copy\n", encoding="utf-8")
    params = folder / paths.PARAMS
    if not params.is_file():
        raise SetupError("the run can't be made again:", [f"found no {paths.PARAMS} in what was checked out"], "take another run")
    values = yaml.safe_load(params.read_text(encoding="utf-8"))
    if "tracking" in values:  # no stage depends on it
        values["tracking"] = {**values["tracking"], "enabled": False}
        params.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _sweep(place: Path) -> None:
    """Remove the clones of processes that were killed."""
    for work in place.iterdir() if place.is_dir() else ():
        if work.name.isdigit() and not (work / KEPT).exists() and not psutil.pid_exists(int(work.name)):
            shutil.rmtree(work, ignore_errors=True)


def _is(file: Path, md5: str) -> bool:
    return file.is_file() and hashes.md5(file) == md5


def _git(folder: Path, *words: str, given: bytes | None = None) -> None:
    command = ["git", "-c", "core.hooksPath=/dev/null", *words]
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise SetupError(f"the clone can't be made: git {words[0]} failed:", said, "mend what it says, and run the same command again")
