"""How good base, train and dpo are, on the same prompts. reports/answers, likelihoods, dpo.json → reports/evaluate.json, samples.jsonl

    python -m stages.evaluate evaluate.confidence=0.9

No model is loaded: everything is made from what the models answered, so another metric or interval costs seconds.
"""

import logging
from typing import Any

from finetune import outputs, paths, tracking
from finetune.config.schema import Config
from finetune.config.stage import run, stage
from finetune.evaluation import comparison, gates, readings, samples, scores, table

log = logging.getLogger(__name__)


@stage("seed", "instructions", "evaluate")
def main(cfg: Config) -> None:
    """Judge each answer, put an interval round each score, set the three side by side, and see which gates they pass."""
    answers, likelihoods = readings.answers(), readings.likelihoods()
    beta = outputs.read_json(paths.metrics("dpo"))["beta"]
    judgements = {model: scores.judged(rows, cfg.evaluate) for model, rows in answers.items()}
    slices = scores.slices(answers["base"])

    reference = likelihoods["train"]["preference"]
    report: dict[str, dict[str, Any]] = {}
    for model, rows in answers.items():
        known = likelihoods[model]
        report[model] = {
            **{name: scores.of_slice(rows, judgements[model], name, cfg.evaluate, cfg.seed) for name in slices},
            "validation": comparison.validation(known["validation"]),
            "preference": comparison.preference(known["preference"], reference, beta, cfg.evaluate, cfg.seed),
        }
        if known["validation_4bit"]:  # how far the tuned model lies from the 4-bit base that it was trained over
            loss = comparison.validation(known["validation_4bit"])["loss"]
            report[model] |= {"validation_4bit": {"loss": loss}, "loss_distance_4bit": loss - report[model]["validation"]["loss"]}

    judged = gates.checked(report, cfg.evaluate.gates)
    exact = {model: judgement["exact_match"] for model, judgement in judgements.items()}
    outputs.write_jsonl(paths.SAMPLES, samples.side_by_side(answers, exact, cfg.evaluate.samples))
    outputs.write_json(paths.metrics("evaluate"), {**report, "gates": judged})
    tracking.artifact(paths.SAMPLES)
    log.info(
        "%d prompts in %d slices, %d pairs:\n%s", len(exact["base"]), len(slices), len(reference), table.text(report, cfg.evaluate.metrics)
    )
    for sentence in gates.sentences(judged):
        log.warning("a gate is shut, so this model will not be promoted: %s", sentence)


if __name__ == "__main__":
    run(main)
