"""What a model answers, and how likely it finds what it should. data/formatted, data/prepared, a model → reports/answers, likelihoods

    python -m stages.answer answer.which=train

Asking base needs no tuned model, so nothing that is trained makes it run again.
"""

from finetune.models import lean  # noqa: F401  # isort: skip

import logging
import time

from finetune import outputs, paths, tracking
from finetune.checkpoints import kept
from finetune.config.schema import Config
from finetune.config.stage import run, stage
from finetune.data import tables
from finetune.evaluation import likelihoods
from finetune.evaluation.generation import end_token, end_tokens, greedy
from finetune.evaluation.prompts import test_prompts
from finetune.models import adapters
from finetune.models.base import load_tokenizer
from finetune.models.loaders import compute_dtype
from finetune.training.seeding import sum_in_one_order

MADE_OF = {"base": [], "train": [paths.TRAIN], "dpo": [paths.DPO, paths.TRAIN]}  # the tuned model, and what it may sit on

log = logging.getLogger(__name__)


@stage("threads", "instructions", "model", "answer")
def main(cfg: Config) -> None:
    """Ask one model the test prompts, greedily; score the validation records and the held-out pairs with it."""
    sum_in_one_order()
    which, batch_size, arithmetic = cfg.answer.which, cfg.answer.batch_size, compute_dtype(cfg.model)
    folder = next(iter(MADE_OF[which]), None)
    prompts = test_prompts(cfg.answer.limit)
    records = tables.read(paths.FORMATTED / "sft" / "validation.parquet")[: cfg.answer.limit]
    pairs = tables.read(paths.FORMATTED / "preference" / "test.parquet")[: cfg.answer.limit]

    tokenizer = load_tokenizer(cfg.model)
    model = adapters.load_tuned(cfg.model, folder)
    ends = end_tokens(model, end_token(tokenizer, [prompt.last for prompt in prompts]))

    answered = paths.ANSWERS / f"{which}.jsonl"
    with kept.work(f"answer@{which}", cfg, [paths.FORMATTED, paths.PREPARED / "sft", *MADE_OF[which]], answered) as resumable:
        began, whole = time.perf_counter(), not resumable.has("answers")
        asked = model, tokenizer, [prompt.ids for prompt in prompts], ends, batch_size, cfg.answer.max_new_tokens, arithmetic
        answers = greedy(*asked, resumable.items("answers"))
        seconds = time.perf_counter() - began
        scored = likelihoods.of_records(model, tokenizer, records, batch_size, arithmetic, kept=resumable.items)
        scored += likelihoods.of_pairs(model, tokenizer, pairs, batch_size, arithmetic, resumable.items)

        if folder is not None and adapters.Tuned.of(folder).four_bit:
            del model, asked  # two at once may be more than a GPU holds
            trained_over = adapters.load_tuned(cfg.model, folder, four_bit=True)
            scored += likelihoods.of_records(trained_over, tokenizer, records, batch_size, arithmetic, "validation_4bit", resumable.items)

        rows = [
            {
                "id": prompt.id,
                "slice": prompt.slice,
                "prompt": prompt.text,
                "expected": prompt.expected,
                "answer": answer.text,
                "tokens": answer.tokens,
                "ended": answer.ended,
            }
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        outputs.write_jsonl(answered, rows)
        outputs.write_jsonl(paths.LIKELIHOODS / f"{which}.jsonl", scored)

    tokens, cut = sum(answer.tokens for answer in answers), sum(not answer.ended for answer in answers)
    speed = {"tokens_per_second": tokens / seconds} if whole else {}  # else some were there from before
    tracking.metrics({"answers": len(answers), "cut": cut, "tokens": tokens, **speed})
    log.info("%s: %s answers of %s tokens, %s cut at %d", which, f"{len(answers):,}", f"{tokens:,}", f"{cut:,}", cfg.answer.max_new_tokens)


if __name__ == "__main__":
    run(main)
