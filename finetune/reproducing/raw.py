"""Raw files that a run read and its commit has not, brought into the clone that it is made again in."""

from collections.abc import Mapping
from pathlib import Path

from finetune.clone import Clone
from finetune.errors import SetupError
from finetune.lineage import cache
from finetune.tracking import hashes


def bring(made: Clone, root: Path, raw: Mapping[str, str]) -> list[str]:
    """Bring raw files that the clone lacks, from the user's folder or DVC's cache, by their md5; return a line for each that was brought.

    Raises:
        SetupError: some can't be had.
    """
    told, lost = [], []
    here = None
    for path, md5 in raw.items():
        if _is(made.folder / path, md5):
            continue
        here = here or cache.folder(root)
        places = {f"{root.name}/{path}": root / path, "DVC's cache": cache.kept(here, md5)}
        place = next((name for name, file in places.items() if _is(file, md5)), None)
        if place is None:
            found = "other bytes" if (root / path).is_file() else "no such file"
            lost.append(f"{path}: found {found} here and none of md5 {md5} in DVC's cache, expected the data that was read")
            continue
        made.bring(path, places[place])
        told.append(f"{path} comes from {place}: git does not have it")
    if lost:
        remedy = "put the files there; where DVC tracks them, `dvc pull` brings them: it needs the remote that they were pushed to"
        raise SetupError("data that the run read is lost here:", lost, remedy)
    return told


def _is(file: Path, md5: str) -> bool:
    return file.is_file() and hashes.md5(file) == md5
