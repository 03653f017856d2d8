"""The pairs that dpo trains on, with the trained model's log-probabilities. data/formatted/preference, models/train → data/reference

    python -m stages.reference reference.batch_size=16

Given pairs, or with `reference=on_policy` pairs of the trained model's own answers, which are then shown in data/reference/samples.jsonl.
"""

from finetune.models import lean  # noqa: F401  # isort: skip

import logging

import pyarrow.parquet as pq

from finetune import outputs, paths
from finetune.checkpoints import kept
from finetune.config.schema import Config, OnPolicy
from finetune.config.stage import run, stage
from finetune.evaluation import on_policy, pairs
from finetune.models import adapters
from finetune.models.base import load_tokenizer
from finetune.models.loaders import compute_dtype
from finetune.models.scoring import label_logps, labelled
from finetune.training.seeding import seed_everything, strictly

log = logging.getLogger(__name__)


@stage("seed", "threads", "instructions", "model", "reference")
def main(cfg: Config) -> None:
    """Score both answers of each pair as dpo's first forward pass will: adapter unmerged, over the base it was trained on."""
    seed_everything(cfg.seed)
    tokenizer, tuned = load_tokenizer(cfg.model), adapters.Tuned.of(paths.TRAIN)
    settings, pad_id, arithmetic = cfg.reference, tokenizer.pad_token_id, compute_dtype(cfg.model)
    with kept.work("reference", cfg, [paths.FORMATTED / "preference", paths.TRAIN], paths.metrics("reference")) as resumable:
        if isinstance(settings, OnPolicy):
            sampled = on_policy.ask(cfg.model, settings, tokenizer, cfg.seed, resumable.items("samples"))
            preferred = on_policy.pairs(sampled, settings)
        else:
            preferred = pairs.given(tokenizer)

        model = adapters.load_tuned(cfg.model, paths.TRAIN, four_bit=tuned.four_bit, merge=False)
        logps = {}
        for side in ("chosen", "rejected"):
            rows = [labelled(pair.prompt_ids, getattr(pair, f"{side}_ids")) for pair in preferred]
            with strictly():  # as dpo computes them
                scored = label_logps(model, rows, settings.batch_size, pad_id, f"scoring {side}", arithmetic, resumable.items(side))
            logps[f"{side}_logps"] = scored.numpy()

        report = pairs.measured(preferred, **logps)
        with outputs.folder(paths.REFERENCE) as folder:
            pq.write_table(pairs.table(preferred, **logps), folder / "train.parquet")
            if isinstance(settings, OnPolicy):
                report["sampled"] = on_policy.counted(sampled)
                outputs.write_jsonl(folder / "samples.jsonl", on_policy.shown(sampled, settings, tokenizer))
                log.info("%(prompts)d prompts: %(all_right)d all right, %(all_wrong)d all wrong; %(cut)d answers cut", report["sampled"])
        outputs.write_json(paths.metrics("reference"), report)
    log.info("%s pairs: chosen %.2f, rejected %.2f", f"{len(preferred):,}", report["chosen_logp"], report["rejected_logp"])
    for line in pairs.told(report):
        log.info("%s", line)
    for doubt in pairs.doubts(report):
        log.warning("%s", doubt)


if __name__ == "__main__":
    run(main)
