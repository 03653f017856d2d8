"""The rows of the exactness matrix are all pairs, a row is a command that anybody can type, and one other byte is seen."""

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

from benchmarks import exactness, two_clones
from benchmarks.exactness import FACTORS, NAME, covering, pairs

SMALL = {"one": ("a", "b"), "two": ("c", "d", "e"), "three": ("f", "g")}
LOCK = """
schema: '2.0'
stages:
  check: {cmd: python3 -m stages.check}
  train:
    cmd: python3 -m stages.train
    deps: [{path: conf, hash: md5, md5: '1'}]
    outs: [{path: models/train, hash: md5, md5: 2.dir}, {path: reports/train.json, hash: md5, md5: '3'}]
"""


def test_the_rows_have_every_pair_and_are_few() -> None:
    rows = covering(FACTORS)
    wanted = {
        ((one, first), (other, second)) for one, other in combinations(FACTORS, 2) for first in FACTORS[one] for second in FACTORS[other]
    }
    assert set().union(*map(pairs, rows)) == wanted
    assert len(wanted) > 90
    assert 12 <= len(rows) <= 15  # four starters and three seeds alone are twelve
    assert len(covering(SMALL)) == 6


def test_the_starters_are_the_commands_that_people_type() -> None:
    assert exactness.commands("repro", ["seed=1"]) == [["python3", "-m", "finetune", "params", "seed=1"], ["dvc", "repro"]]
    assert exactness.commands("exp run --temp", ["seed=1"]) == [["dvc", "exp", "run", "--temp", "--name", NAME, "-S", "seed=1"]]
    queued = exactness.commands("exp run --queue", ["seed=1"])
    assert [command[:4] for command in queued] == [
        ["dvc", "exp", "run", "--queue"],
        ["dvc", "exp", "run", "--run-all"],
        ["dvc", "queue", "logs", NAME],
    ]


def test_circumstances_are_those_of_the_row(tmp_path: Path) -> None:
    row = dict(zip(FACTORS, ("elsewhere", "1", "1", "C NPT-5:45", "other", "repro"), strict=True))
    (tmp_path / "clone").mkdir()
    program = "import json, os, time; seen = os.environ['PYTHONHASHSEED'], len(os.sched_getaffinity(0)), time.tzname[0]; "
    program += "print(json.dumps([*seen, os.environ['HOME'], os.umask(0)]))"
    before = exactness.circumstances(tmp_path, tmp_path / "clone", row)
    tmp_path.chmod(0o755)
    found = json.loads(subprocess.run([*before, sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    assert found[:3] == ["1", 1, "NPT"]
    assert Path(found[3]).parent == tmp_path
    assert found[4] == 0o077


def test_outs_are_read_from_the_lock() -> None:
    assert exactness.outs(LOCK) == {"models/train": "2.dir", "reports/train.json": "3"}


def test_one_byte_in_one_row_is_another_set() -> None:
    rows = covering(FACTORS)
    same = [{"a": "1", "b": "2"} for _ in rows]
    found = exactness.results(rows, same)
    assert (found["sets"], found["differing"], found["untried"]) == ([1], [0], [0])
    other = [*same[:-1], {"a": "1", "b": "3"}]
    found = exactness.results(rows, other)
    assert (found["sets"], found["differing"], found[exactness.label(rows[-1])]) == ([2], [1], [1])
    lacking = [*same[:-1], {"a": "1"}]
    assert exactness.results(rows, lacking)["sets"] == [2]
    assert exactness.results(rows[1:], same[1:])["untried"] != [0]


def test_two_clones_differ_in_all_but_the_cores() -> None:
    first, second = two_clones.ROWS
    assert [name for name in FACTORS if first[name] == second[name]] == ["cores"]
