"""report: the page, the pictures, and what the pipeline's run in MLflow has of them."""

import re
from pathlib import Path

import pytest

from finetune import paths, tracking
from finetune.config.schema import Tracking
from finetune.config.stage import cut
from finetune.fingerprint import Fingerprint
from finetune.reporting import page
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
    assert written.count("\nprompt ") >= 3
    assert f"In the environment `{Fingerprint.of_this_machine().id}`." in written


@pytest.mark.parametrize("moment", ["evidence.lengths", "page.write", "tracking.finish"])
def test_until_its_end_dvc_finds_no_figures(tiny_copy: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"stages.report.{moment}", interrupt)
    with pytest.raises(KeyboardInterrupt):
        report.main(compose("experiment=tiny"))
    assert list(paths.REPORTS.glob("*figures*")) == []


def test_the_pipelines_run_gets_settings_scores_data_and_files(tiny_copy: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose("experiment=tiny").model_copy(update={"tracking": Tracking(enabled=True, uri=None, experiment="finetune", model=None)})
    held = sender.lock(tiny_copy)  # no sender starts, so what was said is still there
    assert held is not None
    monkeypatch.setattr(sender, "wait", lambda *_: "nobody sends here")
    with tracking.run("report", cfg):
        report.main(cut(cfg, report.main.sections))  # type: ignore[attr-defined]
    (path,) = spool.waiting(tiny_copy)
    said = [event for event, _ in Spool(path).unsent() if event.get("on") == "pipeline"]
    settings, scores = (next(event["values"] for event in said if event["event"] == kind) for kind in ("params", "metrics"))
    assert settings["train.r"] == str(cfg.train.r)  # type: ignore[union-attr]
    assert (settings["launch.command"], settings["launch.processes"]) == ("python3", "1")
    assert 0 <= scores["evaluate.dpo.seen.exact_match"] <= 1
    assert {event["name"] for event in said if event["event"] == "dataset"} == report.DATASETS.keys()
    files = {Path(event["folder"], Path(event["path"]).name).as_posix() for event in said if event["event"] == "artifact"}
    assert files >= {"report.md", "samples.jsonl", *(f"figures/{name}.png" for name in page.FIGURES.values())}
    assert Spool(path).unsent()[-1][0]["pipeline"] == "FINISHED"
