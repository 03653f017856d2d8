"""The pipeline as a newcomer runs it, in a fresh clone with nothing cached: what it costs, how much it did, and how good it came out.

One run serves two figures, `pipeline` and `quality`. Seconds of a stage are those of its whole process, its start included; `line.overhead`
is what no other line has (DVC itself, check, prepare and format), and the starts of the others counted a second time.
"""

import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from benchmarks.overhead import commands, start
from benchmarks.record import Samples
from benchmarks.watching import Watched, fresh_clone, watch
from finetune import outputs, paths

# The budget: every stage that does the work, by line; all other seconds are overhead.
LINES = {
    "train": ("train",),
    "dpo": ("reference", "dpo"),
    "evaluate": ("answer@base", "answer@train", "answer@dpo", "evaluate"),
    "export": ("export", "report"),
}


def measure(root: Path) -> Samples:
    """Run everything once; minutes."""
    with fresh_clone(root) as clone:
        watched = watch(clone, "make", "run")
        starts = {stage: start(clone, command)["total"] for stage, command in commands(clone).items()}
        return {**costs(watched, starts), **amounts(clone), **scores(clone), **adapters(clone)}


def costs(watched: Watched, starts: dict[str, float]) -> Samples:
    """Seconds and GiB, of the run, of each stage, and of each line of the budget."""
    samples = {"seconds": [watched.total], "gib": list(watched.peak.values())}
    for stage in watched.started:
        samples[f"{stage}.seconds"] = [watched.seconds(stage)]
        samples[f"{stage}.gib"] = [watched.peak[stage]]
    working = [stage for stages in LINES.values() for stage in stages]
    for line, stages in LINES.items():
        samples[f"line.{line}"] = [sum(watched.seconds(stage) for stage in stages)]
    samples["line.overhead"] = [watched.total - sum(watched.seconds(stage) - starts[stage] for stage in working)]
    return samples


def amounts(clone: Path) -> Samples:
    """How much was done, as the reports say (of training what the trainers counted), and how far dpo began from where it must."""
    train, dpo, evaluate = (_report(clone, stage) for stage in ("train", "dpo", "evaluate"))
    models = [scores for scores in evaluate.values() if "seen" in scores]
    return {
        "train.records": [train["records"]],
        "train.epochs": [train["steps"][-1]["epoch"]],
        "dpo.pairs": [dpo["pairs"]],
        "seen.prompts": [model["seen"]["records"] for model in models],
        "heldout.pairs": [model["preference"]["pairs"] for model in models if "preference" in model],
        "dpo.first.loss": [abs(dpo["first"]["loss"] - math.log(2))],
        "dpo.first.margin": [abs(dpo["first"]["margin"])],
    }


def scores(clone: Path) -> Samples:
    """Every number of reports/evaluate.json, as `model.slice.metric`."""
    return {
        f"{model}.{part}.{metric}": [value]
        for model, parts in _report(clone, "evaluate").items()
        for part, metrics in parts.items()
        if isinstance(metrics, dict) and model != "gates"
        for metric, value in metrics.items()
        if isinstance(value, int | float)
    }


def adapters(clone: Path) -> Samples:
    """How many adapted layers there are, and in how many of them dpo's weights are not train's."""
    train, dpo = (load_file(clone / folder / "adapter_model.safetensors") for folder in (paths.TRAIN, paths.DPO))
    layers: dict[str, bool] = defaultdict(bool)
    for name in train.keys() | dpo.keys():
        layers[re.sub(r"\.lora_[AB]\.weight$", "", name)] |= name not in train or name not in dpo or bool((train[name] != dpo[name]).any())
    return {"adapter.layers": [len(layers)], "adapter.differing": [sum(layers.values())]}


def _report(clone: Path, stage: str) -> dict[str, Any]:
    report: dict[str, Any] = outputs.read_json(clone / paths.metrics(stage))
    return report
