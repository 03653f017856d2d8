"""prepare and format beside `datasets.map`, which does only the templating and tokenising: seconds and memory for up to a million records.

The records are made here, the same in every run: questions of 10 to 20 words and answers of 8 to 50, drawn from the model's own vocabulary
as often as words come in texts (Zipf). One in 20 has a name with an accent, one in 100 a mail address; one in 100 repeats the record before
it to the letter, one in 100 with a word more; hardly any two of the others are alike. A few pairs go with them, because prepare wants both
kinds. Ours is the whole time of both stages' processes, their start included; theirs that of the call of `map` alone, with the records
loaded (benchmarks/mapping.py).
"""

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from random import Random

import yaml
from transformers import PreTrainedTokenizerBase

from benchmarks import mapping
from benchmarks.record import Samples
from benchmarks.watching import call, fresh_clone, weigh
from finetune import outputs, paths
from finetune.config.compose import validate, write_params
from finetune.models.base import load_tokenizer
from finetune.progress import progress

LOADED = ("stages", "hydra_plugins")
TURNS = {10_000: 3, 100_000: 2, 1_000_000: 1}  # records → how often both are measured, by turns
PAIRS = 200
SETTINGS = ("data=files", "data.license=Apache-2.0", "prepare.processes=2", "format.processes=2", "tracking=off")
RECORDS, PREFERENCES = "records.jsonl", "preferences.jsonl"

OPENINGS = (
    "What is",
    "How does",
    "Why would",
    "Explain",
    "Describe",
    "Compare",
    "When should",
    "Who made",
    "Summarise",
    "Name",
    "List",
    "Is",
)
NAMES = ("Zoë", "José", "Łukasz", "Müller", "Chloé", "Søren", "Nuñez", "Dvořák")
WORD = re.compile(r"Ġ[a-z]{3,}")  # a whole word of the vocabulary, as byte-level tokenizers write it


def measure(root: Path) -> Samples:
    """Both by turns on growing files; the first start, which converts the model, is not counted."""
    with fresh_clone(root) as clone:
        write_params(SETTINGS, clone)
        model = validate(yaml.safe_load((clone / paths.PARAMS).read_text(encoding="utf-8"))).model
        words = vocabulary(load_tokenizer(model))
        turns = [count for count, repeats in TURNS.items() for _ in range(repeats)]
        write(clone / paths.RAW, min(TURNS), words)
        theirs(clone)
        samples: Samples = {}
        for count in progress(turns, "formatting", unit="turns"):
            write(clone / paths.RAW, count, words)
            samples.setdefault(f"{count}.map", []).append(theirs(clone))
            for name, value in ours(clone).items():
                samples.setdefault(f"{count}.{name}", []).append(value)
    for count in TURNS:
        samples[f"{count}.microseconds"] = [1e6 * seconds / count for seconds in samples[f"{count}.seconds"]]
    return samples


def ours(clone: Path) -> dict[str, float]:
    """Seconds and GiB of prepare and format, with the rules and the settings that are the default."""
    stages = {stage: weigh(clone, str(clone / ".venv/bin/python"), "-m", f"stages.{stage}") for stage in ("prepare", "format")}
    prepared = outputs.read_json(clone / paths.metrics("prepare"))
    return {
        "seconds": sum(done.seconds for done in stages.values()),
        **{f"{stage}.seconds": done.seconds for stage, done in stages.items()},
        **{f"{stage}.gib": done.gib for stage, done in stages.items()},
        "kept": prepared["kept"],
    }


def theirs(clone: Path) -> float:
    """Seconds of `datasets.map` in a process of its own."""
    done = call(clone, str(clone / ".venv/bin/python"), "-m", mapping.__name__, str(paths.RAW / RECORDS))
    return float(done.output.splitlines()[-1])


def write(folder: Path, count: int, words: Sequence[str]) -> None:
    """Write the records and the pairs."""
    made = records(count + PAIRS, words)
    pairs = [next(made) for _ in range(PAIRS)]
    rows = [{"prompt": asked, "chosen": answer, "rejected": " ".join(reversed(answer.split()))} for asked, answer in pairs]
    outputs.write_jsonl(folder / PREFERENCES, rows)
    outputs.write_jsonl(folder / RECORDS, ({"instruction": asked, "output": answer} for asked, answer in made))


def vocabulary(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The whole words that the tokenizer has a token for, the most frequent first: in the order in which it learned them."""
    return [token[1:] for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]) if WORD.fullmatch(token)]


def records(count: int, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Questions and answers; the first of a longer series are those of a shorter one."""
    rng = Random(17)
    weights = list(accumulate(1 / (rank + 10) for rank in range(len(words))))
    asked = answer = ""
    for number in range(count):
        if number % 100 == 50:
            yield asked, answer
            continue
        if number % 100 == 51:
            yield asked, f"{answer} {rng.choice(words)}"
            continue
        drawn = rng.choices(words, cum_weights=weights, k=rng.randint(18, 70))
        cut = min(7 + len(drawn) // 5, 20)
        asked = f"{rng.choice(OPENINGS)} {' '.join(drawn[:cut])}?"
        answer = " ".join(_sentences(drawn[cut:]))
        if number % 20 == 7:
            answer += f" {rng.choice(NAMES)} said so in {rng.randint(1900, 2020)}."
        if number % 100 == 3:
            answer += f" Write to {drawn[0]}.{drawn[1]}@example.org."
        yield asked, answer


def _sentences(words: Sequence[str]) -> Iterator[str]:
    for start in range(0, len(words), 12):
        some = words[start : start + 12]
        yield f"{some[0].capitalize()} {' '.join(some[1:])}.".replace(" .", ".")
