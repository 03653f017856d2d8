"""Length ratio."""

from finetune.evaluation.judging import words
from finetune.evaluation.metric import Judged


class LengthRatio(Judged):
    """How near the answer's length is to the expected one's, in words: the shorter by the longer, whichever it is."""

    def judge(self, answer: str, expected: str) -> float | None:
        given, wanted = len(words(answer)), len(words(expected))
        return min(given, wanted) / max(given, wanted) if wanted else None
