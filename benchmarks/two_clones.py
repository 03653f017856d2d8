"""Whether the default pipeline gives the same bytes in two clones: one as people make it, and one elsewhere under other circumstances.

The same rows as of the figure exactness, two of them, and all on two cores because on one a run takes twice as long.
"""

from pathlib import Path

from benchmarks.exactness import FACTORS, Row, hashes, results, shared_folder
from benchmarks.record import RESULTS, Samples
from finetune import outputs
from finetune.progress import progress

ROWS: tuple[Row, Row] = (
    dict(zip(FACTORS, ("this", "0", "2", "C.UTF-8 UTC", "this", "repro"), strict=True)),
    dict(zip(FACTORS, ("elsewhere", "random", "2", "tr_TR.UTF-8 NST3:30", "other", "exp run --temp"), strict=True)),
)
SETTINGS = ("tracking=off",)


def measure(root: Path) -> Samples:
    """Run both, half an hour in all."""
    with shared_folder() as scratch:
        found = [hashes(root, scratch, row, SETTINGS) for row in progress(ROWS, "running the pipeline", unit="runs")]
    outputs.write_jsonl(root / RESULTS / "two_clones.jsonl", ({**row, "outs": each} for row, each in zip(ROWS, found, strict=True)))
    samples = results(ROWS, found)
    samples.pop("untried")  # two rows try few of the pairs
    return samples
