"""prepare and format on the beginning of the data, in seconds: what a full run would keep, and what it would refuse. Writes no output."""

from finetune.models import lean  # noqa: F401  # isort: skip

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from finetune.config.data import SmartHome
from finetune.config.schema import Config, Given
from finetune.data import contract, files, formatting, smart_home
from finetune.data.chat import Chat
from finetune.data.contract import Kept
from finetune.data.gathering import Gathering
from finetune.data.shingles import Places
from finetune.errors import DataError, FinetuneError
from finetune.models.base import load_tokenizer
from finetune.training import guards

EXAMPLES = 2  # of the records that a rule takes
SHOWN = 80  # characters of each

log = logging.getLogger(__name__)


def rehearse(config: Config, megabytes: int) -> tuple[list[FinetuneError], bool]:
    """Return what a full run would refuse, and whether that was found on all records or on the first megabytes of each source.

    Raises:
        FinetuneError: nothing can be tried: a source or the tokenizer can't be read.
    """
    refused: list[FinetuneError] = []
    with Gathering() as gathering, tempfile.TemporaryDirectory() as scratch:
        whole = _gathered(gathering, config, megabytes, refused)
        kept = contract.settle(gathering, config.data, config.prepare)
        _try(refused, lambda: contract.refuse_contaminated(gathering, kept, config.data.quality))
        for line in (*contract.told(gathering, kept), *_examples(gathering)):
            log.info("%s", line)
        sizes = kept.sizes(gathering)
        if whole:
            _try(refused, lambda: contract.refuse_empty(gathering, kept))
            _try(refused, lambda: contract.refuse_few(sizes["sft"]["train"], config.prepare))
        contract.write(gathering, kept, Path(scratch))
        _format(gathering, kept, config, Path(scratch), refused)
    if whole and sizes["sft"]["train"]:
        _try(refused, lambda: guards.judge_passes("train", config.train, sizes["sft"]["train"], config.launch.processes))
    if whole and sizes["preference"]["train"] and isinstance(config.reference, Given):
        _try(refused, lambda: guards.judge_passes("dpo", config.dpo, sizes["preference"]["train"], config.launch.processes))
    return refused, whole


def _gathered(gathering: Gathering, config: Config, megabytes: int, refused: list[FinetuneError]) -> bool:
    """Gather the records; malformed rows are noted, and the others go on. Whether these are all."""
    if isinstance(config.data, SmartHome):
        smart_home.gather(gathering, config.data)
        return True
    tried = config.data.model_copy(update={"quality": config.data.quality.model_copy(update={"malformed": "drop"})})
    whole = files.gather(gathering, tried, 1, megabytes)
    if config.data.quality.malformed == "refuse":
        _try(refused, lambda: files.refuse_malformed(gathering))
    return whole


def _format(gathering: Gathering, kept: Kept, config: Config, folder: Path, refused: list[FinetuneError]) -> None:
    """Bring the records that stay into the model's form; one that can't be is called by the place that it was read from."""
    chat = Chat(load_tokenizer(config.model), config.model.name)
    problems, unlisted = list[str](), 0
    for name in contract.SPLITS:
        records, prepared = kept.of(gathering, name), folder / f"{name}.jsonl"
        if not len(records):
            continue
        try:
            place = partial(_place, gathering, records)
            counts = formatting.write(prepared, formatting.KINDS[name], chat, config.format, folder / "table", place)
        except DataError as error:
            problems += error.problems
            unlisted += error.unlisted
            continue
        report = counts.report(config.format.max_length)
        log.info("%s: %s", name, formatting.told(report))
        if report["overlong_share"]:
            longer = f"{report['overlong_share']:.1%} are longer than format.max_length={config.format.max_length}"
            log.warning("%s: %s and would be left out or cut; %d would do for 99 %%", name, longer, report["length_at_1_percent"])
    if problems:
        refused.append(DataError(formatting.UNUSABLE, problems, formatting.REMEDY, unlisted))


def _place(gathering: Gathering, records: Places, line: int) -> str:
    return gathering.place(int(records[line - 1]))


def _examples(gathering: Gathering) -> Iterator[str]:
    """Some of the records that each rule takes or changes."""
    seen: Counter[str] = Counter()
    for line in gathering.rejected():
        row = json.loads(line)
        seen[row["rule"]] += 1
        if seen[row["rule"]] <= EXAMPLES:
            text = " ".join(row["text"].split())
            yield f"  {row['rule']}: {row['source']}:{row['line']}: {text if len(text) <= SHOWN else text[: SHOWN - 1] + '…'}"


def _try(refused: list[FinetuneError], step: Callable[[], None]) -> None:
    try:
        step()
    except FinetuneError as error:
        refused.append(error)
