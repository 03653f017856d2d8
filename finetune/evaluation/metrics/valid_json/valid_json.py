"""Valid JSON."""

from finetune.evaluation.judging import json_object
from finetune.evaluation.metric import Judged


class ValidJson(Judged):
    """Share of answers that are a JSON object and nothing else, where one was expected."""

    def judge(self, answer: str, expected: str) -> float | None:
        return None if json_object(expected) is None else float(json_object(answer) is not None)
