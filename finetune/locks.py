"""dvc.lock as DVC writes it: what each stage ran, and what it read and wrote, by hash."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

NONE = (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError)  # of what is no dvc.lock any more, as after a merge conflict
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where libyaml is there


@dataclass(frozen=True)
class Stage:
    """A stage's entry in dvc.lock."""

    name: str
    command: str
    deps: Mapping[str, str]
    """Path → md5 of what it read."""
    params: Mapping[str, Any]
    """Section of params.yaml → what it was."""
    outs: Mapping[str, str]
    """Path → md5 of what it wrote, metrics among them."""


@lru_cache(maxsize=8)
def entries(lock: str, loader: Any = LOADER) -> dict[str, dict[str, Any]]:
    """Stage → its entry, as it stands in the text of a dvc.lock; `loader`: a safe one of yaml's."""
    try:
        return {name: {**entry} for name, entry in yaml.load(lock, Loader=loader)["stages"].items()}
    except NONE:
        return {}


def stages(lock: str, loader: Any = LOADER) -> dict[str, Stage]:
    """The stages in the text of a dvc.lock, in its order; {} where there is none, or it is not as DVC writes it."""
    try:
        return {name: _stage(name, entry) for name, entry in entries(lock, loader).items()}
    except NONE:
        return {}


def sources(found: Mapping[str, Stage]) -> dict[str, str]:
    """Path → md5 of what stages read and none of them makes: code, settings, raw data."""
    made = [out for stage in found.values() for out in stage.outs]
    return {path: md5 for stage in found.values() for path, md5 in stage.deps.items() if not any(overlap(path, out) for out in made)}


def overlap(one: str, other: str) -> bool:
    """Whether two paths are the same, or one lies in the other: then reading the one is reading the other, or a part of it."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _stage(name: str, entry: Mapping[str, Any]) -> Stage:
    deps, outs = ({file["path"]: str(file.get("md5", "")) for file in entry.get(kind, ())} for kind in ("deps", "outs"))
    params = {key: value for values in entry.get("params", {}).values() for key, value in values.items()}
    return Stage(name, str(entry.get("cmd", "")), deps, params, outs)
