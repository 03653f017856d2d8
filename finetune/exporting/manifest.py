"""What an export consists of and what it was made from, by hashes: enough to tell whether two are the same."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from finetune.config.schema import Config
from finetune.models.adapters import Tuned
from finetune.outputs import sha256

SETTINGS = ("model", "data", "prepare", "format", "train", "reference", "dpo", "export")


def files(folder: Path) -> dict[str, dict[str, Any]]:
    """Path below the folder → sha256 and size in bytes, of every file there."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size} for path in found}


def parameters(folder: Path) -> int:
    """Numbers in the safetensors files of a folder; tied weights are stored once, and counted once."""
    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118  # not a mapping
        count += sum(math.prod(shape) for shape in shapes)
    return count


def describe(cfg: Config, tuned: Tuned, exported: Mapping[str, int], folder: Path, data: Path) -> dict[str, Any]:
    """The manifest of what is in `folder` now, made from `data`; `exported`: part → its number of parameters."""
    return {
        "files": files(folder),
        "parameters": dict(exported),
        "method": tuned.method,
        "base_model": cfg.model.model_dump(include={"name", "source", "path", "revision", "sha256", "license"}),
        "data": {path.as_posix(): sha256(path) for path in sorted(data.rglob("*.parquet"))},
        "seed": cfg.seed,
        "settings": {name: getattr(cfg, name).model_dump(mode="json") for name in SETTINGS},
    }
