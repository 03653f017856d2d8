"""What the figures read is what the stages write: every sample that is judged comes out of a tiny run, or of a few hundred records."""

import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from datasets import Dataset

from benchmarks import data_speed, figures, mapping, pipeline, planted, watching
from benchmarks.judging import Quantity, read_asked
from benchmarks.planted import Amounts, Record
from benchmarks.watching import Watched, Weighed
from finetune import paths
from finetune.config.schema import Config
from finetune.data import tables
from finetune.models.base import load_tokenizer
from stages import format as format_stage
from stages import prepare

ROOT = Path(__file__).resolve().parents[2]
COSTS = {"seconds", "gib"}
WORDS = [f"{one}{two}{three}" for one in "bdfgk" for two in ("ar", "el", "in", "os", "um") for three in ("ta", "lo", "nes", "vik", "ra")]

Compose = Callable[..., Config]


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


def test_faults_planted_among_a_few_paragraphs_are_found(workspace: Path, compose: Compose) -> None:
    clean = list(islice(planted.paragraphs(ROOT), 450))
    assert len(set(clean)) > 400
    faults = planted.plant(clean[:400], Amounts(repeated=20, near=20, contaminated=10, mojibake=10))
    assert {kind: len(twins) for kind, twins in faults.twins.items()} == {"contaminated": 10, "repeated": 20, "near": 20}
    planted.write(paths.RAW, faults, clean[400:])
    prepare.main(compose(*planted.SETTINGS))
    samples = planted.results(workspace, faults)
    assert [samples[f"recall.{kind}"] for kind in ("repeated", "near", "contaminated", "mojibake")] == [[1.0]] * 4
    assert samples["records"] == [450]
    assert samples["unexplained"] == [0]
    asked = read_asked(ROOT / figures.ASKED)["planted"]
    assert {*(bound.sample for bound in asked.bounds), *asked.shown} <= samples.keys()


def test_planted_near_duplicates_are_as_like_as_the_threshold_asks() -> None:
    clean = list(islice(planted.paragraphs(ROOT), 200))
    faults = planted.plant(clean, Amounts(repeated=0, near=50, contaminated=0, mojibake=0))
    for one, other in faults.twins["near"]:
        assert faults.records[one] != faults.records[other]
        assert planted.unexplained(faults.records, [one], [other]) == []


def test_a_record_that_went_without_one_like_it_is_named() -> None:
    records = [Record(f"What is {word}?", " ".join([word] * 8)) for word in WORDS[:5]]
    assert planted.unexplained([*records, records[2]], [0, 2], [1, 3, 4, 5]) == [0]


def test_what_is_timed_makes_of_records_what_map_makes_of_them(tiny_copy: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose("model=tiny", "format.max_length=1024", *data_speed.SETTINGS)
    data_speed.write(paths.RAW, 120, WORDS)
    prepare.main(cfg)
    format_stage.main(cfg)
    tables_ = [tables.read(paths.FORMATTED / f"sft/{split}.parquet") for split in ("train", "validation", "test")]
    formatted = [tuple(row["input_ids"]) for rows in tables_ for row in rows]
    records = Dataset.from_json(str(paths.RAW / data_speed.RECORDS), cache_dir=str(tiny_copy / "cache"))
    mapped = {tuple(ids) for ids in mapping.tokenised(records, load_tokenizer(cfg.model), None)["input_ids"][:]}
    assert 100 < len(formatted) < len(mapped)  # without those that nearly repeat another
    (ending,) = {whole[len(formatted[0]) :] for whole in mapped if whole[: len(formatted[0])] == formatted[0]}  # after the end token
    assert {ids + ending for ids in formatted} < mapped

    monkeypatch.setattr(data_speed, "weigh", lambda *_: Weighed(2.0, "", 0.5))
    found = data_speed.ours(tiny_copy)
    assert found["seconds"] == 4.0
    asked = read_asked(ROOT / figures.ASKED)["data_speed"]
    limits = [limit.sample for bound in asked.bounds for limit in (bound.at_most,) if isinstance(limit, Quantity)]
    measured = {f"{count}.{name}" for count in data_speed.TURNS for name in ("map", "microseconds", *found)}
    assert {*limits, *(bound.sample for bound in asked.bounds), *asked.shown} <= measured


def test_longer_series_of_records_begin_as_shorter_ones_and_repeat_little() -> None:
    some = list(data_speed.records(500, WORDS))
    assert some[:200] == list(data_speed.records(200, WORDS))
    assert len(set(some)) == 495


def test_weighing_adds_up_the_memory_of_every_process(tmp_path: Path) -> None:
    holding = "import subprocess, sys; kept = bytearray(60 << 20); sys.argv[1:] and subprocess.run([sys.executable, *sys.argv[1:]])"
    (tmp_path / "hold.py").write_text(f"import time\n{holding}\ntime.sleep(0.6)\n")
    done = watching.weigh(tmp_path, sys.executable, "hold.py", "hold.py")
    assert done.seconds > 1.2
    assert done.gib > 120 / 1024


def watched() -> Watched:
    """A run in which each stage took no time."""
    stages = [stage for line in pipeline.LINES.values() for stage in line]
    return Watched(0.0, dict.fromkeys(stages, 0.0), dict.fromkeys(stages, 0.0), dict.fromkeys(stages, 0.0))
