"""What a run left to tell: the metrics files of its stages, flat for MLflow, and the lengths of its records."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from finetune import outputs, paths
from finetune.config.schema import UNRELATED, Config
from finetune.data import tables

STAGES = ("prepare", "format", "train", "reference", "dpo", "evaluate", "export")
MODELS = ("base", "train", "dpo")
Metrics = dict[str, Any]


def read() -> dict[str, Metrics]:
    """Stage → its metrics file.

    Raises:
        DataError: some are not there, or the samples of answers are not.
    """
    files = {stage: paths.metrics(stage) for stage in STAGES}
    outputs.refuse_missing(*files.values(), paths.SAMPLES)
    return {stage: outputs.read_json(file) for stage, file in files.items()}


def numbers(metrics: Mapping[str, Metrics]) -> dict[str, float]:
    """`evaluate.dpo.seen.exact_match` → number: every number but those of single steps, which the stages' own runs have as curves."""
    return {key: float(value) for key, value in _flat("", metrics) if isinstance(value, int | float) and not isinstance(value, bool)}


def settings(cfg: Config) -> dict[str, Any]:
    """`train.r` → value, of every section that determines a result; a list as words between commas."""
    sections = {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value for name, value in cfg if name not in UNRELATED
    }
    return {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in _flat("", sections)}


def lengths() -> dict[str, npt.NDArray[np.int64]]:
    """Tokens of each record that was trained on: of the conversations, and of the longer answer of each preference pair.

    Raises:
        DataError: some are not there.
    """
    files = [paths.FORMATTED / "sft" / "train.parquet", paths.REFERENCE / "train.parquet"]
    outputs.refuse_missing(*files)
    sft = tables.table(files[0], ["input_ids"])
    pairs = tables.table(files[1], ["prompt_ids", "chosen_ids", "rejected_ids"])
    prompt, chosen, rejected = (_lengths(pairs, name) for name in pairs.column_names)
    return {"supervised": _lengths(sft, "input_ids"), "preference": prompt + np.maximum(chosen, rejected)}


def _lengths(rows: Any, column: str) -> npt.NDArray[np.int64]:
    return np.array([len(ids) for ids in rows.column(column)], dtype=np.int64)


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """`a.b.c` → value, of whatever is no mapping."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value
