"""What DVC calls the bytes: hashes of outs, and one of each stage's entry in dvc.lock, which says who made what."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path, PurePath

from finetune import locks, paths


def entries(lock: str) -> dict[str, str]:
    """sha256 of each stage's entry in the text of a dvc.lock: equal entries had the same command, inputs, settings and outputs."""
    return {name: hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest() for name, entry in locks.entries(lock).items()}


def known(lock: str) -> dict[str, str]:
    """Path → md5 of everything that stages read and wrote, as in the text of a dvc.lock."""
    stages = locks.stages(lock).values()
    files = [*(stage.deps for stage in stages), *(stage.outs for stage in stages)]
    return {path: md5 for some in files for path, md5 in some.items() if md5}


def outs(lock: str) -> dict[str, str]:
    """Path → md5 of what the stages but report wrote; report, which asks, has not ended."""
    return {path: md5 for name, stage in locks.stages(lock).items() if name != "report" for path, md5 in stage.outs.items() if md5}


def inputs(lock: str) -> list[str]:
    """Paths that stages read and none wrote."""
    return sorted(locks.sources(locks.stages(lock)))


def read(lock: Path = paths.LOCK) -> str:
    """The text of dvc.lock, empty where there is none. A stage only carries it: parsing takes 60 ms, and is left to the sender."""
    return lock.read_text(encoding="utf-8", errors="replace") if lock.is_file() else ""


def digest(path: Path) -> str:
    """DVC's md5 of a file or folder, at most 36 characters.

    Under DVC it is taken from dvc.lock, which DVC has just compared with the bytes; by hand it is computed, the way DVC does: of a
    folder, over the sorted list of its files and their md5.
    """
    if "DVC_STAGE" in os.environ and (locked := known(read()).get(path.as_posix())):
        return locked
    return folder(path) if path.is_dir() else md5(path)


def folder(path: Path, ignored: Callable[[tuple[str, ...]], bool] = lambda _: False) -> str:
    """DVC's md5 of a folder, computed; `ignored` says of a file, by the parts of its path below the folder, that DVC doesn't see it."""
    return of_listing(listing(path, ignored))


def listing(path: Path, ignored: Callable[[tuple[str, ...]], bool] = lambda _: False) -> list[dict[str, str]]:
    """The files of a folder as DVC lists them: `md5` and `relpath` of each, sorted by the text of that: home.jsonl before home/a.jsonl."""
    files = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
    found = sorted((file for file in files if not ignored(file.parts)), key=PurePath.as_posix)
    return [{"md5": md5(path / file), "relpath": file.as_posix()} for file in found]


def of_listing(files: list[dict[str, str]]) -> str:
    """What DVC calls a folder of these files."""
    return hashlib.md5(json.dumps(files, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def md5(file: Path) -> str:
    """DVC's md5 of a file, computed."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
