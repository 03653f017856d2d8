"""What the figures read is what the stages write: every sample that `pipeline` and `quality` are judged on comes out of a tiny run."""

from pathlib import Path

from benchmarks import figures, pipeline
from benchmarks.judging import Quantity, read_asked
from benchmarks.watching import Watched

ROOT = Path(__file__).resolve().parents[2]
COSTS = {"seconds", "gib"}


def test_a_tiny_run_has_every_sample_that_is_judged(tiny_run: Path) -> None:
    samples = {**pipeline.amounts(tiny_run), **pipeline.scores(tiny_run), **pipeline.adapters(tiny_run)}
    asked = read_asked(ROOT / figures.ASKED)
    bounds = [*asked["pipeline"].bounds, *asked["quality"].bounds]
    limits = [limit.sample for bound in bounds for limit in (bound.at_most, bound.at_least, bound.above) if isinstance(limit, Quantity)]
    names = {*limits, *(bound.sample for bound in bounds), *asked["quality"].shown}
    costs = {name for name in names if name in COSTS or name.startswith("line.")}
    assert len(costs) == 7
    assert len(names) > 20
    assert names - costs - samples.keys() == set()
    assert all(samples[name] for name in names - costs)
    assert costs <= pipeline.costs(watched(), dict.fromkeys(watched().started, 0.0)).keys()


def test_a_tiny_run_trains_every_adapted_layer_again_in_dpo(tiny_run: Path) -> None:
    found = pipeline.adapters(tiny_run)
    assert found["adapter.differing"] == found["adapter.layers"]
    assert found["adapter.layers"][0] == 14  # seven linear layers in each of two


def watched() -> Watched:
    """A run in which each stage took no time."""
    stages = [stage for line in pipeline.LINES.values() for stage in line]
    return Watched(0.0, dict.fromkeys(stages, 0.0), dict.fromkeys(stages, 0.0), dict.fromkeys(stages, 0.0))
