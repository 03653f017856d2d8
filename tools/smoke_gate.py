"""Whether the smoke run reached what benchmarks/smoke_floors.yaml asks: record counts, scores, and peak memory of each stage.

    python -m tools.smoke_gate          in the repository that it ran in

Counts and scores are read from reports/*.json, memory from MLflow. Times are not judged: CI machines are busy.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient

from finetune import paths
from finetune.errors import SetupError

FLOORS = Path("benchmarks/smoke_floors.yaml")


def measured(key: str) -> float | None:
    """The number at `report.key.key` of reports/<report>.json; None if there is none."""
    report, *keys = key.split(".")
    file = paths.metrics(report)
    value: Any = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    for part in keys:
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, int | float) else None


def memory(database: Path) -> dict[str, float]:
    """Peak memory in GiB of every run that MLflow holds, by the name of its stage."""
    if not database.is_file():
        return {}
    client = MlflowClient(f"sqlite:///{database.resolve()}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return {str(run.info.run_name): run.data.metrics["peak_memory_gib"] for run in runs if "peak_memory_gib" in run.data.metrics}


def judge(asked: Mapping[str, Any], peaks: Mapping[str, float]) -> list[str]:
    """One line for each thing asked, beginning with OK or SHORT.

    asked: {"at_least": {key: number}, "at_most": {key: number}, "peak_memory_gib": {stage: number}}
    """
    lines = [_line(key, measured(key), floor, "at least") for key, floor in asked["at_least"].items()]
    lines += [_line(key, measured(key), ceiling, "at most") for key, ceiling in asked["at_most"].items()]
    memory = asked["peak_memory_gib"].items()
    return lines + [_line(f"peak memory of {stage}, GiB", peaks.get(stage), ceiling, "at most") for stage, ceiling in memory]


def _line(what: str, found: float | None, limit: float, side: str) -> str:
    if found is None:
        return f"SHORT  {what}: nothing was measured, {side} {limit:g} is asked"
    reached = found >= limit if side == "at least" else found <= limit
    return f"{'OK   ' if reached else 'SHORT'}  {what}: {found:.4g}, {side} {limit:g} is asked"


def main() -> None:
    lines = judge(yaml.safe_load(FLOORS.read_text(encoding="utf-8")), memory(paths.home() / "mlflow.db"))
    print("\n".join(lines))
    short = [line for line in lines if line.startswith("SHORT")]
    if short:
        sys.exit(str(SetupError(f"the smoke run fell short in {len(short)} of {len(lines)}:", short, f"What is asked stands in {FLOORS}.")))


if __name__ == "__main__":
    main()
