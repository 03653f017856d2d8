"""ROUGE-L."""

from finetune.evaluation.judging import longest_common, words
from finetune.evaluation.metric import Judged


class RougeL(Judged):
    """How much of the expected answer's words come in its order: F1 of the longest common subsequence (Lin 2004), without stemming."""

    def judge(self, answer: str, expected: str) -> float | None:
        given, wanted = words(answer), words(expected)
        return 2 * longest_common(given, wanted) / (len(given) + len(wanted)) if wanted else None
