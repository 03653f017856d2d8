"""Token ids as the stages format and reference write them, drawn at random: what training tests need, without the stages before."""

import random
from pathlib import Path

from finetune.data import tables

VOCABULARY = 440  # of the tiny model's tokenizer
END = 2


def write_formatted(folder: Path, records: int = 24, pairs: int = 16, times: int = 1) -> Path:
    """Write data/formatted under the folder, and return it. times: how many times 6 to 32 tokens long."""
    draw = random.Random(5)
    for split, count in (("train", records), ("validation", 5)):
        tables.write(folder / "sft" / f"{split}.parquet", tables.SFT, [_record(draw, row, times) for row in range(count)])
    tables.write(folder / "preference" / "train.parquet", tables.PREFERENCE, [_pair(draw, row, times) for row in range(pairs)])
    return folder


def _record(draw: random.Random, row: int, times: int) -> dict[str, object]:
    prompt, answer = _ids(draw, 4, 20, times), [*_ids(draw, 2, 12, times), END]
    return {"id": f"{row:016x}", "slice": "seen", "input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def _pair(draw: random.Random, row: int, times: int) -> dict[str, object]:
    chosen, rejected = [*_ids(draw, 2, 12, times), END], [*_ids(draw, 2, 12, times), END]
    return {"id": f"{row:016x}", "slice": "seen", "prompt_ids": _ids(draw, 4, 20, times), "chosen_ids": chosen, "rejected_ids": rejected}


def _ids(draw: random.Random, least: int, most: int, times: int) -> list[int]:
    return [draw.randrange(3, VOCABULARY) for _ in range(times * draw.randint(least, most))]
