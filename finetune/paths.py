"""Every path that dvc.yaml names, and dvc.lock, relative to the root of the repository, which is where a stage runs."""

import os
from pathlib import Path

PARAMS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")
LOCK = Path("dvc.lock")
CONF = Path("conf")
RAW = Path("data/raw")

PREPARED = Path("data/prepared")
FORMATTED = Path("data/formatted")
REFERENCE = Path("data/reference")

MODELS = Path("models")
TRAIN = MODELS / "train"
DPO = MODELS / "dpo"
EXPORT = MODELS / "export"

REPORTS = Path("reports")
ANSWERS = REPORTS / "answers"
LIKELIHOODS = REPORTS / "likelihoods"
SAMPLES = REPORTS / "samples.jsonl"
FIGURES = REPORTS / "figures"
REPORT = REPORTS / "report.md"
MASK = REPORTS / "format.html"


def metrics(stage: str) -> Path:
    """The metrics file of a stage: reports/<stage>.json."""
    return REPORTS / f"{stage}.json"


def home() -> Path:
    """The user's own repository, also when a stage runs in DVC's temporary copy of it (`--temp`, `--queue`).

    What outlives a run lives here: the MLflow database, converted base models, checkpoints.
    """
    return Path(os.environ.get("DVC_ROOT") or Path.cwd())
