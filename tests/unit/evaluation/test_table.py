"""The table that ends an evaluation fits a terminal and leaves out what was not measured."""

from typing import Any

from finetune.evaluation import table


def report(**extra: Any) -> dict[str, Any]:
    score = {"records": 1500, "exact_match": 0.5, "exact_match_low": 0.41, "exact_match_high": 0.6, "cut": 0}
    pairs = {"pairs": 9, "accuracy": 1.0, "accuracy_low": 1.0, "accuracy_high": 1.0, "margin": 0.5, "margin_low": 0.1, "margin_high": 0.9}
    scored = {"seen": score, "new_home": score, "validation": {"loss": 1.0, "perplexity": 2.718}, "preference": pairs, **extra}
    return {"base": scored, "train": scored, "dpo": scored}


def test_every_model_has_a_row_in_every_slice() -> None:
    lines = table.text(report(), ["exact_match"]).splitlines()
    assert max(map(len, lines)) <= table.WIDTH
    assert sum("50.0 % (41 to 60)" in line for line in lines) == 6
    assert sum("+0.500 (+0.100 to +0.900)" in line for line in lines) == 3
    assert any(line.split()[:4] == ["new", "home", "train", "1,500"] for line in lines)


def test_what_was_not_measured_is_empty_and_the_4_bit_line_is_no_slice() -> None:
    text = table.text(report(validation_4bit={"loss": 1.0}, loss_distance_4bit=0.01), ["exact_match", "intent"])
    assert "intent" in text
    assert "4bit" not in text


def test_metrics_that_do_not_fit_beside_each_other_go_below() -> None:
    names = ["exact_match", "ends_with_question", "length_ratio", "sections", "rouge_l"]
    full = {
        name: {f"{metric}{end}": 1.0 for metric in names for end in ("", "_low", "_high")} | {"records": 150}
        for name in ("all", "new_phrasing")
    }
    text = table.text(report(**full), names)
    assert max(map(len, text.splitlines())) <= table.WIDTH
    assert text.count("100.0 % (100 to 100)") >= 3 * 2 * len(names)
    assert "…" not in text
    assert all(name.replace("_", " ") in text for name in names)
