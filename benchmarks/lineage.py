"""How long `finetune lineage` takes to answer with 1,000 pipelines in the database, copies of a real one, each with its own model version.

Each pipeline has the runs of the five stages that another dpo.beta makes again, so the database holds 6,000 runs. Asked are a version, a
run's id, a weights file of half a gigabyte, and the raw file that all of them ate.
"""

import hashlib
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from mlflow.entities import Param
from mlflow.tracking import MlflowClient

from benchmarks.record import Samples
from benchmarks.watching import call, fresh_clone, watch
from finetune.errors import SetupError
from finetune.lineage.database import Database
from finetune.lineage.records import Run
from finetune.progress import progress

LOADED = ("finetune/lineage",)  # `finetune lineage` runs in a process of its own
PIPELINES = 1_000
REPEATS = 5
MODEL = "tiny"
STAGES = ("dpo", "answer@dpo", "evaluate", "export", "report")
BATCH = 100  # parameters a call, MLflow's own limit
HASHED = ("md5.", "sha256.")
BIG = "found.safetensors"
BYTES = 538_000_000  # of the default model's merged weights


def measure(root: Path) -> Samples:
    """Seconds of each question, with the start of the program; how many runs and versions there were."""
    with fresh_clone(root) as clone:
        watch(clone, "make", "run", "EXPERIMENT=tiny")
        first, raw = _fill(clone)
        program = str(clone / ".venv/bin/finetune")
        asked = {"version": f"{MODEL}/{PIPELINES // 2}", "run": first.id, "file": BIG, "raw": raw}
        answers = {name: [_answer(clone, program, words) for _ in range(REPEATS)] for name, words in asked.items()}
        if len(answers["raw"][0][1]["offspring"]["models"]) != PIPELINES:
            raise SetupError("lineage lost models:", [f"found {len(answers['raw'][0][1]['offspring']['models'])}, expected {PIPELINES}"])
        counts = _counts(clone / "mlflow.db")
    return {**{name: [seconds for seconds, _ in several] for name, several in answers.items()}, **counts}


def _answer(clone: Path, program: str, words: str) -> tuple[float, Any]:
    done = call(clone, program, "lineage", "--json", words)
    return done.seconds, json.loads(done.output)


def _fill(clone: Path) -> tuple[Run, str]:
    """Copy the one pipeline of the database until there are enough; return it, and the sha256 of what it ate."""
    file = clone / "mlflow.db"
    known, client = Database.at(file), MlflowClient(f"sqlite:///{file}")
    version = known.version(MODEL, 1)
    assert version is not None
    first = known.runs([version.tags["run"]])[version.tags["run"]]
    own = {run.name: run for run in known.children(first.id) if run.name in STAGES}
    lock = clone / "dvc.lock"
    for number in progress(range(2, PIPELINES + 1), "filling the database", unit="pipelines"):
        copied = _copy(client, first, f"run-{number}", {**_own_hashes(first, number), "model.version": f"{MODEL}/{number}"})
        client.log_artifact(copied, str(lock))
        for name, run in own.items():
            _copy(client, run, name, {**run.tags, "mlflow.parentRunId": copied})
        tags = {**version.tags, "run": copied, "export.md5": _other(version.tags["export.md5"], number)}
        client.create_model_version(MODEL, f"{first.artifacts}/export", copied, tags)
        if number == PIPELINES // 2:
            (clone / BIG).write_bytes(os.urandom(2**20) * (BYTES // 2**20))
            with (clone / BIG).open("rb") as opened:
                client.set_tag(copied, f"sha256.{hashlib.file_digest(opened, 'sha256').hexdigest()}", BIG)
    (eaten,) = (json.loads(text)["sha256"] for key, text in first.tags.items() if key.startswith("data."))
    return first, eaten


def _own_hashes(run: Run, number: int) -> dict[str, str]:
    """The tags of a run, with other hashes of what it made: what it read stays."""
    read = {key.removeprefix("data.") for key in run.tags if key.startswith("data.")}
    renewed = {}
    for key, text in run.tags.items():
        kind, _, digest = key.partition(".")
        made = key.startswith(HASHED) and text not in read
        renewed[f"{kind}.{_other(digest, number)}" if made else key] = text
    return renewed


def _other(digest: str, number: int) -> str:
    """Another hash that looks like one."""
    ending = ".dir" * digest.endswith(".dir")
    return hashlib.sha256(f"{digest} {number}".encode()).hexdigest()[: len(digest) - len(ending)] + ending


def _copy(client: MlflowClient, run: Run, name: str, tags: dict[str, str]) -> str:
    experiment = client.get_run(run.id).info.experiment_id
    made = str(client.create_run(experiment, run.started, tags | {"mlflow.runName": name}, name).info.run_id)
    settings = [Param(key, text) for key, text in run.params.items()]
    for place in range(0, len(settings), BATCH):
        client.log_batch(made, params=settings[place : place + BATCH])
    client.set_terminated(made, "FINISHED")
    return made


def _counts(database: Path) -> Samples:
    with closing(sqlite3.connect(database)) as connection:
        tables = {"pipelines": "model_versions", "runs": "runs", "tags": "tags"}
        found = {name: connection.execute(f"select count(*) from {table}").fetchone()[0] for name, table in tables.items()}
    return {name: [float(count)] for name, count in found.items()}
