"""Closing question."""

from finetune.evaluation.judging import asks_last
from finetune.evaluation.metric import Judged


class EndsWithQuestion(Judged):
    """Share of answers that end with a question, where the expected one does."""

    def judge(self, answer: str, expected: str) -> float | None:
        return float(asks_last(answer)) if asks_last(expected) else None
