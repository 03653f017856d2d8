"""report: the page, the pictures, and what the pipeline's run in MLflow has of them."""

import re
from pathlib import Path

import pytest

from finetune import paths, tracking
from finetune.config.schema import Tracking
from finetune.tracking import sender, spool
from finetune.tracking.spool import Spool
from stages import report
from tests.conftest import Compose


def test_it_writes_a_page_whose_pictures_are_there(tiny_copy: Path, compose: Compose) -> None:
    report.main(compose("experiment=tiny"))
    written = paths.REPORT.read_text()
    pictures = re.findall(r"\]\((figures/[^)]+)\)", written)
    assert len(pictures) == 4
    for picture in pictures:
        assert (paths.REPORTS / picture).stat().st_size > 10_000
    for model in ("base", "train", "dpo"):
        assert f"| seen | {model} | " in written


def test_the_pipelines_run_gets_settings_scores_data_and_files(tiny_copy: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose("experiment=tiny").model_copy(update={"tracking": Tracking(enabled=True, uri=None, experiment="finetune")})
    held = sender.lock(tiny_copy)  # no sender starts, so what was said is still there
    assert held is not None
    monkeypatch.setattr(sender, "wait", lambda *_: "nobody sends here")
    with tracking.run("report", cfg):
        report.main(cfg)
    (path,) = spool.waiting(tiny_copy)
    said = [event for event, _ in Spool(path).unsent() if event.get("on") == "pipeline"]
    settings, scores = (next(event["values"] for event in said if event["event"] == kind) for kind in ("params", "metrics"))
    assert settings["train.r"] == str(cfg.train.r)  # type: ignore[union-attr]
    assert 0 <= scores["evaluate.dpo.seen.exact_match"] <= 1
    assert {event["name"] for event in said if event["event"] == "dataset"} == report.DATASETS.keys()
    assert {Path(event["path"]).name for event in said if event["event"] == "artifact"} >= {"report.md", "figures", "samples.jsonl"}
    assert Spool(path).unsent()[-1][0]["pipeline"] == "FINISHED"
