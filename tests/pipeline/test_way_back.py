"""The way back from real runs: versions in the registry, lineage from any end, promotion, and a run made again, from the command line."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import lineage
from finetune.data import reading, templates
from finetune.tracking import hashes, origins
from tests.pipeline.test_dvc import dvc
from tests.pipeline.test_tracking import query, run_id
from tests.processes import sent, until

pytestmark = pytest.mark.slow


def finetune(folder: Path, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "finetune", *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done


def asked(folder: Path, words: str) -> dict[str, Any]:
    """What `finetune lineage --json` says."""
    found: dict[str, Any] = json.loads(finetune(folder, "lineage", words, "--json").stdout)
    return found


def tags(folder: Path, version: int) -> dict[str, str]:
    return dict(query(folder, f"select key, value from model_version_tags where name = 'tiny' and version = {version}"))


def test_each_export_is_a_version_with_all_that_it_comes_from(tracked: Path) -> None:
    assert query(tracked, "select version from model_versions where name = 'tiny' order by 1") == [(1,), (2,)]
    assert query(tracked, "select alias, version from registered_model_aliases where alias = 'candidate'") == [("candidate", 2)]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tracked, capture_output=True, text=True, check=True).stdout.strip()
    until(lambda: "dvc.commit" in tags(tracked, 2))
    first, second = tags(tracked, 1), tags(tracked, 2)
    assert (second["run"], second["run.name"], second["git.commit"]) == (run_id(tracked, "second"), "second", head)
    assert (second["git.differs"], second["gates"], second["dvc.experiment"]) == ("params.yaml", "none", "second")
    assert first["made_by.train"] == second["made_by.train"] == run_id(tracked, "train")
    assert first["made_by.dpo"] != second["made_by.dpo"]
    entries = {stage: entry for stage, entry in hashes.entries((tracked / "dvc.lock").read_text()).items() if stage != "report"}
    assert {key.removeprefix("dvc.entry."): text for key, text in first.items() if key.startswith("dvc.entry.")} == {
        stage.replace("@", "."): entry for stage, entry in entries.items()
    }
    assert "dvc.outdated" not in first.keys() | second.keys()
    assert first["environment"] == second["environment"]
    assert first["params.sha256"] != second["params.sha256"]
    locked = yaml.safe_load((tracked / "dvc.lock").read_text())["stages"]["export"]["outs"]
    assert first["export.md5"] == next(out["md5"] for out in locked if out["path"] == "models/export")


def test_a_version_a_run_and_a_file_lead_to_what_they_come_from(tracked: Path) -> None:
    version = asked(tracked, "tiny@candidate")["ancestry"]
    assert (version["version"], version["run_name"], version["settings"]["dpo.beta"]) == ("tiny/2", "second", "0.3")
    assert {made["stage"]: made["pipeline"] for made in version["stages"]}["train"] == "first"
    assert {made["stage"]: made["pipeline"] for made in version["stages"]}["dpo"] == "second"
    ((name, data),) = version["data"].items()
    assert name.startswith("package:home_assistant_intents/")
    assert (data["package"], len(data["sha256"])) == ("home-assistant-intents", 64)
    run = asked(tracked, run_id(tracked, "second"))["ancestry"]
    assert run | {"asked": ""} == version | {"asked": ""}
    for file in ("models/export/merged/model.safetensors", "models/export/adapter/adapter_model.safetensors", "models/export"):
        assert asked(tracked, file)["ancestry"]["version"] == "tiny/1", file
    for intermediate in ("models/train", "models/train/adapter_model.safetensors"):
        assert {model["version"] for model in asked(tracked, intermediate)["offspring"]["models"]} == {"tiny/1", "tiny/2"}
    shown = finetune(tracked, "lineage", "tiny/1").stdout
    assert "tiny/1: export" in shown
    assert "train  by this run" in shown


def test_the_raw_file_leads_to_every_model(tracked: Path) -> None:
    file = reading.package(templates.PACKAGE, "speech_to_phrase/en.json")
    for words in (str(file), origins.hashed(file)["md5"]):
        found = asked(tracked, words)
        assert "ancestry" not in found
        assert [(model["version"], model["runs"]) for model in found["offspring"]["models"]] == [
            ("tiny/2", ["second"]),
            ("tiny/1", ["first"]),
        ]


def test_the_figure_fills_a_database_in_which_each_question_has_its_answer(
    tracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(tracked, tmp_path / "copy", symlinks=True)
    database = copy / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection, connection:  # the figure begins with the versions of one run
        for table in ("model_version_tags", "registered_model_aliases", "model_versions"):
            connection.execute(f"delete from {table} where version = 2")
    monkeypatch.setattr(lineage, "PIPELINES", 6)
    monkeypatch.setattr(lineage, "BYTES", 2**20)
    first, raw = lineage._fill(copy)
    assert first.name == "first"
    assert lineage._counts(database)["pipelines"] == [6.0]
    assert asked(copy, "tiny/3")["ancestry"]["run_name"] == "run-3"
    assert asked(copy, lineage.BIG)["ancestry"]["version"] == "tiny/3"
    assert asked(copy, first.id)["ancestry"]["version"] == "tiny/1"
    assert {"tiny/1", "tiny/6"} <= {model["version"] for model in asked(copy, raw)["offspring"]["models"]}


def test_the_champion_needs_gates_or_a_word_and_a_commit_that_is_kept(tracked: Path) -> None:
    refused = finetune(tracked, "promote", "tiny/2", status=1).stderr
    assert "gates: found none" in refused
    assert "`dvc exp branch second second` keeps DVC's commit" in refused
    subprocess.run([sys.executable, "-m", "dvc", "exp", "branch", "second", "second"], cwd=tracked, check=True, capture_output=True)
    assert finetune(tracked, "promote", "tiny/2", "--without-gates").stdout == "tiny/2 is tiny@champion now\n"
    assert tags(tracked, 2)["promoted.gates"] == "none"
    assert asked(tracked, "tiny@champion")["ancestry"]["aliases"] == ["candidate", "champion"]


def test_a_change_that_was_taken_back_and_a_gate_that_shut_are_not_forgotten(tracked: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tracked, tmp_path / "copy", symlinks=True)
    with closing(sqlite3.connect(copy / "mlflow.db")) as connection, connection:
        for table in ("model_version_tags", "registered_model_aliases", "model_versions"):
            connection.execute(f"delete from {table}")
    params = copy / "params.yaml"
    made_with = params.read_text().replace("experiment: finetune\n", "experiment: copy\n")  # whose artifacts are the copy's own

    def reported(text: str) -> None:
        """Commit params.yaml, then have the same bytes registered again, as `promote` advises after a commit."""
        params.write_text(text)
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qam", "t"], cwd=copy, check=True)
        dvc("repro", "-sf", "report", folder=copy)
        until(lambda: sent(copy))

    settings = yaml.safe_load(made_with)
    settings["train"]["learning_rate"] *= 7
    reported(yaml.safe_dump(settings, sort_keys=False))
    assert tags(copy, 1)["dvc.outdated"] == "params.yaml:train"
    refused = finetune(copy, "promote", "tiny/1", "--without-gates", status=1).stderr
    assert "found other params.yaml:train in dvc.lock" in refused
    assert "made with other params.yaml:train than commit and settings tell" in finetune(copy, "lineage", "tiny/1").stdout
    reported(made_with)
    assert "dvc.outdated" not in tags(copy, 1)
    words = ("-S", "experiment=tiny", "-S", "tracking.experiment=copy", "-S", "evaluate.gates={dpo.seen.exact_match_low: 1.0}")
    dvc("exp", "run", "--name", "gated", *words, folder=copy)
    until(lambda: sent(copy))
    assert (tags(copy, 1)["gates"], tags(copy, 1)["gates.run"]) == ("failed", run_id(copy, "gated"))
    assert "gate dpo.seen.exact_match_low: found" in finetune(copy, "promote", "tiny/1", "--without-gates", status=1).stderr
    dvc("exp", "run", "--name", "lower", *words[:-1], "evaluate.gates={dpo.seen.exact_match_low: 0.0}", folder=copy)
    until(lambda: sent(copy))
    assert finetune(copy, "promote", "tiny/1").stdout == "tiny/1 is tiny@champion now\n"


def test_an_experiment_is_made_again_with_the_same_bytes(tracked: Path) -> None:
    done = finetune(tracked, "reproduce", "second", "--json")
    found = json.loads(done.stdout)
    assert found["verdict"] == "same"
    assert len(found["outs"]) == 22
    assert "taken from experiment second, which DVC committed as" in done.stderr
    assert "another environment" not in done.stderr
    assert [path.name for path in (tracked / ".cache/reproduce").iterdir()] == ["lock"]


def test_an_experiment_that_git_has_lost_is_made_again_from_its_baseline(tracked: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tracked, tmp_path / "copy", symlinks=True)
    for path in (copy / ".git/refs/exps", copy / ".git/refs/heads/second"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for words in (["reflog", "expire", "--all", "--expire=now"], ["pack-refs", "--all"], ["gc", "-q", "--prune=now"]):
        subprocess.run(["git", *words], cwd=copy, check=True)
    done = finetune(copy, "reproduce", "tiny/1")
    assert "of experiment first is gone; commit" in done.stderr
    assert "with the recorded patch" in done.stderr
    assert done.stdout == "first came out the same: 22 outs have the recorded bytes\n"
