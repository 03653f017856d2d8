"""The model card says what the hub reads, what the model was made from, and how good it is."""

from typing import Any

import pytest
from huggingface_hub import ModelCard

from finetune.exporting import card
from finetune.models.adapters import Tuned
from tests.conftest import composed

PREPARED = {"splits": {"sft": {"train": 1500}, "preference": {"train": 128}}}


def evaluated(**metrics: float) -> dict[str, Any]:
    scores = {
        f"{name}{end}": value
        for name, value in metrics.items()
        for end, value in (("", value), ("_low", value - 0.1), ("_high", value + 0.1))
    }
    pairs = {
        "pairs": 100,
        "accuracy": 0.9,
        "accuracy_low": 0.8,
        "accuracy_high": 1.0,
        "margin": 1.5,
        "margin_low": 1.25,
        "margin_high": 1.75,
    }
    model = {
        "new_home": {"records": 50, "cut": 0, "confidence": 0.95, **scores},
        "seen": {"records": 150, "cut": 0, "confidence": 0.95, **scores},
        "validation": {"loss": 0.5, "perplexity": 1.65},
        "preference": pairs,
        "loss_distance_4bit": 0.01,
    }
    return {"base": model, "dpo": model, "train": model}  # sorted, as in the file


def written(
    *overrides: str, tuned: Tuned | None = None, exported: dict[str, int] | None = None, thinks: bool = False, **metrics: float
) -> str:
    parts = {"adapter": 4_000, "merged": 1_000_000} if exported is None else exported
    scores = evaluated(**metrics or {"exact_match": 0.75})
    return card.write(composed(*overrides), tuned or Tuned("lora", "base"), parts, PREPARED, scores, thinks=thinks)


def test_a_model_that_thinks_aloud_is_told_not_to_in_the_example() -> None:
    assert "enable_thinking=False)" in written(thinks=True)
    assert "enable_thinking" not in written()


def test_the_header_is_what_the_hub_reads() -> None:
    assert ModelCard(written("model=qwen3_0_6b")).data.to_dict() == {  # type: ignore[no-untyped-call]
        "base_model": "Qwen/Qwen3-0.6B",
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["conversational", "dpo", "lora", "sft"],
    }
    assert ModelCard(written()).data.get("base_model") == "smollm2_135m"


def test_scores_have_intervals_and_begin_with_the_slice_that_is_like_the_training_data() -> None:
    text = written(exact_match=0.75, intent=0.8)
    rows = [line for line in text.splitlines() if line.startswith(("| seen", "| new home"))]
    assert rows[0] == "| seen | base model | 150 | 75.0 % (65.0 to 85.0) | 80.0 % (70.0 to 90.0) |"
    assert rows[2] == "| seen | **this model** | 150 | 75.0 % (65.0 to 85.0) | 80.0 % (70.0 to 90.0) |"
    assert rows[3].startswith("| new home | base model")
    assert "95% bootstrap intervals" in text
    assert "on 100 held-out pairs, against the model after the first step: 1.500 (1.250 to 1.750)" in text


def test_it_says_what_the_model_was_made_from_and_under_which_licences() -> None:
    text = written("dpo.beta=0.3", "data.license='CC0-1.0, by nobody'")
    assert "LoRA on 1,500 conversations" in text
    assert "on 128 pairs of a better and a worse answer (beta 0.3)" in text
    assert "licence and attribution: CC0-1.0, by nobody" in text
    assert composed().model.revision in text
    assert "on pairs of a right answer and a wrong one that the model gave after the first step (beta" in written("reference=on_policy")


def test_a_metric_that_does_not_apply_to_a_slice_is_empty_there() -> None:
    scores = evaluated(exact_match=0.75, intent=0.8)
    scores["base"]["new_home"] = {"records": 50, "exact_match": 0.5, "exact_match_low": 0.4, "exact_match_high": 0.6}
    text = card.write(composed(), Tuned("lora", "base"), {"merged": 1}, PREPARED, scores, thinks=False)
    assert "| new home | base model | 50 | 50.0 % (40.0 to 60.0) |  |" in text


@pytest.mark.parametrize(("part", "other"), [("adapter", "merged"), ("merged", "adapter")])
def test_only_what_is_there_is_explained(part: str, other: str) -> None:
    text = written(exported={part: 4_000})
    assert f"`{part}/`, 4,000 parameters" in text
    assert f"`{other}/`" not in text


def test_the_system_message_is_part_of_the_use_only_where_there_is_one() -> None:
    assert '{"role": "system", "content": "Answer \\"so\\"."}' in written("data.system='Answer \"so\".'")
    without = written("data=files")
    assert '"system"' not in without
    assert "system message" not in without


def test_an_adapter_over_weights_that_are_not_exported_says_so() -> None:
    text = written("train=full", tuned=Tuned("lora", "models/train"))
    assert "the weights after the first step, which are not here" in text
