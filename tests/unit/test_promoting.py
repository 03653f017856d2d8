"""`finetune promote`: refused with everything that is against it, and noted when it goes through."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from finetune import promoting
from finetune.errors import PromotionError
from finetune.lineage import records
from finetune.lineage.subject import model_version
from finetune.tracking import hashes
from tests.processes import rows
from tests.unit.lineage.conftest import MLFLOW, Pipeline, by_hand, database, empty_database, git, home, pipeline

pytestmark = MLFLOW
__all__ = ["by_hand", "database", "empty_database", "home", "pipeline"]


@pytest.fixture
def cached(database: Path, pipeline: Pipeline) -> Path:
    """A repository whose newest version, lamp/1, has all its bytes in DVC's cache. The database."""
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], check=True)
    pipeline("first", weights="a", records="x")
    for stage in yaml.safe_load(Path("dvc.lock").read_text())["stages"].values():
        for out in stage["outs"]:
            keep(out["md5"], "weights", out["path"])
    return database


def kept(digest: str) -> Path:
    return Path(".dvc/cache/files/md5", digest[:2], digest[2:])


def keep(digest: str, *files: str) -> None:
    """Put a folder of such files into the cache, each with its own path as content."""
    listing = []
    for content in files:
        scratch = Path("scratch")
        scratch.write_text(content)
        md5 = hashes.md5(scratch)
        kept(md5).parent.mkdir(parents=True, exist_ok=True)
        scratch.rename(kept(md5))
        listing.append({"md5": md5, "relpath": content.replace("/", "-")})
    kept(digest).parent.mkdir(parents=True, exist_ok=True)
    kept(digest).write_text(json.dumps(listing))


def keep_outs() -> None:
    """Put all that dvc.lock names into the cache."""
    for stage in yaml.safe_load(Path("dvc.lock").read_text())["stages"].values():
        for out in stage["outs"]:
            keep(out["md5"], "weights")


def promote(database: Path, words: str = "lamp@candidate", without_gates: bool = False) -> str:
    uri = f"sqlite:///{database}"
    known = records.opened(uri)
    return promoting.promote(model_version(words, known), known, uri, database.parent, without_gates)


def against(database: Path, words: str = "lamp@candidate") -> list[str]:
    """What is said against it."""
    with pytest.raises(PromotionError) as refused:
        promote(database, words)
    assert rows(database, "select * from registered_model_aliases where alias = 'champion'") == []
    return refused.value.problems


def test_what_is_fit_becomes_the_champion_and_that_is_noted(cached: Path) -> None:
    assert promote(cached) == "lamp/1 is lamp@champion now"
    assert rows(cached, "select version from registered_model_aliases where alias = 'champion'") == [(1,)]
    tags = dict(rows(cached, "select key, value from model_version_tags where key like 'promoted.%'"))
    assert tags["promoted.gates"] == "passed"
    assert tags["promoted.at"].endswith("+00:00")


def test_the_one_before_is_named(cached: Path, pipeline: Pipeline) -> None:
    promote(cached)
    pipeline("second", weights="b", records="x")
    keep_outs()
    assert promote(cached) == "lamp/2 is lamp@champion now, instead of lamp/1"
    assert rows(cached, "select value from model_version_tags where key = 'promoted.instead_of'") == [("lamp/1",)]


def test_gates_that_failed_are_against_it_whatever_is_said(cached: Path, pipeline: Pipeline) -> None:
    pipeline(
        "first", weights="a", records="x", gates="failed", **{"gates.failed": "dpo.a: found 0.1, expected at least 0.5; dpo.b: found 2"}
    )
    assert against(cached) == [
        "gate dpo.a: found 0.1, expected at least 0.5; train a better one, or change evaluate.gates",
        "gate dpo.b: found 2; train a better one, or change evaluate.gates",
    ]
    with pytest.raises(PromotionError):
        promote(cached, without_gates=True)


def test_without_gates_one_has_to_say_so_and_it_is_noted(cached: Path, pipeline: Pipeline) -> None:
    pipeline("ungated", weights="b", records="x", gates="none")
    keep_outs()
    (told,) = against(cached)
    assert "--without-gates" in told
    promote(cached, without_gates=True)
    assert rows(cached, "select value from model_version_tags where key = 'promoted.gates'") == [("none",)]


def test_gates_that_an_experiment_had_count_for_the_same_bytes(cached: Path, pipeline: Pipeline) -> None:
    pipeline("ungated", weights="b", records="x", gates="none")
    keep_outs()
    pipeline("gated", weights="b", records="x", gates="failed", **{"gates.failed": "dpo.a: found 0.1", "git.differs": "params.yaml"})
    assert against(cached) == ["gate dpo.a: found 0.1; train a better one, or change evaluate.gates"]
    with pytest.raises(PromotionError):
        promote(cached, without_gates=True)
    pipeline("mended", weights="b", records="x", gates="passed", **{"git.differs": "params.yaml, finetune/evaluation/gates.py"})
    (told,) = against(cached)
    assert told.startswith("gates: found them passed with changes in finetune/evaluation/gates.py, expected what judges as committed")
    pipeline("lower", weights="b", records="x", gates="passed", **{"git.differs": "params.yaml"})
    assert promote(cached) == "lamp/2 is lamp@champion now"


def test_models_of_a_change_that_was_taken_back_are_not_what_their_commit_makes(cached: Path, pipeline: Pipeline) -> None:
    pipeline("tuned", weights="b", records="x", **{"git.differs": "params.yaml"})
    keep_outs()
    assert "found changes in params.yaml" in against(cached)[0]
    pipeline("reverted", weights="c", records="x", **{"dvc.outdated": "params.yaml:train", "data.changed": "while the pipeline ran"})
    keep_outs()
    made, raw = against(cached)
    assert "found other params.yaml:train in dvc.lock than the run had at its end" in made
    assert "`dvc repro` makes what is committed" in made
    assert raw.startswith("data/raw: found other files than prepare read")


def test_a_run_that_could_not_say_what_it_came_from_is_against_it_although_another_judged_its_bytes(cached: Path) -> None:
    with closing(sqlite3.connect(cached)) as connection, connection:
        connection.execute("delete from model_version_tags where key = 'params.sha256'")
    (told,) = against(cached)
    assert told.startswith("settings: found no hash of them")


def test_a_verdict_that_is_not_known_is_against_it_whatever_is_said(cached: Path) -> None:
    with closing(sqlite3.connect(cached)) as connection, connection:
        connection.execute("delete from model_version_tags where key = 'gates'")
    with pytest.raises(PromotionError, match="found no verdict"):
        promote(cached, without_gates=True)


def test_a_dirty_tree_is_against_it_until_a_clean_run_made_the_same_bytes(database: Path, cached: Path, pipeline: Pipeline) -> None:
    pipeline("other", weights="c", records="x", **{"git.differs": "conf/config.yaml", "git.untracked": "finetune/new.py"})
    keep_outs()
    untracked, tree = against(cached, "lamp/2")
    assert "found finetune/new.py in neither git nor DVC" in untracked
    assert "found changes in conf/config.yaml, expected it as committed" in tree
    assert "dvc repro -sf report" in tree
    pipeline("clean", weights="c", records="x")
    assert promote(cached, "lamp/2") == "lamp/2 is lamp@champion now"


def test_an_experiment_is_promoted_when_a_branch_keeps_its_commit(cached: Path, pipeline: Pipeline) -> None:
    git("commit", "-q", "--allow-empty", "-m", "experiment")
    saved = git("rev-parse", "HEAD")
    git("reset", "-q", "--hard", "HEAD~1")
    pipeline("first", weights="a", records="x")  # clean before: its evidence stays, so take other bytes
    pipeline("tuned", weights="d", records="x", **{"git.differs": "params.yaml", "dvc.commit": saved})
    keep_outs()
    (told,) = against(cached, "lamp/2")
    assert "`dvc exp branch tuned tuned` keeps DVC's commit" in told
    git("branch", "tuned", saved)
    assert promote(cached, "lamp/2") == "lamp/2 is lamp@champion now"


def test_a_commit_that_git_has_not_or_will_lose_is_against_it(cached: Path, pipeline: Pipeline) -> None:
    git("branch", "-m", "gone")
    git("checkout", "-q", "--detach")
    git("branch", "-D", "gone")
    (told,) = against(cached)
    assert "on no branch or tag, so git will lose it" in told
    pipeline("first", weights="a", records="x", **{"mlflow.source.git.commit": "9" * 40})
    (told,) = against(cached)
    assert "found no 999999999999 in this repository" in told


def test_bytes_that_the_cache_has_not_or_not_as_recorded_are_against_it(cached: Path) -> None:
    lock = yaml.safe_load(Path("dvc.lock").read_text())["stages"]
    train, export = (lock[stage]["outs"][0]["md5"] for stage in ("train", "export"))
    kept(train).unlink()
    (weights,) = (file["md5"] for file in json.loads(kept(export).read_text()) if file["relpath"] == "weights")
    kept(weights).write_text("spoiled")
    gone, spoiled = against(cached)
    assert "found no models/train in DVC's cache; `dvc pull`" in gone
    assert "found other bytes in DVC's cache than recorded: models/export/weights" in spoiled


def test_bytes_that_are_gone_are_made_again_where_they_are_wanted(cached: Path, pipeline: Pipeline) -> None:
    shutil.rmtree(".dvc/cache/files")
    (told,) = against(cached)
    assert f"`dvc pull`, or make them again: `git checkout {git('rev-parse', 'HEAD')[:12]} && dvc repro`" in told
    with closing(sqlite3.connect(cached)) as connection, connection:
        connection.execute("update runs set lifecycle_stage = 'deleted'")
    (told,) = against(cached)
    assert "found no dvc.lock among the run's artifacts" in told
    assert "`mlflow runs restore --run-id" in told
