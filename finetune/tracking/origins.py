"""What a run came from and what it made, as tags of its pipeline: hashes down to the raw files, each also a key to find the run by.

    data.data/raw/records.jsonl   {"bytes": 812, "md5": …, "path": …, "sha256": …} of what was read; of a package its version, of a hub its
                                  revision; path: the name, of which MLflow takes some characters alone in a key
    base.revision, base.sha256    the weights that were tuned
    dvc.entry.train               hash of the stage's entry in dvc.lock
    dvc.outdated                  what in dvc.lock is not of what lies here, so that commit and settings are not those of the models
    md5.<digest>, sha256.<digest> path of the raw file, the out or the exported file that has these bytes

Only `report` imports this. It says what lies in the folder now, and where dvc.lock, by which the models are known, is of something else.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from finetune import outputs, paths
from finetune.config.data import Files, SmartHome, Source
from finetune.config.schema import Config
from finetune.data import reading, templates
from finetune.evaluation import gates
from finetune.reporting import evidence
from finetune.tracking import hashes, outdated

PIECE = 2**20  # bytes read at once

log = logging.getLogger(__name__)


def tags(cfg: Config, evaluated: Mapping[str, Any]) -> dict[str, str]:
    """All tags, of a run whose reports/evaluate.json is `evaluated`.

    Raises:
        OSError, DataError: a source of the data, or the manifest of the export, is not there any more.
    """
    lock = hashes.read()
    if others := outdated.names(lock):
        log.warning("the models were made with other %s than lie here; `dvc repro` makes them anew with these", ", ".join(others))
    data = dict(sources(cfg.data))
    exported: dict[str, Any] = outputs.read_json(paths.EXPORT / "manifest.json")["files"]
    keys: dict[str, list[str]] = {}
    for path, md5 in hashes.outs(lock).items():
        keys.setdefault(f"md5.{md5}", []).append(path)
    for name, file in data.items():
        for kind in ("md5", "sha256"):
            if kind in file:
                keys.setdefault(f"{kind}.{file[kind]}", []).append(name)
    for path, file in exported.items():
        keys.setdefault(f"sha256.{file['sha256']}", []).append((paths.EXPORT / path).as_posix())
    settings = json.dumps(evidence.settings(cfg), sort_keys=True)
    return {
        "params.sha256": hashlib.sha256(settings.encode()).hexdigest(),
        **{
            f"base.{key}": str(value)
            for key, value in cfg.model.model_dump(include={"path", "source", "revision", "sha256"}).items()
            if value
        },
        **{f"data.{name}": json.dumps({**file, "path": name}, sort_keys=True) for name, file in data.items()},
        **({} if _as_locked(cfg.data, lock) else {"data.changed": "while the pipeline ran"}),
        **({"dvc.outdated": ", ".join(others)} if others else {}),
        **{f"dvc.entry.{stage}": entry for stage, entry in hashes.entries(lock).items() if stage != "report"},
        "gates": evaluated["gates"]["verdict"],
        **({"gates.failed": "; ".join(failed)} if (failed := gates.sentences(evaluated["gates"])) else {}),
        **{key: ", ".join(found) for key, found in keys.items()},
    }


def sources(settings: SmartHome | Files) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name → hashes, of each file that prepare read; a hub data set has its revision, and `#split` in its name where two are read."""
    if isinstance(settings, SmartHome):
        file = f"speech_to_phrase/{settings.language}.json"
        yield f"package:{templates.PACKAGE}/{file}", _packed(templates.PACKAGE, file)
        return
    read = Counter(source.path for source in settings.sources if source.path.startswith("hub:"))
    for source in settings.sources:
        name, found = _source(source)
        yield f"{name}#{found['split']}" if read[source.path] > 1 else name, found


def hashed(file: Path) -> dict[str, Any]:
    """md5, by which DVC knows it, sha256, and size in bytes."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(PIECE):
            md5.update(piece)
            sha256.update(piece)
        return {"md5": md5.hexdigest(), "sha256": sha256.hexdigest(), "bytes": opened.tell()}


def _source(source: Source) -> tuple[str, dict[str, Any]]:
    kind, _, rest = source.path.partition(":")
    if kind == "hub" and rest:
        return source.path, {"revision": source.revision, "split": source.split or "train"}
    if kind == "package" and rest:
        module, _, file = rest.partition("/")
        return source.path, _packed(module, file)
    path = paths.RAW / source.path
    return path.as_posix(), hashed(path)


def _packed(module: str, file: str) -> dict[str, Any]:
    """A file of an installed package: its hashes, and which release of what."""
    found = packages_distributions().get(module.partition(".")[0], [])
    return {**hashed(reading.package(module, file)), **({"package": found[0], "version": version(found[0])} if found else {})}


def _as_locked(settings: SmartHome | Files, lock: str) -> bool:
    """Whether data/raw still has the bytes that prepare read, by the hash in dvc.lock."""
    locked = hashes.known(lock).get(paths.RAW.as_posix())
    if locked is None or isinstance(settings, SmartHome):
        return True
    if outdated.same(paths.RAW, locked):
        return True
    log.warning("%s is not what prepare read any more: files there changed while the pipeline ran; run it again", paths.RAW)
    return False
