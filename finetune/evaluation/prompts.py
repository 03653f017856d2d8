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
    end: int
    """The token that it puts after one."""


def test_prompts(limit: int | None) -> list[Prompt]:
    """The test prompts in their order, at most `limit` of each slice.

    Raises:
        DataError: the tokens were made from other texts.
    """
    texts = {record["id"]: record["messages"] for record in outputs.read_jsonl(TEXTS)}
    records = tables.read(TOKENS)
    strangers = [f"{TOKENS}: found record {record['id']}, which {TEXTS} has not" for record in records if record["id"] not in texts]
    if strangers:
        raise DataError("the test set was formatted from other texts:", strangers, "run `dvc repro`")
    prompts = []
    taken: Counter[str] = Counter()
    for record in records:
        taken[record["slice"]] += 1
        if limit is None or taken[record["slice"]] <= limit:
            prompts.append(_prompt(record, texts[record["id"]]))
    return prompts


def _prompt(record: dict[str, Any], messages: list[dict[str, str]]) -> Prompt:
    ids = [token for token, label in zip(record["input_ids"], record["labels"], strict=True) if label == IGNORED]
    return Prompt(record["id"], record["slice"], messages[-2]["content"], messages[-1]["content"], ids, record["input_ids"][-1])
