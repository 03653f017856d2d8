"""Records → token ids, and which of them are learned. data/prepared, the tokenizer → data/formatted, reports/format.json, format.html

python -m stages.format format.max_length=128
"""

from finetune.models import lean  # noqa: F401  # isort: skip

import logging

from finetune import outputs, paths, tracking
from finetune.config.schema import Config
from finetune.config.stage import run, stage
from finetune.data import formatting
from finetune.data.chat import Chat
from finetune.models.base import load_tokenizer
from finetune.reporting import mask

log = logging.getLogger(__name__)


@stage("model", "format")
def main(cfg: Config) -> None:
    """Write a table of token ids for every prepared file, and show of some of its records what is learned."""
    tokenizer = load_tokenizer(cfg.model)
    chat = Chat(tokenizer, cfg.model.name)

    counts = {}
    with outputs.folder(paths.FORMATTED) as folder:
        for name, kind in formatting.KINDS.items():
            prepared, table = paths.PREPARED / f"{name}.jsonl", folder / f"{name}.parquet"
            counts[name] = formatting.write(prepared, kind, chat, cfg.format, table)

    reports = {name: count.report(cfg.format.max_length) for name, count in counts.items()}
    totals = {what: sum(report[what] for report in reports.values()) for what in ("dropped", "cut")}
    nested = {kind: {name.partition("/")[2]: reports[name] for name in reports if name.startswith(kind)} for kind in ("sft", "preference")}
    outputs.write_json(paths.metrics("format"), {**nested, **totals})
    outputs.write_text(paths.MASK, mask.page({name: count.samples for name, count in counts.items()}, reports, tokenizer, cfg))
    tracking.artifact(paths.MASK)
    for name, report in reports.items():
        tracking.metrics({f"{name}/{what}": number for what, number in report.items() if what != "histogram"})
        log.info("%s: %s", name, formatting.told(report))
    limit = f"longer than format.max_length={cfg.format.max_length}"
    log.info("dropped %s records and cut %s, %s", f"{totals['dropped']:,}", f"{totals['cut']:,}", limit)


if __name__ == "__main__":
    run(main)
