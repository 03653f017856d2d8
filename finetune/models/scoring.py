"""Log-probabilities of given answers: what dpo's reference, likelihoods and validation losses are made of."""

from collections.abc import Sequence

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from finetune.checkpoints.journal import Items, Nowhere
from finetune.models.batches import by_length
from finetune.progress import progress

IGNORED = -100  # label of a position that is not supervised

Ids = Sequence[int]


def labelled(prompt: Ids, answer: Ids) -> tuple[Ids, Ids]:
    """Return (input_ids, labels) of an answer after its prompt, which is not supervised."""
    return [*prompt, *answer], [IGNORED] * len(prompt) + list(answer)


@torch.inference_mode()
def label_logps(
    model: PreTrainedModel | PeftModel,
    rows: Sequence[tuple[Ids, Ids]],
    batch_size: int,
    pad_id: int,
    doing: str,
    arithmetic: torch.dtype,
    items: Items | None = None,
) -> torch.Tensor:
    """Return the log-probability of each row's labels, summed over the supervised positions; float32, in the order of the rows.

    Batches are padded on the right; of all positions only those from the first supervised one on are projected to the vocabulary, which
    is most of the cost of a small model.

    rows: of (input_ids, labels). arithmetic: to what it is autocast, as in training: so the first loss of dpo is ln 2.
    items: where the batches' results are kept for a stage that dies.
    """
    model.eval()
    sums = torch.zeros(len(rows), dtype=torch.float32)
    batches = by_length([ids for ids, _ in rows], batch_size)

    def score(batch: list[int]) -> list[float]:
        return _batch(model, [rows[row] for row in batch], pad_id, arithmetic).tolist()

    scored = (items or Nowhere()).each(batches, score)
    for batch, logps in zip(batches, progress(scored, doing, total=len(batches), unit="batches"), strict=True):
        sums[batch] = torch.tensor(logps, dtype=torch.float32)
    return sums


def first_learned(labels: torch.Tensor) -> int:
    """Return the first column with a supervised token in any row, at least 1: the column before it predicts it."""
    return max(1, int((labels != IGNORED).any(dim=0).nonzero()[0]))


def _batch(model: PreTrainedModel | PeftModel, rows: Sequence[tuple[Ids, Ids]], pad_id: int, arithmetic: torch.dtype) -> torch.Tensor:
    width = max(len(ids) for ids, _ in rows)
    input_ids = torch.tensor([[*ids, *[pad_id] * (width - len(ids))] for ids, _ in rows], device=model.device)
    labels = torch.tensor([[*marks, *[IGNORED] * (width - len(marks))] for _, marks in rows], device=model.device)
    attention = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows], device=model.device)

    first = first_learned(labels)
    with torch.autocast(model.device.type, dtype=arithmetic, enabled=arithmetic != torch.float32):
        logits = model(input_ids=input_ids, attention_mask=attention, use_cache=False, logits_to_keep=width - first + 1).logits
    logps = logits[:, :-1].float().log_softmax(dim=-1)
    wanted = labels[:, first:]
    supervised = wanted != IGNORED
    chosen = logps.gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    summed: torch.Tensor = (chosen * supervised).sum(dim=-1)
    return summed
