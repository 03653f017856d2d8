"""The prompts that every model is asked: the test set as token ids, with the words beside them."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from finetune import outputs, paths
from finetune.data import tables
from finetune.errors import DataError
from finetune.models.scoring import IGNORED

TEXTS = paths.PREPARED / "sft" / "test.jsonl"
TOKENS = paths.FORMATTED / "sft" / "test.parquet"


@dataclass(frozen=True)
class Prompt:
    """One of the test set."""

    id: str
    slice: str
    text: str
    """What the user said last."""
    expected: str
    """What should be answered."""
    ids: list[int]
    """Everything that the chat template puts before an answer."""
    last: int
    """The token that the right answer ends in."""


def test_prompts(limit: int | None) -> list[Prompt]:
    """The test prompts in their order, at most `limit` of each slice.

    Passed over is what asks nothing: plain texts, and conversations whose last answer format cut away.

    Raises:
        DataError: the tokens were made from other texts, or none of these asks anything.
    """
    texts = {record["id"]: record["messages"] for record in outputs.read_jsonl(TEXTS)}
    records = tables.read(TOKENS)
    strangers = [f"{TOKENS}: found record {record['id']}, which {TEXTS} has not" for record in records if record["id"] not in texts]
    if strangers:
        raise DataError("the test set was formatted from other texts:", strangers, "run `dvc repro`")
    prompts = []
    taken: Counter[str] = Counter()
    for record in records:
        if len(texts[record["id"]]) == 1 or record["labels"][-1] == IGNORED:
            continue
        taken[record["slice"]] += 1
        if limit is None or taken[record["slice"]] <= limit:
            prompts.append(_prompt(record, texts[record["id"]]))
    if not prompts:
        found = f"{TEXTS}: found {len(records):,} plain or cut texts, expected at least one question with its answer"
        raise DataError("the test set asks nothing:", [found], "add a source with questions and answers, or a larger share of them")
    return prompts


def _prompt(record: dict[str, Any], messages: list[dict[str, str]]) -> Prompt:
    start = len(record["labels"])
    while record["labels"][start - 1] != IGNORED:  # to the last answer's beginning; earlier ones, learned too, belong to its prompt
        start -= 1
    ids = record["input_ids"]
    return Prompt(record["id"], record["slice"], messages[-2]["content"], messages[-1]["content"], ids[:start], ids[-1])
