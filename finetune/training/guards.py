"""Guard rails of training: what is known to end badly is refused before it is paid for; a recorded setting overrules."""

import logging

from finetune.config.schema import DpoAdapter, DpoFull, Full, Lora
from finetune.errors import TrainingError

USUAL = 3.0  # passes over a record up to which nothing is said

log = logging.getLogger(__name__)


def passes(training: Lora | Full | DpoAdapter | DpoFull, records: int, processes: int) -> float:
    """How often each record is learned from."""
    if training.max_steps is None:
        return training.num_train_epochs
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps * processes
    return training.max_steps * batch / records


def judge_passes(section: str, training: Lora | Full | DpoAdapter | DpoFull, records: int, processes: int, rows: int | None = None) -> None:
    """Refuse to read the same records too often, and warn of more than the usual 1 to 3 times.

    rows: what the records are packed into, which steps are then made of.

    Raises:
        TrainingError: more than `guards.max_passes`.
    """
    times, allowed = passes(training, rows or records, processes), training.guards.max_passes
    decided = f"{section}.num_train_epochs" if training.max_steps is None else f"{section}.max_steps={training.max_steps}"
    found = f"{decided}: found {times:g} passes over {records:,} records"
    if times > allowed:
        raise TrainingError(
            f"{found}, expected at most {section}.guards.max_passes={allowed:g}: a model learns them by heart; "
            f"add records, lower it, or overrule with {section}.guards.max_passes={times:g}"
        )
    if times > USUAL:
        log.warning("%s; %g or fewer are usual, more overfit: compare the validation loss with that of fewer", found, USUAL)
