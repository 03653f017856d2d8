"""Preference pairs as dpo gets them, and what should be known of them before anybody trains on them."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from finetune import paths
from finetune.data import tables
from finetune.evaluation.generation import end_token
from finetune.evaluation.judging import exact

GIVEN = paths.FORMATTED / "preference" / "train.parquet"
COLUMNS = ("id", "rule", "prompt_ids", "chosen_ids", "rejected_ids")
SCHEMA = pa.schema([("id", pa.string()), ("rule", pa.string()), *((name, tables.IDS) for name in COLUMNS[2:])])

# Of all pairs: half says nothing of length. From here on `the longer one` (or `the shorter one`) gets three pairs in four right without
# reading them, and a reward that grows with every token can learn that first (Park et al. 2024, https://arxiv.org/abs/2403.19159).
LENGTH_BIAS = 0.75
LISTED = 100  # ids in a report; a million of them would be no report

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """A better and a worse answer to a prompt."""

    id: str
    """Of the record that the prompt comes from."""
    rule: str
    """How the pair was made."""
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    """With the end token, but for an answer that never ended."""
    chosen: str
    rejected: str
    """Text, without the end token."""
    right: Collection[str]
    """Every answer to the prompt that is known to be right."""


def text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], end: int) -> str:
    """The text of an answer, without its end token."""
    said = ids[:-1] if ids[-1] == end else ids
    return str(tokenizer.decode(list(said), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def given(tokenizer: PreTrainedTokenizerBase) -> list[Pair]:
    """The prepared pairs. Right is, to a prompt, what any of its pairs has chosen.

    Raises:
        DataError: format has not run.
    """
    rows = tables.read(GIVEN)
    end = end_token(tokenizer, [row["chosen_ids"][-1] for row in rows])
    right: dict[tuple[int, ...], set[str]] = defaultdict(set)
    for row in rows:
        right[tuple(row["prompt_ids"])].add(text(tokenizer, row["chosen_ids"], end))
    return [
        Pair(
            **{name: row[name] for name in COLUMNS if name != "rule"},
            rule="given",
            chosen=text(tokenizer, row["chosen_ids"], end),
            rejected=text(tokenizer, row["rejected_ids"], end),
            right=right[tuple(row["prompt_ids"])],
        )
        for row in rows
    ]


def table(pairs: Sequence[Pair], chosen_logps: Floats, rejected_logps: Floats) -> pa.Table:
    """The pairs and their log-probabilities, as data/reference/train.parquet."""
    scored = pa.Table.from_pylist([{name: getattr(pair, name) for name in COLUMNS} for pair in pairs], schema=SCHEMA)
    for name, logps in (("ref_chosen_logps", chosen_logps), ("ref_rejected_logps", rejected_logps)):
        scored = scored.append_column(name, [logps])
    return scored


def measured(pairs: Sequence[Pair], chosen_logps: Floats, rejected_logps: Floats) -> dict[str, Any]:
    """What is said of the pairs in reports/reference.json.

    longer, shorter: shares of pairs whose chosen answer is; length_bias: mean tokens of chosen minus rejected. preferred: share whose
    chosen answer the trained model finds the more likely already, and preferred_per_token the same of the mean log-probability a token,
    which no length decides. chosen_worse: by the judge, rejected is right and chosen is not; both_right: nothing to prefer.
    """
    lengths = {side: np.array([len(getattr(pair, f"{side}_ids")) for pair in pairs]) for side in ("chosen", "rejected")}
    logps = {"chosen": chosen_logps.astype(np.float64), "rejected": rejected_logps.astype(np.float64)}
    more = lengths["chosen"] - lengths["rejected"]
    judged = [tuple(any(exact(said, right) for right in pair.right) for said in (pair.chosen, pair.rejected)) for pair in pairs]
    worse = [pair.id for pair, verdicts in zip(pairs, judged, strict=True) if verdicts == (False, True)]
    both = [pair.id for pair, verdicts in zip(pairs, judged, strict=True) if verdicts == (True, True)]
    return {
        "pairs": len(pairs),
        **{f"{side}_logp": float(logps[side].mean()) for side in logps},
        **{f"{side}_tokens": float(lengths[side].mean()) for side in lengths},
        "length_bias": float(more.mean()),
        "longer": float((more > 0).mean()),
        "shorter": float((more < 0).mean()),
        "preferred": float((logps["chosen"] > logps["rejected"]).mean()),
        "preferred_per_token": float((logps["chosen"] / lengths["chosen"] > logps["rejected"] / lengths["rejected"]).mean()),
        "identical": sum(pair.chosen_ids == pair.rejected_ids for pair in pairs),
        "chosen_worse": len(worse),
        "chosen_worse_ids": worse[:LISTED],
        "both_right": len(both),
        "both_right_ids": both[:LISTED],
    }


def told(report: dict[str, Any]) -> list[str]:
    """The report of any kind of pairs in three lines of log."""
    longer, preferred = (f"{report['longer']:.0%}", f"{report['shorter']:.0%}"), (report["preferred"], report["preferred_per_token"])
    counts = f"{report['identical']:,} identical, {report['chosen_worse']:,} with the worse chosen, {report['both_right']:,} both right"
    return [
        f"chosen is the longer answer in {longer[0]}, the shorter in {longer[1]}: {report['length_bias']:+.1f} tokens on average",
        f"the trained model already prefers chosen in {preferred[0]:.0%}, by its mean a token in {preferred[1]:.0%}",
        f"{counts}, by exact match",
    ]


def doubts(report: dict[str, Any]) -> list[str]:
    """What should be looked at before training on such pairs, a line each; none where nothing is odd."""
    found = []
    for which in ("longer", "shorter"):
        if report[which] >= LENGTH_BIAS:
            share = f"the chosen answer is the {which} one in {report[which]:.0%} of the pairs, expected below {LENGTH_BIAS:.0%}"
            found.append(f"{share}: dpo may learn the length instead; balance the pairs, or raise dpo.beta to keep closer to the reference")
    if report["identical"]:
        found.append(f"{report['identical']:,} pairs have the same tokens twice, expected none: nothing can be learned from them")
    for key, what in (("chosen_worse", "rejected is right and chosen is not"), ("both_right", "rejected is as right as chosen")):
        if report[key]:
            found.append(f"{report[key]:,} pairs where {what}, by exact match: {', '.join(report[f'{key}_ids'][:3])}; mend or drop them")
    if "sampled" in report and not report["sampled"]["right"]:
        none = f"none of the answers that models/train gave to {report['sampled']['prompts']:,} prompts is right by exact match"
        found.append(f"{none}: it has not learned the task, or there are many right answers to it; for those set reference=default")
    return found
