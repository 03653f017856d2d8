"""What a user named: a model version, a run, or bytes, told apart by what there is of that name."""

import difflib
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import SetupError
from finetune.lineage import cache
from finetune.lineage.records import Records, Run, Version, eaten

DIGEST = re.compile(r"[0-9a-f]{32}(\.dir)?|[0-9a-f]{64}")
START = re.compile(r"[0-9a-f]{6,31}")  # digits of a run's id; fewer are too few to mean one
FORMS = "NAME/NUMBER or NAME@ALIAS of a model, a run's name or id, a file, or an md5 or sha256"


@dataclass(frozen=True)
class Bytes:
    """A file, folder or hash, and the pipelines whose inputs or outputs have these bytes."""

    name: str
    runs: Sequence[Run]
    """Runs of pipelines, newest first; none where all were deleted from MLflow and versions alone remember what was read."""
    versions: Sequence[Version]
    """Model versions that remember having read these bytes, or are them, whatever became of their runs; newest first."""
    known_as: str
    """What the newest of them calls it: data/raw/records.jsonl, models/train, package:…"""
    read: bool
    """Whether that read it from outside; else it made it."""


Subject = Version | Run | Bytes


def named(words: str, records: Records, root: Path) -> Subject:
    """Find what `words` mean.

    Raises:
        SetupError: nothing is called that; or a file's bytes are in no run.
    """
    if os.path.exists(root / words):  # noqa: PTH110 (Path's raises where the words are too long for a name)
        return _file(words, root, records)
    if (version := _version(words, records)) is not None:
        return version
    if (run := _run(words, records)) is not None:
        return run
    if DIGEST.fullmatch(words) and (found := _known(words, [words], records)) is not None:
        return found
    raise SetupError("MLflow knows no such model, run or file:", [f"found {words!r}, expected {FORMS}"], _near(words, records))


def model_version(words: str, records: Records) -> Version:
    """Find a model version.

    Raises:
        SetupError: there is none of that name.
    """
    if (version := _version(words, records)) is not None:
        return version
    raise SetupError("no such model version:", [f"found {words!r}, expected NAME/NUMBER or NAME@ALIAS"], _near(words, records))


def _version(words: str, records: Records) -> Version | None:
    model, sign, rest = words.rpartition("@") if "@" in words else words.rpartition("/")
    if not sign or not model:
        return None
    number = records.aliases(model).get(rest) if sign == "@" else int(rest) if rest.isdecimal() else None
    return None if number is None else records.version(model, number)


def _run(words: str, records: Records) -> Run | None:
    """A run by its id, or the newest of its name, a pipeline's first, or the only one whose id begins so: the tree shows ids shortened."""
    found = records.runs([words]).get(words)
    if found is None:
        found = min(records.named(words), key=lambda run: run.tags.get("finetune.kind") != "pipeline", default=None)
    if found is None and START.fullmatch(words) and len(ids := records.beginning(words)) == 1:
        return records.runs(ids)[ids[0]]
    return found


def _file(words: str, root: Path, records: Records) -> Bytes | Version:
    """Who knows the bytes of a file or folder: by its own hash, else as a part of a folder that a stage wrote."""
    path = root / words
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else words
    if path.is_dir():
        from finetune.tracking import outdated  # 30 ms, and only a folder needs it

        digest = outdated.folder(path, root)
        found = _known(name, [digest], records)
    else:
        sha256 = _digest(path, "sha256")  # first: weights are known by it, and a second reading of them takes a second
        found = _known(name, [sha256], records)
        if found is None:
            digest = _digest(path, "md5")
            found = _known(name, [digest], records) or _known(name, _folders_with(digest, root), records)
    if found is not None:
        return found
    others = records.tagged(f"data.{name}")
    told = f"found no run or model version that read or made the bytes of {name}"
    if others:
        newest = f"{others[0].name} ({others[0].id})"
        told += f"; {len(others)} read other bytes from a file of that name, the newest of them {newest}"
    raise SetupError(
        "MLflow doesn't know this file:", [told], "the file may have changed, or its runs may not be in this MLflow (tracking.uri)"
    )


def _known(name: str, digests: Sequence[str], records: Records) -> Bytes | Version | None:
    """Who knows the first of these hashes that anybody knows; the version itself, where it has these bytes and its runs were deleted."""
    for digest in digests:
        key = f"{'sha256' if len(digest) == 64 else 'md5'}.{digest}"
        runs, versions = records.tagged(key), records.versions(digest)
        if runs:
            source = eaten(records.runs([runs[0].id])[runs[0].id].tags, digest)
            return Bytes(name, runs, versions, source or runs[0].tags[key], source is not None)
        if versions:
            source = eaten(versions[0].tags, digest)
            return Bytes(name, [], versions, source, True) if source else records.version(versions[0].model, versions[0].number)
    return None


def _folders_with(digest: str, root: Path) -> list[str]:
    """md5 of the folders in DVC's cache that hold a file of this md5; none where DVC is not set up."""
    try:
        return cache.folders_with(cache.folder(root), digest)
    except SetupError:
        return []


def _near(words: str, records: Records) -> str:
    models = records.models()
    model = re.split("[/@]", words)[0]
    if model in models:
        known, aliases = records.numbers(model), [f"@{alias}" for alias in records.aliases(model)]
        numbers = f"{known[-1]} to {known[0]}" if known else "none"
        return f"{model} has versions {numbers}" + (f" and the aliases {', '.join(aliases)}" if aliases else "")
    close = difflib.get_close_matches(model, models, n=3) or models[:3]
    return f"models there are: {', '.join(close)}" if close else "no model was registered yet; `dvc repro` does that at its end"


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
