"""Sections."""

from finetune.evaluation.judging import labels
from finetune.evaluation.metric import Judged


class Sections(Judged):
    """Share of answers with the expected one's labelled parts, all and no others, in its order, where it has any."""

    def judge(self, answer: str, expected: str) -> float | None:
        wanted = labels(expected)
        return float(labels(answer) == wanted) if wanted else None
