"""What prepare and format are compared with: `datasets.map` over two processes, which templates and tokenises and does nothing else.

    python -m benchmarks.mapping data/raw/records.jsonl

It prints the seconds of the call of `map`: without the start of Python, without reading the file.
"""

import stages  # noqa: F401  # isort: skip  # the variables of every stage: tokenizers on one thread in each process

import sys
import tempfile
import time
from typing import Any

import yaml
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from finetune import paths
from finetune.config.compose import validate
from finetune.models.base import load_tokenizer

PROCESSES = 2


def main() -> None:
    """Map the file named on the command line, with the model of params.yaml."""
    tokenizer = load_tokenizer(validate(yaml.safe_load(paths.PARAMS.read_text(encoding="utf-8"))).model)
    with tempfile.TemporaryDirectory() as folder:
        records = Dataset.from_json(sys.argv[1], cache_dir=folder)
        begin = time.perf_counter()
        tokenised(records, tokenizer, PROCESSES)
        print(time.perf_counter() - begin)


def tokenised(records: Dataset, tokenizer: PreTrainedTokenizerBase, processes: int | None) -> Dataset:
    """The token ids of each record, through the chat template."""

    def batch(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        both = zip(rows["instruction"], rows["output"], strict=True)
        chats = [[{"role": "user", "content": asked}, {"role": "assistant", "content": answer}] for asked, answer in both]
        texts = tokenizer.apply_chat_template(chats, tokenize=False)
        return {"input_ids": tokenizer(texts, add_special_tokens=False)["input_ids"]}

    return records.map(batch, batched=True, num_proc=processes, remove_columns=records.column_names)


if __name__ == "__main__":
    main()
