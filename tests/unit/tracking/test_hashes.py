"""Hashes are DVC's own, taken from dvc.lock or computed as DVC does."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from finetune import paths
from finetune.tracking import hashes


def test_digests_are_those_that_dvc_gives(home: Path) -> None:
    (home / "data/deep").mkdir(parents=True)
    (home / "data/b.txt").write_text("b")
    (home / "data/deep/a.txt").write_text("a")
    (home / "data/deep.txt").write_text("before deep/a.txt: DVC sorts the texts of paths, not their parts")
    (home / "one.txt").write_text("one")
    for words in (["init", "-q", "--no-scm"], ["add", "-q", "data", "one.txt"]):
        subprocess.run([sys.executable, "-m", "dvc", *words], cwd=home, check=True)
    for name in ("data", "one.txt"):
        (out,) = yaml.safe_load((home / f"{name}.dvc").read_text())["outs"]
        assert hashes.digest(Path(name)) == out["md5"]
        assert len(out["md5"]) <= 36
    listing = hashes.listing(Path("data"))
    assert [file["relpath"] for file in listing] == ["b.txt", "deep.txt", "deep/a.txt"]
    assert hashes.of_listing(listing) == hashes.digest(Path("data"))
    assert hashes.md5(Path("one.txt")) == hashes.digest(Path("one.txt"))


def lock(**stages: object) -> None:
    paths.LOCK.write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def test_under_dvc_the_lock_is_believed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "raw.txt").write_text("raw")
    lock(prepare={"cmd": "x", "deps": [{"path": "raw.txt", "md5": "locked"}], "outs": [{"path": "data/prepared", "md5": "1.dir"}]})
    assert hashes.digest(Path("raw.txt")) != "locked"
    monkeypatch.setenv("DVC_STAGE", "train")
    assert hashes.digest(Path("raw.txt")) == "locked"
    assert hashes.digest(Path("data/prepared")) == "1.dir"


def test_an_entry_changes_with_what_a_stage_was(home: Path) -> None:
    assert hashes.entries(hashes.read()) == {}
    lock(train={"cmd": "x", "params": {"params.yaml": {"r": 8}}}, dpo={"cmd": "y"})
    before = hashes.entries(hashes.read())
    lock(dpo={"cmd": "y"}, train={"params": {"params.yaml": {"r": 16}}, "cmd": "x"})
    after = hashes.entries(hashes.read())
    assert before["train"] != after["train"]
    assert before["dpo"] == after["dpo"]


def test_a_lock_with_conflict_marks_is_as_good_as_none(home: Path) -> None:
    paths.LOCK.write_text("<<<<<<< HEAD\nschema: '2.0'\n=======\n")
    assert hashes.entries(hashes.read()) == {}
    paths.LOCK.write_text("just words\n")
    assert hashes.entries(hashes.read()) == {}
