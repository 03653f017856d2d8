"""Exports in the registry: a version for each export's bytes, with what it came from, however often it is sent."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from finetune import tracking
from finetune.tracking import registry
from finetune.tracking.send import Sender
from finetune.tracking.store import Store
from tests.processes import rows

from .conftest import MLFLOW, settings
from .test_hashes import lock
from .test_send import Killed

pytestmark = MLFLOW
CLEAN = {registry.COMMIT: "c" * 40, "params.sha256": "s", "gates": "passed"}
Export = Callable[..., None]


@pytest.fixture
def export(database: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    """Tell of an export as the stage report does, and send it: `export("first", weights="1", **tags)`."""
    monkeypatch.setenv("DVC_STAGE", "report")
    folder = Path("models/export")

    def tell(run: str, weights: str, send: bool = True, **tags: str) -> None:
        monkeypatch.setenv("DVC_EXP_NAME", run)
        (folder / "adapter").mkdir(parents=True, exist_ok=True)
        (folder / "merged").mkdir(exist_ok=True)
        for name in ("manifest.json", "README.md", "adapter/adapter_model.safetensors", "merged/model.safetensors"):
            (folder / name).write_text(weights)
        lock(export={"cmd": "x", "outs": [{"path": folder.as_posix(), "md5": f"{weights * 32}.dir"}]})
        with tracking.run("report", settings()):
            tracking.tags({key: value for key, value in {**CLEAN, **tags}.items() if value}, on="pipeline")
            tracking.version("lamp", folder)
        if send:
            Sender(database.parent).step()

    return tell


def versions(database: Path) -> dict[int, dict[str, str]]:
    """Number → tags, of all versions."""
    found: dict[int, dict[str, str]] = {
        number: {} for (number,) in rows(database, "select version from model_versions where name = 'lamp'")
    }
    for number, key, value in rows(database, "select version, key, value from model_version_tags"):
        found[number][key] = value
    return found


def alias(database: Path) -> list[Any]:
    return rows(database, "select alias, version from registered_model_aliases")


def of_run(database: Path, name: str) -> str:
    ((value,),) = rows(
        database, f"select value from tags join runs using (run_uuid) where key = 'model.version' and name = '{name}' and value != ''"
    )
    return str(value)


def test_an_export_is_a_version_with_the_evidence_of_its_run(database: Path, export: Export) -> None:
    export("first", "1", **{"params.sha256": "p", "data.data/raw/a.jsonl": "{}", "unrelated": "x"})
    ((number, tags),) = versions(database).items()
    assert (number, tags["export.md5"], tags["git.commit"], tags["params.sha256"]) == (1, "1" * 32 + ".dir", "c" * 40, "p")
    assert tags["run.name"] == "first"
    assert "data.data/raw/a.jsonl" in tags
    assert "unrelated" not in tags
    assert alias(database) == [("candidate", 1)]
    assert of_run(database, "first") == "lamp/1"


def test_a_version_has_the_adapter_and_its_description_and_not_half_a_gigabyte(database: Path, export: Export) -> None:
    export("first", "1")
    ((source,),) = rows(database, "select source from model_versions")
    folder = Path(source.removeprefix("file://"))
    assert sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()) == [
        "README.md",
        "adapter/adapter_model.safetensors",
        "manifest.json",
    ]


def test_other_bytes_are_another_version_and_the_candidate(database: Path, export: Export) -> None:
    export("first", "1")
    export("second", "2")
    assert {number: tags["run.name"] for number, tags in versions(database).items()} == {1: "first", 2: "second"}
    assert alias(database) == [("candidate", 2)]


def test_the_same_bytes_made_again_are_the_same_version_and_the_candidate_again(database: Path, export: Export) -> None:
    export("first", "1")
    export("second", "2")
    export("third", "1")
    assert {number: tags["run.name"] for number, tags in versions(database).items()} == {1: "third", 2: "second"}
    assert [of_run(database, name) for name in ("first", "second", "third")] == ["lamp/1", "lamp/2", "lamp/1"]
    assert alias(database) == [("candidate", 1)]


def test_tags_that_people_gave_a_version_stay(database: Path, export: Export) -> None:
    export("first", "1", **{"base.revision": "x"})
    MlflowClient(f"sqlite:///{database}").set_model_version_tag("lamp", "1", "reviewed_by", "anna")
    export("second", "1")
    assert versions(database)[1].items() >= {"reviewed_by": "anna", "run.name": "second"}.items()
    assert "base.revision" not in versions(database)[1]


def test_evidence_of_a_clean_tree_takes_the_place_of_other_and_never_the_other_way(database: Path, export: Export) -> None:
    export("dirty", "1", **{"git.differs": "conf/config.yaml", "base.revision": "x"})
    assert versions(database)[1]["git.differs"] == "conf/config.yaml"
    export("clean", "1")
    assert versions(database)[1]["run.name"] == "clean"
    assert not {"git.differs", "base.revision"} & versions(database)[1].keys()
    export("untracked", "1", **{"git.untracked": "finetune/new.py"})
    assert versions(database)[1]["run.name"] == "clean"


@pytest.mark.parametrize("tag", ["dvc.outdated", "data.changed"])
def test_evidence_of_what_the_models_were_not_made_from_gives_way_to_any_other(database: Path, export: Export, tag: str) -> None:
    export("reverted", "1", **{tag: "params.yaml:train"})
    export("tuned", "1", **{"git.differs": "params.yaml"})
    export("reverted again", "1", **{tag: "params.yaml:train"})
    assert versions(database)[1]["run.name"] == "tuned"
    assert tag not in versions(database)[1]


def test_what_the_gates_said_is_of_the_newest_run_that_had_some_from_whatever_tree(database: Path, export: Export) -> None:
    def said() -> tuple[str, str | None, bool, str | None]:
        tags = versions(database)[1]
        assert tags["run.name"] == "clean"
        judge = rows(database, f"select name from runs where run_uuid = '{tags['gates.run']}'")[0][0]
        return tags["gates"], tags.get("gates.failed"), judge == "clean", tags.get("gates.differs")

    export("clean", "1", gates="none")
    assert said() == ("none", None, True, None)
    export("gated", "1", gates="failed", **{"gates.failed": "dpo.a", "git.differs": "params.yaml"})
    assert said() == ("failed", "dpo.a", False, None)
    export("clean", "1", gates="none")
    assert said() == ("failed", "dpo.a", False, None), "it judged nothing"
    differs = "params.yaml, finetune/evaluation/gates.py, README.md"
    export("mended", "1", **{"git.differs": differs, "dvc.outdated": "reports/evaluate.json"})
    assert said() == ("passed", None, False, "finetune/evaluation/gates.py, reports/evaluate.json")
    export("untold", "1", **{"gates": "", "params.sha256": ""})
    assert said()[0] == "passed", "it could not say what it came from"


def test_a_verdict_that_waited_in_a_spool_gives_way_to_newer_ones(database: Path, export: Export) -> None:
    export("failed", "1", send=False, gates="failed")
    late = next((database.parent / ".tracking/spool").iterdir())
    late.rename(database.parent / late.name)
    export("passed", "1")
    (database.parent / late.name).rename(late)
    Sender(database.parent).step()
    assert versions(database)[1]["gates"] == "passed"


def test_what_was_promoted_keeps_the_evidence_that_it_was_promoted_for_and_tells_what_gates_say_later(
    database: Path, export: Export
) -> None:
    export("first", "1")
    MlflowClient(f"sqlite:///{database}").set_model_version_tag("lamp", "1", registry.PROMOTED, "today")
    export("second", "1", gates="failed")
    assert (versions(database)[1]["run.name"], versions(database)[1]["gates"]) == ("first", "failed")


def test_what_waited_in_a_spool_is_not_the_newest(database: Path, export: Export) -> None:
    export("first", "1", send=False)
    late = next((database.parent / ".tracking/spool").iterdir())
    late.rename(database.parent / late.name)
    export("second", "2")
    (database.parent / late.name).rename(late)
    Sender(database.parent).step()
    assert {tags["run.name"]: number for number, tags in versions(database).items()} == {"second": 1, "first": 2}
    assert alias(database) == [("candidate", 1)]


def test_a_sender_killed_anywhere_makes_one_version(database: Path, export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    export("first", "1", send=False)
    for name in ("create_registered_model", "create_model_version", "set_registered_model_alias"):
        done = getattr(MlflowClient, name)

        def dies(*words: Any, **named: Any) -> None:
            done(*words, **named)  # noqa: B023  # called before the next turn
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, name, dies)
            with pytest.raises(Killed):
                Sender(database.parent).step()
    Sender(database.parent).step()
    assert list(versions(database)) == [1]
    assert alias(database) == [("candidate", 1)]
    assert of_run(database, "first") == "lamp/1"


def test_a_version_gets_the_commit_of_its_experiment(database: Path, export: Export) -> None:
    export("first", "1")
    ((key,),) = rows(database, "select value from tags where key = 'finetune.key'")
    Store(f"sqlite:///{database}", "finetune", database.parent).note_commit(key, "e" * 40)
    assert versions(database)[1]["dvc.commit"] == "e" * 40


def test_what_was_made_by_hand_is_no_version(database: Path, export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    export("first", "1")
    monkeypatch.delenv("DVC_STAGE")
    with tracking.run("report", settings()):
        tracking.version("lamp", Path("models/export"))
    Sender(database.parent).step()
    assert list(versions(database)) == [1]
