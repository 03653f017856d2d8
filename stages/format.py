"""Records → token ids, and which of them are learned. data/prepared, the model's tokenizer → data/formatted, reports/format.json

python -m stages.format format.max_length=128
"""

from finetune.models import lean  # noqa: F401  # isort: skip

import logging

from finetune import outputs, paths, tracking
from finetune.config.schema import Config
from finetune.config.stage import run, stage
from finetune.data import formatting, tables
from finetune.data.chat import Chat
from finetune.data.formatting import Split
from finetune.models.base import load_tokenizer

log = logging.getLogger(__name__)


@stage("model", "format")
def main(cfg: Config) -> None:
    """Write a table of token ids for every prepared file."""
    chat = Chat(load_tokenizer(cfg.model), cfg.model.name)
    sft = {name: Split(paths.PREPARED / "sft" / f"{name}.jsonl") for name in ("train", "validation", "test")}
    preference = {name: Split(paths.PREPARED / "preference" / f"{name}.jsonl") for name in ("train", "test")}

    with outputs.folder(paths.FORMATTED) as folder:
        for name, split in sft.items():
            rows = formatting.rows(split, formatting.conversation, chat, cfg.format)
            tables.write(folder / "sft" / f"{name}.parquet", tables.SFT, rows)
        for name, split in preference.items():
            rows = formatting.rows(split, formatting.preference, chat, cfg.format)
            tables.write(folder / "preference" / f"{name}.parquet", tables.PREFERENCE, rows)

    reports = {
        "sft": {name: split.report() for name, split in sft.items()},
        "preference": {name: split.report() for name, split in preference.items()},
    }
    dropped = sum(split.dropped for split in (*sft.values(), *preference.values()))
    outputs.write_json(paths.metrics("format"), {**reports, "dropped": dropped})
    for kind, splits in reports.items():
        for name, counts in splits.items():
            tracking.metrics({f"{kind}/{name}/{what}": number for what, number in counts.items()})
            told = f"{counts['tokens']:,} tokens, {counts['supervised_tokens']:,} of them learned"
            lengths = f"median length {counts['median']}, longest {counts['longest']}"
            log.info("%s/%s: %s records, %s, %s", kind, name, f"{counts['records']:,}", told, lengths)
    log.info("dropped %s records longer than format.max_length=%d", f"{dropped:,}", cfg.format.max_length)


if __name__ == "__main__":
    run(main)
