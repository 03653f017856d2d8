"""The stage evaluate: three models set side by side, from what they answered and without loading any."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune import outputs, paths
from finetune.config.compose import validate
from finetune.errors import ConfigError, DataError, OutputError
from finetune.evaluation import samples
from stages import evaluate
from tests.conftest import composed, full_disk

RIGHT, WRONG = '{"intent": "HassTurnOn", "name": "lamp"}', '{"intent": "HassTurnOff", "name": "lamp"}'
ANSWERS = {
    "base": ["Sure, I will", "<|im_start|>assistant", "```json\n{}\n```", "{"],
    "train": [RIGHT, WRONG, RIGHT, "lamp"],
    "dpo": [RIGHT, RIGHT, WRONG, RIGHT],
}
SCORES = {"base": (0.0, 0.0, 0.0), "train": (0.5, 0.75, 0.5), "dpo": (0.75, 1.0, 0.75)}


def write(model: str, answers: list[str], expected: str = RIGHT, four_bit: bool = False) -> None:
    shift = {"base": -3.0, "train": 0.0, "dpo": 1.0}[model]
    outputs.write_jsonl(
        paths.ANSWERS / f"{model}.jsonl",
        (
            {
                "id": f"{n:04}",
                "slice": name,
                "prompt": f"do {n}",
                "expected": expected,
                "answer": text,
                "tokens": 9,
                "ended": model != "base",
            }
            for n, (name, text) in enumerate((name, text) for name in ("seen", "new_home") for text in answers)
        ),
    )
    kinds = ("validation", "validation_4bit") if four_bit else ("validation",)
    records = [
        {"kind": kind, "id": f"v{n}", "slice": "seen", "logp": -2.0 + shift - 0.3 * (kind != "validation"), "tokens": 4, "bytes": 16}
        for kind in kinds
        for n in range(3)
    ]
    pairs = [{"kind": "preference", "id": f"p{n}", "slice": "seen", "chosen": -5.0 + shift, "rejected": -4.0 - shift} for n in range(5)]
    outputs.write_jsonl(paths.LIKELIHOODS / f"{model}.jsonl", records + pairs)


@pytest.fixture
def answered(workspace: Path) -> Path:
    for model, answers in ANSWERS.items():
        write(model, answers)
    outputs.write_json(paths.metrics("dpo"), {"beta": 0.1})
    return workspace


def run(*overrides: str) -> dict[str, Any]:
    evaluate.main(composed(*overrides))
    report: dict[str, Any] = outputs.read_json(paths.metrics("evaluate"))
    return report


def test_each_model_is_scored_on_each_slice(answered: Path) -> None:
    report = run()
    for model, scores in SCORES.items():
        for name in ("seen", "new_home"):
            found = report[model][name]
            assert (found["exact_match"], found["valid_json"], found["intent"]) == scores
            assert found["records"] == 4
            assert found["exact_match_low"] <= found["exact_match"] <= found["exact_match_high"]
    assert (report["base"]["seen"]["cut"], report["dpo"]["seen"]["cut"]) == (4, 0)


def test_losses_and_preferences_come_from_the_likelihoods(answered: Path) -> None:
    report = run()
    assert report["train"]["validation"]["loss"] == pytest.approx(0.5)
    assert report["base"]["validation"]["loss"] == pytest.approx(5 / 4)
    assert [report[model]["preference"]["accuracy"] for model in ("base", "train", "dpo")] == [0.0, 0.0, 1.0]
    assert [report[model]["preference"]["margin"] for model in ("base", "train", "dpo")] == pytest.approx([-0.6, 0.0, 0.2])
    assert report["dpo"]["preference"]["pairs"] == 5


def test_4_bit_training_adds_a_line_on_how_far_it_lies(answered: Path) -> None:
    write("train", ANSWERS["train"], four_bit=True)
    report = run()
    assert report["train"]["validation_4bit"]["loss"] == pytest.approx(2.3 / 4)
    assert report["train"]["loss_distance_4bit"] == pytest.approx(0.3 / 4)
    assert "loss_distance_4bit" not in report["dpo"]


def test_plain_text_has_no_scores_of_json(answered: Path) -> None:
    for model in ANSWERS:
        write(model, ["Paris", "Rome", " Paris ", "paris"], expected="Paris")
    found = run()["dpo"]["seen"]
    assert found["exact_match"] == 0.5
    assert not [name for name in found if name.startswith(("valid_json", "intent"))]


def test_samples_are_few_and_begin_where_tuning_made_a_difference(answered: Path) -> None:
    run("evaluate.samples=3")
    rows = outputs.read_jsonl(paths.SAMPLES)
    assert len(rows) == 3
    assert rows[0]["verdicts"]["dpo"] != rows[0]["verdicts"]["train"]
    assert {row["verdicts"]["base"] for row in rows} == {"cut"}


def test_gates_are_judged_and_shut_ones_named(answered: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = run("evaluate.gates={dpo.seen.exact_match: 0.75, dpo.seen.valid_json: 1}")["gates"]
    assert (found["verdict"], caplog.messages) == ("passed", [])
    found = run("evaluate.gates={dpo.seen.exact_match: 0.8, dpo.seen.valid_json: 1}")["gates"]
    assert found["verdict"] == "failed"
    assert found["checks"]["dpo.seen.exact_match"] == {"found": 0.75, "expected": 0.8, "passed": False}
    assert "dpo.seen.exact_match: found 0.75, expected at least 0.8" in caplog.text


def test_a_gate_on_a_number_that_is_not_there_is_refused_with_the_near_ones(answered: Path) -> None:
    with pytest.raises(ConfigError, match=r"found dpo\.sen\.exact_match, expected .* such as dpo\.seen\.exact_match"):
        run("evaluate.gates={dpo.sen.exact_match: 0.8}")
    assert not paths.metrics("evaluate").exists()


def test_the_same_answers_give_the_same_bytes(answered: Path) -> None:
    run()
    first = paths.metrics("evaluate").read_bytes(), paths.SAMPLES.read_bytes()
    run()
    assert (paths.metrics("evaluate").read_bytes(), paths.SAMPLES.read_bytes()) == first


def test_no_model_is_loaded(answered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "finetune.models.loaders", None)
    run()


def test_the_whole_pipeline_ends_in_a_report(tiny_run: Path) -> None:
    report = json.loads((tiny_run / paths.metrics("evaluate")).read_text())
    assert report.pop("gates") == {"verdict": "none", "checks": {}}
    assert set(report) == {"base", "train", "dpo"}
    assert report["train"]["preference"]["margin"] == 0
    for model in report.values():
        assert {"seen", "new_home", "new_phrasing", "validation", "preference"} <= set(model)
    assert sum(report["base"][name]["records"] for name in ("seen", "new_home", "new_phrasing")) == 24


def test_a_missing_file_of_answers_is_named(answered: Path) -> None:
    (paths.ANSWERS / "dpo.jsonl").unlink()
    with pytest.raises(DataError, match=r"reports/answers/dpo\.jsonl: found no such file"):
        run()
    assert not paths.metrics("evaluate").exists()


def test_answers_to_another_test_set_are_refused(answered: Path) -> None:
    write("dpo", ["one more", *ANSWERS["dpo"]])
    with pytest.raises(DataError, match="base and dpo were not asked the same"):
        run()
    assert not paths.SAMPLES.exists()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"metrics": ["exact_match", "rouge"]},
            r"evaluate\.metrics: found 'rouge', expected names of folders .*exact_match, .*valid_json",
        ),
        ({"metrics": ["valid_json"]}, r"evaluate\.metrics: .*expected exact_match among them"),
        ({"metrics": ["exact_match", "exact_match"]}, r"evaluate\.metrics: .*each only once"),
        ({"metrics": ["../exact_match"]}, r"evaluate\.metrics"),
        ({"confidence": 95.0}, r"evaluate\.confidence: found 95"),
        ({"samples": 0}, r"evaluate\.samples: found 0"),
    ],
)
def test_impossible_settings_are_refused_before_anything_runs(changed: dict[str, Any], says: str) -> None:
    values = composed().model_dump()
    values["evaluate"] |= changed
    with pytest.raises(ConfigError, match=says):
        validate(values)


def test_a_full_disk_leaves_no_half_report(answered: Path) -> None:
    with full_disk(), pytest.raises(OutputError, match="the disk is full"):
        run()
    assert not list(paths.REPORTS.glob("*evaluate.json*"))
    assert not list(paths.REPORTS.glob("*samples.jsonl*"))


def test_ctrl_c_leaves_nothing_and_the_same_command_then_works(answered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(samples, "side_by_side", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert not paths.metrics("evaluate").exists()
    run()
