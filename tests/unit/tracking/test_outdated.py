"""What dvc.lock records is compared with what lies here, so that models are not told to come from settings that they were not made with."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune import paths
from finetune.tracking import commands, hashes, outdated

PIPELINE = """\
stages:
  check: {cmd: python3 -m stages.check, deps: [conf], params: [conf_sha]}
  prepare: {cmd: python3 -m stages.prepare, deps: [data/raw, finetune/data.py], params: [data], outs: [data/prepared]}
  train: {cmd: "${launch.command} -m stages.train", deps: [data/prepared/sft], params: [train.r], outs: [models/train, reports/train.json]}
  answer:
    foreach: {base: {tuned: data/prepared/sft}, train: {tuned: models/train}}
    do: {cmd: "python3 -m stages.answer answer.which=${key}", deps: ["${item.tuned}"], outs: ["reports/${key}.jsonl"]}
"""
MANY = """\
vars: [{here: 1}, {through: [c]}]
stages:
  listed: {cmd: ["echo ${fast} > listed", "echo ${sizes[1].r}"], outs: [listed]}
  vars: {cmd: "echo ${here} > vars", outs: [vars]}
  gone: {foreach: "${through}", do: {cmd: "echo ${item} > ${item}", outs: ["${item}"]}}
  seed: {foreach: "${seeds}", do: {cmd: "echo ${item} > seed${item}", outs: ["seed${item}"]}}
  nested: {foreach: "${sizes}", do: {cmd: "echo ${item.r} > nested${item.r}", outs: ["nested${item.r}"]}}
  named: {foreach: "${named}", do: {cmd: "echo ${item.r} > named${key}", outs: ["named${key}"]}}
  mixed: {foreach: [true, "x${seeds[0]}"], do: {cmd: "echo ${item} > mixed${item}", outs: ["mixed${item}"]}}
  matrix:
    matrix: {seed: "${seeds}", sizes: "${sizes}", word: [x]}
    cmd: "echo ${item.sizes.r} > ${key}"
    outs: ["${key}"]
"""
PARAMS = {"data": {"language": "no", "share": 2e-05}, "train": {"r": 8, "decay": 0.0}, "launch": {"command": "python3"}, "conf_sha": "1"}
FILES = ("data/raw/a.jsonl", "finetune/data.py", "data/prepared/sft/a", "models/train/weights", "reports/train.json")
LISTED: dict[str, tuple[list[str], dict[str, Any], list[str]]] = {  # stage: deps, params, outs
    "check": (["conf"], {"conf_sha": "of another comment"}, []),
    "prepare": (["data/raw", "finetune/data.py"], {"data": PARAMS["data"]}, ["data/prepared"]),
    "train": (["data/prepared/sft"], {"train.r": 8}, ["models/train", "reports/train.json"]),
    "answer@base": (["data/prepared/sft"], {}, ["reports/base.jsonl"]),
    "answer@train": (["models/train"], {}, ["reports/train.jsonl"]),
}
COMMANDS = {name: f"python3 -m stages.{name}" for name in LISTED} | {
    f"answer@{which}": f"python3 -m stages.answer answer.which={which}" for which in ("base", "train")
}


@pytest.fixture
def lock(workspace: Path) -> dict[str, Any]:
    """The entries of dvc.lock after a run of what lies in the working directory."""
    Path("dvc.yaml").write_text(PIPELINE)
    paths.PARAMS.write_text(yaml.safe_dump(PARAMS))
    for name in (*FILES, "reports/base.jsonl", "reports/train.jsonl", "conf/config.yaml"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    return {
        name: {
            "cmd": COMMANDS[name],
            "deps": [{"path": path, "md5": hashes.digest(Path(path))} for path in deps],
            "params": {"params.yaml": {**params}},
            "outs": [{"path": path, "md5": hashes.digest(Path(path))} for path in outs],
        }
        for name, (deps, params, outs) in LISTED.items()
    }


def names(lock: dict[str, Any]) -> list[str]:
    return outdated.names(yaml.safe_dump({"schema": "2.0", "stages": lock}))


def write(name: str, text: str = "changed") -> Callable[[dict[str, Any]], object]:
    return lambda _: Path(name).write_text(text)


def dep(lock: dict[str, Any], stage: str, md5: str) -> None:
    lock[stage]["deps"][0]["md5"] = md5


def test_a_run_of_what_lies_here_is_not_outdated_whatever_became_of_other_stages(lock: dict[str, Any]) -> None:
    assert names(lock) == [], "conf/ makes nothing, and what it says is in params.yaml"
    gone = {"cmd": "x", "deps": [{"path": "finetune/old.py", "md5": "1"}], "outs": [{"path": "reports/old.jsonl", "md5": "2"}]}
    assert names({**lock, "dropped": gone, "answer@old": gone, "report": gone}) == []
    Path("reports/base.jsonl").unlink()
    assert names(lock) == [], "it may be in the cache alone"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda lock: lock["train"]["params"]["params.yaml"].update({"train.r": 16}), "params.yaml:train.r"),
        (lambda lock: lock["prepare"]["params"]["params.yaml"].update(gone=1), "params.yaml:gone"),
        (lambda lock: lock["train"].update(cmd="torchrun --nproc-per-node=2 -m stages.train"), "dvc.yaml:train"),
        (write("finetune/data.py"), "finetune/data.py"),
        (lambda _: Path("finetune/data.py").unlink(), "finetune/data.py"),
        (lambda lock: dep(lock, "answer@train", "0.dir"), "models/train"),
        (lambda lock: dep(lock, "train", "0.dir"), "data/prepared/sft"),
        (write("reports/train.json"), "reports/train.json"),
    ],
    ids=["setting", "setting gone", "processes", "module", "module gone", "out made anew", "part of an out made anew", "report"],
)
def test_what_was_otherwise_is_named(lock: dict[str, Any], change: Callable[[dict[str, Any]], object], name: str) -> None:
    change(lock)
    assert names(lock) == [name]


def test_settings_are_read_as_dvc_reads_and_writes_them(lock: dict[str, Any]) -> None:
    text = yaml.safe_dump({"schema": "2.0", "stages": lock})
    by_dvc = text.replace("'no'", "no").replace("2.0e-05", "2e-05")  # YAML 1.2; PyYAML takes them for false and for text
    assert by_dvc != text
    assert outdated.names(by_dvc) == []


def test_what_dvc_does_not_see_is_no_difference(lock: dict[str, Any]) -> None:
    Path(".dvcignore").write_text("# comment\n__pycache__\n")
    write("data/prepared/sft/__pycache__")(lock)
    assert names(lock) == []


def test_dvcignore_is_read_as_dvc_itself_reads_it(workspace: Path) -> None:
    names = (
        "a.jsonl",
        "notes/a",
        "deep/notes/a",
        "tmp/x",
        "deep/tmp/x",
        "a.bak",
        "keep.bak",
        "draft-1/a",
        "deep/only",
        "only",
        ".DS_Store",
    )
    for name in names:
        Path("data/raw", name).parent.mkdir(parents=True, exist_ok=True)
        Path("data/raw", name).write_text(name)
    patterns = ("# comment", "", "tmp/", "!tmp/x", "data/raw/notes/", "*.bak", "!keep.bak", "**/draft-*", "/data/raw/only", "[.]DS_Store")
    Path(".dvcignore").write_text("\n".join(patterns))
    for words in (["init", "-q", "--no-scm"], ["add", "-q", "data/raw"]):
        subprocess.run([sys.executable, "-m", "dvc", *words], check=True, capture_output=True)
    (out,) = yaml.safe_load(Path("data/raw.dvc").read_text())["outs"]
    assert out["nfiles"] == 4, "a.jsonl, deep/notes/a, keep.bak, deep/only"
    assert outdated.same(Path("data/raw"), out["md5"])
    assert outdated.folder(Path("data/raw").resolve(), Path.cwd()) == out["md5"]


def test_commands_are_those_that_dvc_itself_makes_of_dvc_yaml(workspace: Path) -> None:
    Path("dvc.yaml").write_text(MANY)
    settings = {"seeds": [1, 2], "sizes": [{"r": 8}, {"r": 16}], "fast": True, "named": {"a": {"r": 1}}}
    paths.PARAMS.write_text(yaml.safe_dump(settings))
    for words in (["init", "-q", "--no-scm"], ["repro", "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *words], check=True, capture_output=True)
    entries = yaml.safe_load(hashes.read())["stages"]
    assert len(entries) == 14
    found = commands.of(yaml.safe_load(MANY)["stages"], settings)
    assert found.pop("vars") == "echo ${here} > vars", "only DVC knows that"
    assert found == {name: str(entry["cmd"]) for name, entry in entries.items() if name not in ("vars", "gone@c")}
    assert outdated.names(hashes.read()) == []
    paths.PARAMS.write_text(yaml.safe_dump({**settings, "sizes": [{"r": 9}, {"r": 16}]}))
    assert outdated.names(hashes.read()) == ["dvc.yaml:matrix@1-sizes0-x", "dvc.yaml:matrix@2-sizes0-x", "dvc.yaml:nested@0"]


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\nstages: {}\n", "", "stages: {train: }", "stages: {train: {foreach: [a], do: x}}"])
def test_a_pipeline_that_is_none_any_more_is_another_and_fails_nothing(lock: dict[str, Any], text: str) -> None:
    Path("dvc.yaml").write_text(text)
    assert names(lock) == ["dvc.yaml", "params.yaml"]


def test_a_stage_without_a_command_has_another_one(lock: dict[str, Any]) -> None:
    Path("dvc.yaml").write_text(PIPELINE.replace('cmd: "${launch.command} -m stages.train", ', ""))
    assert names(lock) == ["dvc.yaml:train"]
