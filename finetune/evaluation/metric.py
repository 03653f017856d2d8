"""What our metric modules for the `evaluate` library share: one judgement an answer, and their mean."""

from abc import ABC, abstractmethod
from typing import Any

import datasets

from finetune.evaluation.library import evaluate


class Judged(evaluate.Metric, ABC):  # type: ignore[misc]  # the library is not annotated
    """A metric that judges each answer for itself; `evaluate` takes the first class of a module that is not abstract."""

    @abstractmethod
    def judge(self, answer: str, expected: str) -> float | None:
        """A number for one answer, 1 for right and 0 for wrong; None where it can't be asked, which then doesn't count."""

    def _info(self) -> evaluate.MetricInfo:
        texts = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        inputs = "predictions: what was answered; references: what was expected."
        return evaluate.MetricInfo(description=type(self).__doc__ or "", citation="", inputs_description=inputs, features=texts)

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        """`{"exact_match": mean or None, "each": [1.0, 0.0, None, …]}`, under the name of the class in snake case."""
        each = [self.judge(answer, expected) for answer, expected in zip(predictions, references, strict=True)]
        counted = [value for value in each if value is not None]
        return {self.name: sum(counted) / len(counted) if counted else None, "each": each}
