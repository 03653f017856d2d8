"""The first run, as dvc.lock records it: each stage's inputs and outs by hash, and where their bytes can still be had."""

from collections.abc import Mapping
from pathlib import Path

from finetune import locks
from finetune.lineage import cache
from finetune.locks import Stage, overlap
from finetune.tracking import hashes

FOLDER = ".dir"  # ends the hash of a folder, which is that of the list of its files


def stages(lock: str) -> dict[str, Stage]:
    """The stages in the text of a dvc.lock, in its order, but each after those whose outs it reads; {} where there is none."""
    found = locks.stages(lock)
    ordered: dict[str, Stage] = {}

    def put(stage: Stage) -> None:
        for before in _before(stage, found):
            if before.name not in ordered:
                put(before)
        ordered[stage.name] = stage

    for stage in found.values():
        if stage.name not in ordered:
            put(stage)
    return ordered


class Kept:
    """Bytes that dvc.lock records: in the folder, where they are still so, else in DVC's cache."""

    def __init__(self, root: Path, stored: Path) -> None:
        """`stored`: the folder of DVC's cache."""
        self._root, self._cache = root, stored

    def files(self, path: str, md5: str) -> dict[str, Path] | None:
        """Name below `path` ("" where it is a file) → a file with the bytes that were recorded; None where not all of them can be had."""
        here = self._root / path
        if not md5.endswith(FOLDER):
            file = self._file(here, md5)
            return None if file is None else {"": file}
        listed = self._listed(here, md5)
        if listed is None:
            return None
        found = {name: self._file(here / name, of_file) for name, of_file in listed.items()}
        return None if None in found.values() else {name: file for name, file in found.items() if file is not None}

    def _listed(self, here: Path, md5: str) -> dict[str, str] | None:
        """Name → md5 of the files of a folder."""
        listed = cache.listed(self._cache, md5)
        if listed is None and here.is_dir():
            listing = hashes.listing(here)
            if hashes.of_listing(listing) == md5:
                return {file["relpath"]: file["md5"] for file in listing}
        return listed

    def _file(self, here: Path, md5: str) -> Path | None:
        if here.is_file() and hashes.md5(here) == md5:
            return here
        stored = cache.kept(self._cache, md5)
        return stored if stored.is_file() and hashes.md5(stored) == md5 else None


def _before(stage: Stage, found: Mapping[str, Stage]) -> list[Stage]:
    """Those whose outs a stage reads; DVC refuses circles."""
    return [other for other in found.values() if other is not stage and any(overlap(dep, out) for dep in stage.deps for out in other.outs)]
