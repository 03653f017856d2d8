"""Exact match."""

from finetune.evaluation.judging import exact
from finetune.evaluation.metric import Judged


class ExactMatch(Judged):
    """Share of answers that are what was expected: the same text, or the same JSON object."""

    def judge(self, answer: str, expected: str) -> float:
        return float(exact(answer, expected))
