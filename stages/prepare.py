"""A source → checked records, split. data/raw or the embedded data → data/prepared, reports/prepare.json

python -m stages.prepare data.train=800
"""

import heapq
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from finetune import outputs, paths, tracking
from finetune.config.schema import Config, Prepare, SmartHome
from finetune.config.stage import run, stage
from finetune.data import jsonl, smart_home
from finetune.data.records import Conversation, Preference
from finetune.errors import DataError

Record = TypeVar("Record", Conversation, Preference)

log = logging.getLogger(__name__)


@stage("seed", "data", "prepare")
def main(cfg: Config) -> None:
    """Write the records of every split, and what was left out and why."""
    prepared = smart_home.build(cfg.seed, cfg.data) if isinstance(cfg.data, SmartHome) else jsonl.build(cfg.data)
    refused = Counter(refusal.rule for refusal in prepared.refused)
    slices: Counter[str] = Counter()

    records = {**prepared.sft, "train": _first(prepared.sft["train"], "max_records", cfg.prepare, refused)}
    pairs = {**prepared.preference, "train": _first(prepared.preference["train"], "max_pairs", cfg.prepare, refused)}

    with outputs.folder(paths.PREPARED) as folder:
        sft = {split: _write(folder / "sft", split, rows, slices) for split, rows in records.items()}
        if sft["train"] < cfg.prepare.min_records:
            found = f"found {sft['train']:,} training records, expected prepare.min_records={cfg.prepare.min_records} at least"
            raise DataError("too few records to learn from:", [found], "add records, or lower prepare.min_records")
        preference = {split: _write(folder / "preference", split, rows, Counter()) for split, rows in pairs.items()}
        outputs.write_jsonl(folder / "refused.jsonl", (refusal.row() for refusal in prepared.refused))

    kept = sum(sft.values()) + sum(preference.values())
    report = {
        "read": prepared.read,
        "kept": kept,
        "refused": dict(refused),
        "splits": {"sft": sft, "preference": preference},
        "slices": dict(slices),
        "license": cfg.data.license,
    }
    outputs.write_json(paths.metrics("prepare"), report)
    tracking.metrics({"read": prepared.read, "kept": kept, "refused": refused.total()})
    reasons = ", ".join(f"{number:,} {rule}" for rule, number in sorted(refused.items())) or "none refused"
    log.info("kept %s of %s records: %s", f"{kept:,}", f"{prepared.read:,}", reasons)


def _write(folder: Path, split: str, records: Iterable[Conversation | Preference], slices: Counter[str]) -> int:
    """Write the records of a split, count those of the test by slice, and return how many there are."""

    def rows() -> Iterator[dict[str, Any]]:
        for record in records:
            if split == "test":
                slices[record.slice] += 1
            yield record.row()

    return outputs.write_jsonl(folder / f"{split}.jsonl", rows())


def _first(records: Iterable[Record], setting: str, settings: Prepare, refused: Counter[str]) -> Iterable[Record]:
    """The records with the smallest content hashes, as many as the setting wants; the others are counted as refused."""
    most = getattr(settings, setting)
    if most is None:
        return records
    numbers = count()
    kept = [record for record, _ in heapq.nsmallest(most, zip(records, numbers, strict=False), key=lambda pair: pair[0].id)]
    if beyond := next(numbers) - len(kept):
        refused[f"beyond prepare.{setting}"] += beyond
    return kept


if __name__ == "__main__":
    run(main)
