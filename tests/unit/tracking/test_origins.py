"""What a run came from, as tags: hashes of what was read, down to the raw files, and keys to find the run by them."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune import outputs, paths
from finetune.config.schema import Config
from finetune.errors import DataError
from finetune.tracking import hashes, origins
from tests.conftest import Compose

GATES = {"gates": {"verdict": "failed", "checks": {"dpo.a": {"found": 0.25, "expected": 0.5, "passed": False}}}}
RECORDS = b'{"instruction": "a", "output": "b"}\n'


@pytest.fixture
def files(workspace: Path, compose: Compose) -> Config:
    """Settings of a run on own files, one of them in a package and one on the hub, and what the run left in the working directory."""
    for name, content in (("records.jsonl", RECORDS), ("README.md", b"not read"), (".DS_Store", b"not seen by DVC")):
        (paths.RAW / name).write_bytes(content)
    Path(".dvcignore").write_text("# comment\n.DS_Store\n")
    outputs.write_json(paths.EXPORT / "manifest.json", {"files": {"merged/model.safetensors": {"sha256": "f" * 64, "bytes": 1}}})
    raw = hashes.folder(paths.RAW, lambda parts: ".DS_Store" in parts)
    stages: dict[str, Any] = {
        "prepare": {"cmd": "run prepare", "deps": [{"path": "data/raw", "md5": raw}], "outs": [{"path": "data/prepared", "md5": "1.dir"}]},
        "evaluate": {"cmd": "run evaluate", "outs": [{"path": "reports/a.jsonl", "md5": "2"}, {"path": "reports/b.jsonl", "md5": "2"}]},
        "report": {"outs": [{"path": "reports/figures", "md5": "3.dir"}]},
    }
    paths.LOCK.write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {name: {"cmd": f"run {name}"} for name in stages}}))
    paths.PARAMS.write_text("train: {r: 8}\n")
    sources = "{path: records.jsonl}, {path: 'package:home_assistant_intents/speech_to_phrase/en.json'}"
    return compose("data=files", f"data.sources=[{sources}, {{path: 'hub:me/mine', revision: {'a' * 40}}}]")


def test_each_source_has_its_hashes_or_its_revision(files: Config) -> None:
    found = origins.tags(files, GATES)
    records = json.loads(found["data.data/raw/records.jsonl"])
    hashed = {"md5": hashlib.md5(RECORDS).hexdigest(), "sha256": hashlib.sha256(RECORDS).hexdigest(), "bytes": len(RECORDS)}
    assert records == {**hashed, "path": "data/raw/records.jsonl"}
    packed = json.loads(found["data.package:home_assistant_intents/speech_to_phrase/en.json"])
    assert (packed["package"], packed["version"], len(packed["sha256"])) == ("home-assistant-intents", "2026.10.27", 64)
    assert json.loads(found["data.hub:me/mine"]) == {"path": "hub:me/mine", "revision": "a" * 40, "split": "train"}
    assert "data.data/raw/README.md" not in found
    assert "data.changed" not in found


def test_two_splits_of_one_data_set_are_told_each_with_its_revision(files: Config, compose: Compose) -> None:
    splits = [f"{{path: 'hub:me/mine', split: {split}, revision: {digit * 40}}}" for split, digit in (("train", "a"), ("test", "b"))]
    found = dict(origins.sources(compose("data=files", f"data.sources=[{', '.join(splits)}]").data))
    assert {name: facts["revision"][0] for name, facts in found.items()} == {"hub:me/mine#train": "a", "hub:me/mine#test": "b"}


def test_every_hash_is_a_key_that_leads_to_the_run(files: Config) -> None:
    found = origins.tags(files, GATES)
    assert found[f"md5.{hashlib.md5(RECORDS).hexdigest()}"] == "data/raw/records.jsonl"
    assert found[f"sha256.{hashlib.sha256(RECORDS).hexdigest()}"] == "data/raw/records.jsonl"
    assert found["md5.1.dir"] == "data/prepared"
    assert found["md5.2"] == "reports/a.jsonl, reports/b.jsonl"
    assert found["sha256." + "f" * 64] == "models/export/merged/model.safetensors"
    assert "md5.3.dir" not in found, "of the run before"


def test_stages_settings_base_and_gates_are_told(files: Config) -> None:
    found = origins.tags(files, GATES)
    assert {key for key in found if key.startswith("dvc.entry.")} == {"dvc.entry.prepare", "dvc.entry.evaluate"}
    assert (found["base.path"], found["base.revision"], found["base.sha256"]) == (
        files.model.path,
        files.model.revision,
        files.model.sha256,
    )
    assert (found["gates"], found["gates.failed"]) == ("failed", "dpo.a: found 0.25, expected at least 0.5")
    other = files.model_copy(update={"seed": 18})
    assert origins.tags(other, GATES)["params.sha256"] != found["params.sha256"]
    elsewhere = files.model_copy(update={"tracking": files.tracking.model_copy(update={"experiment": "x"})})
    assert origins.tags(elsewhere, GATES) == found, "tracking determines no result"


def test_raw_data_that_changed_meanwhile_is_told(files: Config, caplog: pytest.LogCaptureFixture) -> None:
    with (paths.RAW / "records.jsonl").open("ab") as opened:
        opened.write(RECORDS)
    with caplog.at_level(logging.WARNING):
        assert origins.tags(files, GATES)["data.changed"] == "while the pipeline ran"
    assert "data/raw is not what prepare read any more" in caplog.text


def test_models_of_other_settings_than_these_are_told(files: Config, caplog: pytest.LogCaptureFixture) -> None:
    assert "dvc.outdated" not in origins.tags(files, GATES)
    lock = yaml.safe_load(paths.LOCK.read_text())
    lock["stages"]["prepare"]["params"] = {"params.yaml": {"train": {"r": 16}}}
    paths.LOCK.write_text(yaml.safe_dump(lock))
    with caplog.at_level(logging.WARNING):
        assert origins.tags(files, GATES)["dvc.outdated"] == "params.yaml:train"
    assert "made with other params.yaml:train than lie here; `dvc repro` makes them anew" in caplog.text


def test_the_embedded_data_is_its_package_whatever_lies_in_raw(files: Config, compose: Compose) -> None:
    (paths.RAW / "more.jsonl").write_bytes(RECORDS)
    found = origins.tags(compose(), GATES)
    assert [key for key in found if key.startswith("data.")] == ["data.package:home_assistant_intents/speech_to_phrase/en.json"]


def test_what_is_gone_is_an_error_that_tracking_catches(files: Config) -> None:
    (paths.EXPORT / "manifest.json").unlink()
    with pytest.raises(DataError, match="found no such file"):
        origins.tags(files, GATES)
