"""Supervised fine-tuning. data/formatted/sft, the base model → models/train, reports/train.json

python -m stages.train train.r=32
"""

from finetune.models import lean  # noqa: F401  # isort: skip

import logging
import tempfile
from pathlib import Path

from finetune import outputs, paths
from finetune.checkpoints import kept
from finetune.config.schema import Config
from finetune.config.stage import run, stage
from finetune.models import adapters
from finetune.models.base import load_tokenizer
from finetune.models.loaders import compute_dtype
from finetune.training import guards, trainers, world
from finetune.training.seeding import seed_everything, strictly
from finetune.training.steps import SUPERVISED, Steps

RECORDS, VALIDATION = (paths.FORMATTED / "sft" / f"{split}.parquet" for split in ("train", "validation"))

log = logging.getLogger(__name__)


@stage("seed", "threads", "instructions", "model", "train")
def main(cfg: Config) -> None:
    """Tune the base model on the formatted records."""
    seed_everything(cfg.seed)
    tokenizer = load_tokenizer(cfg.model)
    model, tuned = adapters.for_training(cfg.model, cfg.train, cfg.seed)

    from finetune.training import packing, supervised  # after the model: Unsloth rewrites trl's trainers as it is imported

    records, validation = (trainers.read(path, supervised.COLUMNS) for path in (RECORDS, VALIDATION))
    rows, plan, packed = records, None, {}
    if cfg.train.packing:
        plan = packing.plan([len(ids) for ids in records["input_ids"]], cfg.train.max_length)
        rows, packed = packing.pack(records, plan), {"packing": plan.report()}
        packing.refuse_mixing(model, rows, compute_dtype(cfg.model))
        log.info("%s", plan)
    guards.judge_passes("train", cfg.train, len(records), world.size(), len(rows))
    counts = trainers.parameters(model)
    log.info("%s of %s parameters, %s records", f"{counts['trainable_parameters']:,}", f"{counts['parameters']:,}", f"{len(records):,}")

    steps = Steps("training", SUPERVISED)
    with kept.work("train", cfg, [paths.FORMATTED / "sft"], paths.metrics("train")) as resumable, strictly():
        with tempfile.TemporaryDirectory() as scratch:
            trainer = supervised.trainer(model, tokenizer, rows, cfg.model, cfg.train, cfg.seed, steps, Path(scratch))
            trainer.train_through(resumable, trainers.names(RECORDS, plan.rows if plan else None))

        if world.main_process():
            batch_size, items = cfg.train.per_device_train_batch_size, resumable.items("validation")
            arithmetic = compute_dtype(cfg.model)
            report = {
                "loss": steps.at_the_end("loss"),
                "validation_loss": supervised.validation_loss(model, validation, batch_size, tokenizer.pad_token_id, arithmetic, items),
                "records": len(records),
                "supervised_tokens": supervised.supervised_tokens(records),
                "steps_total": len(steps.rows),
                "steps": steps.rows,
                "world_size": world.size(),
                **packed,
                **counts,
            }
            adapters.save(paths.TRAIN, tuned, model, tokenizer, cfg.model)
            outputs.write_json(paths.metrics("train"), report)
            log.info("%d steps: loss %.3f, on validation %.3f", report["steps_total"], report["loss"], report["validation_loss"])
    world.leave()


if __name__ == "__main__":
    run(main)
