"""The pairs that dpo trains on, with the trained model's log-probabilities. data/formatted/preference, models/train → data/reference

python -m stages.reference reference.batch_size=16
"""

from finetune.models import lean  # noqa: F401  # isort: skip

import logging

import pyarrow.parquet as pq

from finetune import outputs, paths
from finetune.config.schema import Config
from finetune.config.stage import run, stage
from finetune.data.tables import table
from finetune.models import adapters
from finetune.models.base import load_tokenizer
from finetune.models.loaders import compute_dtype
from finetune.models.scoring import label_logps, labelled

log = logging.getLogger(__name__)


@stage("threads", "model", "reference")
def main(cfg: Config) -> None:
    """Score both answers of each pair as dpo's first forward pass will: adapter unmerged, over the base it was trained on."""
    pad_id = load_tokenizer(cfg.model).pad_token_id
    tuned = adapters.Tuned.of(paths.TRAIN)
    pairs = table(paths.FORMATTED / "preference" / "train.parquet", ["id", "prompt_ids", "chosen_ids", "rejected_ids"])
    model = adapters.load_tuned(cfg.model, paths.TRAIN, four_bit=tuned.four_bit, merge=False)
    prompts = pairs["prompt_ids"].to_pylist()

    logps = {}
    for kind in ("chosen", "rejected"):
        answers = pairs[f"{kind}_ids"].to_pylist()
        rows = [labelled(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        logps[kind] = label_logps(model, rows, cfg.reference.batch_size, pad_id, f"scoring {kind}", compute_dtype(cfg.model)).numpy()

    with outputs.folder(paths.REFERENCE) as part:
        for kind, values in logps.items():
            pairs = pairs.append_column(f"ref_{kind}_logps", [values])
        pq.write_table(pairs, part / "train.parquet")
    report = {"pairs": len(pairs), **{f"{kind}_logp": float(values.mean(dtype="float64")) for kind, values in logps.items()}}
    outputs.write_json(paths.metrics("reference"), report)
    log.info("%s pairs: chosen %.2f, rejected %.2f", f"{len(pairs):,}", report["chosen_logp"], report["rejected_logp"])


if __name__ == "__main__":
    run(main)
