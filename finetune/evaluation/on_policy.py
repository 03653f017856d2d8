"""On-policy pairs: the trained model answers prompts that supervised fine-tuning never saw, and a judge in code says which are right.

A prompt gives one pair. Rejected is the first wrong sample that ended, else the first that was cut: so it is drawn as the model errs. The
most likely wrong one would need a second pass, hang on last bits, and be the shortest too often; and a cut one is as long as can be, which
dpo would learn in place of what is wrong. A cut one has no end token, because it never ended.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from finetune import paths
from finetune.checkpoints.journal import Items
from finetune.config.schema import Model, OnPolicy
from finetune.data import tables
from finetune.errors import DataError
from finetune.evaluation.generation import Answer, end_token, end_tokens, sampled
from finetune.evaluation.judging import exact
from finetune.evaluation.pairs import GIVEN, Pair, text
from finetune.models import adapters
from finetune.models.loaders import compute_dtype

RULE = "on-policy: exact match"


@dataclass(frozen=True)
class Asked:
    """A prompt, and what is right to answer."""

    id: str
    slice: str
    ids: list[int]
    expected_ids: list[int]
    """The record's own answer, with its end token."""
    right: list[str]
    """The record's own answer, and those of other records with the same prompt."""


@dataclass(frozen=True)
class Sampled:
    """What the trained model answered to a prompt."""

    asked: Asked
    answers: list[Answer]

    @property
    def verdicts(self) -> list[str]:
        """right, wrong or cut, for each answer."""
        return [
            "cut" if not answer.ended else "right" if any(exact(answer.text, right) for right in self.asked.right) else "wrong"
            for answer in self.answers
        ]

    def pair(self, chosen: str) -> Pair | None:
        """The pair that they make; None where no answer is wrong. chosen: `expected` or `sampled`, as in the settings."""
        first: dict[str, Answer] = {}
        for verdict, answer in zip(self.verdicts, self.answers, strict=True):
            first.setdefault(verdict, answer)
        rejected = first.get("wrong") or first.get("cut")
        if rejected is None:
            return None
        own = first.get("right") if chosen == "sampled" else None
        return Pair(
            id=self.asked.id,
            rule=RULE,
            prompt_ids=self.asked.ids,
            chosen_ids=own.ids if own else self.asked.expected_ids,
            rejected_ids=rejected.ids,
            chosen=own.text if own else self.asked.right[0],
            rejected=rejected.text,
            right=self.asked.right,
        )


def prompts(tokenizer: PreTrainedTokenizerBase) -> tuple[list[Asked], int]:
    """Prompts that supervised fine-tuning never saw, each once, and the token that ends an answer to them.

    Those of the given pairs, whose chosen answer is what is expected.

    Raises:
        DataError: format has not run.
    """
    pairs = tables.read(GIVEN)
    end = end_token(tokenizer, [row["chosen_ids"][-1] for row in pairs])
    asked: dict[tuple[int, ...], Asked] = {}
    for row in pairs:
        new = Asked(row["id"], row["slice"], row["prompt_ids"], row["chosen_ids"], [])
        asked.setdefault(tuple(row["prompt_ids"]), new).right.append(text(tokenizer, row["chosen_ids"], end))
    return list(asked.values()), end


def ask(model: Model, settings: OnPolicy, tokenizer: PreTrainedTokenizerBase, seed: int, items: Items | None = None) -> list[Sampled]:
    """What models/train answers to these prompts; its adapter is merged, so after QLoRA it is the tuned model over the 16-bit base.

    items: where answers are kept for a stage that dies.

    Raises:
        DataError: format has not run.
        ModelError: train has not run.
    """
    asked, end = prompts(tokenizer)
    tuned = adapters.load_tuned(model, paths.TRAIN)
    places = [(one, number) for one in asked for number in range(settings.samples)]
    names = [f"{seed}/{one.id}/{number}" for one, number in places]
    ids = [one.ids for one, _ in places]
    answers = sampled(tuned, tokenizer, ids, names, end_tokens(tuned, end), settings, compute_dtype(model), items)
    each = settings.samples
    return [Sampled(one, answers[place * each : (place + 1) * each]) for place, one in enumerate(asked)]


def pairs(found: Sequence[Sampled], settings: OnPolicy) -> list[Pair]:
    """The pairs of all prompts with a wrong answer, in the order of the prompts.

    Raises:
        DataError: there are fewer than reference.min_pairs.
    """
    made = [pair for one in found if (pair := one.pair(settings.chosen))]
    if len(made) >= settings.min_pairs:
        return made
    counts = counted(found)
    asked = f"{counts['prompts']:,} prompts, {counts['all_right']:,} with right samples alone, {counts['all_wrong']:,} with none"
    raise DataError(
        "the trained model's own answers give too few pairs:",
        [f"{paths.TRAIN}: found {len(made):,} pairs ({asked}), expected at least reference.min_pairs={settings.min_pairs}"],
        "raise reference.temperature or reference.samples, add pairs, whose prompts it is asked, or set reference=default: the given pairs",
    )


def counted(found: Sequence[Sampled]) -> dict[str, int]:
    """How many prompts and samples there are, by verdict; what is in neither all_right nor all_wrong has both."""
    verdicts = [one.verdicts for one in found]
    samples = Counter(verdict for each in verdicts for verdict in each)
    return {
        "prompts": len(found),
        "all_right": sum(set(each) == {"right"} for each in verdicts),
        "all_wrong": sum("right" not in each for each in verdicts),
        **{verdict: samples[verdict] for verdict in ("right", "wrong", "cut")},
    }


def shown(found: Sequence[Sampled], settings: OnPolicy, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """Rows of data/reference/samples.jsonl, for people: every prompt with its answers, their verdicts, and what was made of them."""
    rows = []
    for one in found:
        pair = one.pair(settings.chosen)
        rows.append(
            {
                "id": one.asked.id,
                "slice": one.asked.slice,
                "prompt": str(tokenizer.decode(one.asked.ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)),
                "expected": one.asked.right[0],
                "samples": [
                    {"verdict": verdict, "text": answer.text, "tokens": answer.tokens}
                    for verdict, answer in zip(one.verdicts, one.answers, strict=True)
                ],
                "chosen": pair.chosen if pair else None,
                "rejected": pair.rejected if pair else None,
            }
        )
    return rows
