"""Intent accuracy."""

from finetune.evaluation.judging import intent
from finetune.evaluation.metric import Judged


class Intent(Judged):
    """Share of answers whose "intent" is the expected one, whatever else they say, where one was expected."""

    def judge(self, answer: str, expected: str) -> float | None:
        wanted = intent(expected)
        return None if wanted is None else float(intent(answer) == wanted)
