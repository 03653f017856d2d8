"""Direct preference optimisation. data/reference, models/train → models/dpo, reports/dpo.json

python -m stages.dpo dpo.beta=0.3
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
from finetune.training import guards, trainers, world
from finetune.training.seeding import seed_everything, strictly
from finetune.training.steps import PREFERENCE, Steps

PAIRS = paths.REFERENCE / "train.parquet"

log = logging.getLogger(__name__)


@stage("seed", "threads", "instructions", "model", "dpo")
def main(cfg: Config) -> None:
    """Tune the trained model on pairs, starting from, and measured against, the bytes of models/train."""
    seed_everything(cfg.seed)
    tokenizer = load_tokenizer(cfg.model)
    model, tuned = adapters.for_preferences(cfg.model, paths.TRAIN, cfg.dpo, cfg.seed)

    from finetune.training import preference  # after the model: Unsloth rewrites trl's trainers as it is imported

    pairs = trainers.read(PAIRS, preference.COLUMNS)
    guards.judge_passes("dpo", cfg.dpo, len(pairs), world.size())
    counts = trainers.parameters(model)
    log.info("%s of %s parameters, %s pairs", f"{counts['trainable_parameters']:,}", f"{counts['parameters']:,}", f"{len(pairs):,}")

    steps = Steps("preferring", PREFERENCE)
    with kept.work("dpo", cfg, [paths.REFERENCE, paths.TRAIN], paths.metrics("dpo")) as resumable, strictly():
        with tempfile.TemporaryDirectory() as scratch:
            trainer = preference.trainer(model, tokenizer, pairs, cfg.model, cfg.dpo, cfg.seed, steps, Path(scratch))
            first = trainer.first()
            preference.check_first(first, cfg.dpo.beta, exact=cfg.model.dtype == "float32" and not tuned.four_bit)
            trainer.train_through(resumable, trainers.names(PAIRS, None))

        if world.main_process():
            report = {
                "loss": steps.at_the_end("loss"),
                "dpo_loss": steps.at_the_end("dpo_loss"),
                "first": {"loss": first.loss, "margin": first.margin},
                "beta": cfg.dpo.beta,
                "pairs": len(pairs),
                "steps_total": len(steps.rows),
                "steps": steps.rows,
                "world_size": world.size(),
                **counts,
            }
            adapters.save(paths.DPO, tuned, model, tokenizer, cfg.model)
            outputs.write_json(paths.metrics("dpo"), report)
            log.info("%d steps: DPO's loss %.3f from %.4f", report["steps_total"], report["dpo_loss"], first.loss)
    world.leave()


if __name__ == "__main__":
    run(main)
