"""Every folder of finetune/evaluation/metrics is a metric that the `evaluate` library loads without a network."""

import importlib
import shutil
import socket
from pathlib import Path
from typing import Any

import evaluate
import pytest

from finetune.config.schema import METRICS, Evaluate
from finetune.evaluation import scores
from finetune.evaluation.metric import Judged

NAMES = sorted(module.stem for module in METRICS.glob("*/*.py"))
CALL = '{"intent": "HassTurnOn", "name": "lamp"}'
SUMMARY = "Claim: bees see blue.\nLimits: one hive."
ANSWERS = [CALL, '{"intent": "HassTurnOn"}', "no", "yes", " Paris ", "Two is. Is four?", SUMMARY, SUMMARY]
EXPECTED = [CALL, CALL, CALL, '{"a": 1}', "Paris", "Is two?", "Claim: bees.\nLimits: hive.", "Claim: bees.\nEvidence: dye.\nLimits: hive."]
EACH: dict[str, list[float | None]] = {
    "exact_match": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
    "valid_json": [1.0, 1.0, 0.0, 0.0, None, None, None, None],
    "intent": [1.0, 1.0, 0.0, None, None, None, None, None],
    "rouge_l": [1.0, 2 / 3, 0.0, 0.0, 1.0, 1 / 3, 8 / 11, 8 / 13],
    "length_ratio": [1.0, 1 / 2, 1 / 4, 1 / 2, 1.0, 1 / 2, 4 / 7, 6 / 7],
    "ends_with_question": [None, None, None, None, None, 1.0, None, None],
    "sections": [None, None, None, None, None, None, 1.0, 0.0],
}


def settings(*metrics: str) -> Evaluate:
    return Evaluate(metrics=list(metrics), confidence=0.95, resamples=200, samples=5, gates={})


def rows(answers: list[str], expected: list[str]) -> list[dict[str, Any]]:
    return [{"answer": one, "expected": other, "slice": "seen", "ended": True} for one, other in zip(answers, expected, strict=True)]


def test_all_metrics_are_seen() -> None:
    assert set(EACH) == set(NAMES)


def test_they_are_loaded_by_the_library_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a metric asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert scores.judged(rows(ANSWERS, EXPECTED), settings(*EACH)) == EACH


@pytest.mark.parametrize("name", NAMES)
def test_each_module_has_one_metric_of_its_own_name_with_its_mean(name: str, tmp_path: Path) -> None:
    module = importlib.import_module(f"finetune.evaluation.metrics.{name}.{name}")
    (metric,) = (value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Judged) and value is not Judged)
    result = metric(cache_dir=str(tmp_path), keep_in_memory=True).compute(predictions=ANSWERS, references=EXPECTED)
    counted = [value for value in EACH[name] if value is not None]
    assert result == {name: sum(counted) / len(counted), "each": EACH[name]}


def test_a_metric_that_applies_to_nothing_is_left_out() -> None:
    text = rows(["Paris", "Rome"], ["Paris", "Paris"])
    judgements = scores.judged(text, settings("exact_match", "valid_json", "intent"))
    assert judgements["intent"] == [None, None]
    assert set(scores.of_slice(text, judgements, "seen", settings("exact_match"), seed=1)) == {
        *("records", "cut", "confidence"),
        *("exact_match", "exact_match_low", "exact_match_high"),
    }


def test_an_edited_metric_is_not_served_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(METRICS / "exact_match", tmp_path / "exact_match")
    monkeypatch.setattr(scores, "METRICS", tmp_path)
    before = scores.judged(rows(["Paris"], ["Paris"]), settings("exact_match"))
    module = tmp_path / "exact_match" / "exact_match.py"
    module.write_text(module.read_text().replace("float(exact(answer, expected))", "0.5"))
    after = scores.judged(rows(["Paris"], ["Paris"]), settings("exact_match"))
    assert (before, after) == ({"exact_match": [1.0]}, {"exact_match": [0.5]})


def test_copies_of_modules_lie_in_a_folder_of_this_process() -> None:
    scores.judged(rows(["Paris"], ["Paris"]), settings("exact_match"))
    assert Path(evaluate.config.HF_MODULES_CACHE).parent.name.startswith("metrics-")
    assert not Path(evaluate.config.HF_MODULES_CACHE).is_relative_to(Path.home() / ".cache")
