"""The tuned model as others can use it. models/dpo, models/train, data/formatted, reports → models/export, reports/export.json

    python -m stages.export export.dtype=bfloat16

Merged weights that say something else than adapter and base together are refused, and nothing is left of them.
"""

from finetune.models import lean  # noqa: F401  # isort: skip

import logging
import shutil

from finetune import outputs, paths
from finetune.config.schema import Config
from finetune.config.stage import run, stage
from finetune.data import tables
from finetune.errors import ConfigError
from finetune.evaluation.generation import end_token, end_tokens
from finetune.exporting import card, manifest, merged
from finetune.models import adapters
from finetune.models.base import load_tokenizer
from finetune.training.seeding import sum_in_one_order

log = logging.getLogger(__name__)


@stage("seed", "threads", "instructions", "model", "data", "prepare", "format", "train", "reference", "dpo", "export")
def main(cfg: Config) -> None:
    """Write adapter and merged weights, prove that these say what the tuned model says, and describe them."""
    sum_in_one_order()
    tuned = adapters.Tuned.of(paths.DPO)
    adapter = cfg.export.adapter and tuned.method != "full"
    if not adapter and not cfg.export.merged:
        found = f"export.merged: found false with dpo.method={tuned.method}, which leaves no adapter, expected true; set export.merged=true"
        raise ConfigError("nothing would be exported:", [found])
    report = {}
    tokenizer = load_tokenizer(cfg.model)
    with outputs.folder(paths.EXPORT) as part:
        exported = {}
        if adapter:
            (part / "adapter").mkdir()
            for name in (adapters.WEIGHTS, adapters.CONFIG):
                shutil.copyfile(paths.DPO / name, part / "adapter" / name)
            exported["adapter"] = manifest.parameters(part / "adapter")
        if cfg.export.merged:
            test = tables.read(paths.FORMATTED / "sft" / "test.parquet")
            rows = [record["input_ids"] for record in test[: merged.PROMPTS]]
            expected = merged.logits(adapters.load_tuned(cfg.model, paths.DPO, merge=False), rows)

            model = adapters.load_tuned(cfg.model, paths.DPO)
            tuned_type = model.dtype  # of full weights float32; saving changes it
            ends = end_tokens(model, end_token(tokenizer, [record["input_ids"][-1] for record in test]))
            merged.save(model, tokenizer, ends, part / "merged", cfg.export)
            exported["merged"] = manifest.parameters(part / "merged")
            report["max_logit_difference"] = merged.difference(part / "merged", cfg.model, tuned_type, rows, expected)

        thinks = "enable_thinking" in str(tokenizer.chat_template)
        prepared, evaluated = (outputs.read_json(paths.metrics(name)) for name in ("prepare", "evaluate"))
        outputs.write_text(part / "README.md", card.write(cfg, tuned, exported, prepared, evaluated, thinks=thinks))
        described = manifest.describe(cfg, tuned, exported, part, paths.FORMATTED)
        outputs.write_json(part / "manifest.json", described)
        sizes = [file.stat().st_size for file in part.rglob("*") if file.is_file()]

    report |= {"files": len(sizes), "bytes": sum(sizes), "parameters": max(exported.values())}
    outputs.write_json(paths.metrics("export"), report)
    parts = ", ".join(f"{name} of {count:,} parameters" for name, count in exported.items())
    none = "; no adapter, because every weight was trained" if tuned.method == "full" else ""
    log.info("%s, in %d files of %s bytes%s", parts, len(sizes), f"{sum(sizes):,}", none)


if __name__ == "__main__":
    run(main)
