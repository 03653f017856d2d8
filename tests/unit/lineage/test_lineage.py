"""`finetune lineage`: from a version, a run or bytes to all that they come from, and from a raw file to all its models."""

import dataclasses
import json
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from unittest.mock import ANY

import pytest
from mlflow.tracking import MlflowClient
from rich.console import Console

from finetune import tracking
from finetune.errors import SetupError
from finetune.lineage import ancestry, cache, offspring, records, tree
from finetune.lineage.ancestry import Ancestry
from finetune.lineage.database import Database, Unknown
from finetune.lineage.server import Server, downloaded
from finetune.lineage.subject import Bytes, named
from finetune.tracking import hashes
from finetune.tracking.send import Sender
from tests.conftest import ROOT
from tests.processes import rows

from .conftest import MLFLOW, WEIGHTS, Pipeline, cfg, git, md5, sha256

pytestmark = MLFLOW


def opened(database: Path) -> records.Records:
    return records.opened(f"sqlite:///{database}")


def traced(database: Path, words: str) -> Ancestry:
    known = opened(database)
    return ancestry.of(named(words, known, database.parent), words, known, database.parent)


def shown(found: object) -> str:
    console = Console(width=300)
    with console.capture() as captured:
        console.print(found)
    return captured.get()


def test_a_version_leads_to_all_that_it_comes_from(three: Path) -> None:
    found = traced(three, "lamp/2")
    assert (found.version, found.aliases, found.gates, found.run_name, found.status) == ("lamp/2", (), "passed", "other", "FINISHED")
    assert found.commit is not None
    assert (found.commit.sha, found.commit.here, found.commit.kept_by) == (git("rev-parse", "HEAD"), True, ("main",))
    assert found.differs == ["params.yaml", "conf/config.yaml"]
    assert found.data == {"data/raw/records.jsonl": {"md5": md5("y"), "sha256": sha256("y"), "bytes": 1}}
    assert found.base == {"path": "LlamaConfig", "sha256": "b" * 64}
    assert (found.settings_sha256, found.settings) == (sha256("params"), {"seed": "17", "train.r": "8"})
    train, export = found.stages
    assert (train.stage, train.pipeline, export.stage, export.pipeline) == ("train", "other", "export", "other")
    assert train.reads == {"data/raw": md5("y") + ".dir"}, "code is the commit's to tell"
    assert train.writes == {"models/train": md5("trainb") + ".dir"}


def test_an_alias_a_run_its_id_and_a_stages_run_lead_to_the_same(three: Path) -> None:
    ((other,),) = rows(three, "select run_uuid from runs where name = 'other'")
    by_version = dataclasses.asdict(traced(three, "lamp/2"))
    for words in ("other", other):
        assert dataclasses.asdict(traced(three, words)) == {**by_version, "asked": words}
    assert traced(three, "lamp@candidate").version == "lamp/1"
    ((stage,),) = rows(three, f"select value from tags where run_uuid = '{other}' and key = 'made_by.train'")
    assert traced(three, stage).run == traced(three, stage[:12]).run == other


def test_what_it_was_not_made_from_and_who_judged_it_are_told(three: Path, pipeline: Pipeline) -> None:
    pipeline("gated", weights="a", records="x", **{"dvc.outdated": "params.yaml:train, stages/train.py"})
    found = traced(three, "gated")
    assert found.outdated == ["params.yaml:train", "stages/train.py"]
    assert "made with other params.yaml:train, stages/train.py than commit and settings tell" in shown(tree.ancestry(found))
    version = traced(three, "lamp/1")
    assert (version.run_name, version.outdated, version.gates_run) == ("again", [], found.run)
    assert version.gates_differs == found.outdated
    assert f"gates passed, by run {found.run} with changes in params.yaml:train, stages/train.py" in shown(tree.ancestry(version))
    assert "gates passed, by" not in shown(tree.ancestry(found))


def test_a_reused_stage_has_its_maker_and_the_same_bytes_all_their_runs(three: Path) -> None:
    found = traced(three, "again")
    assert found.version == "lamp/1"
    assert [(made.stage, made.pipeline) for made in found.stages] == [("train", "other"), ("export", "again")]
    assert [told.split()[0] for told in found.same_bytes] == ["first"]


def test_another_run_of_the_same_name_is_not_taken_for_this_one(
    pipeline: Pipeline, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline("beta", weights="a", records="x")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "1" * 40)
    pipeline("beta", weights="b", records="x", stages=("export",))
    newest = opened(database).named("beta")[0]
    by = {made.stage: made.pipeline_run == newest.id for made in traced(database, newest.id).stages}
    assert by == {"train": False, "export": True}
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("update runs set lifecycle_stage = 'deleted' where name = 'beta' and run_uuid != ?", [newest.id])
    (train, _) = traced(database, newest.id).stages
    assert (train.pipeline, train.run is None) == (None, False)
    assert "by a run that was deleted since" in shown(tree.ancestry(traced(database, newest.id)))


def test_names_that_a_key_of_mlflows_can_not_hold_are_told_as_they_are(pipeline: Pipeline, database: Path) -> None:
    name, facts = "data/raw/records (1), new.jsonl", {"md5": md5("z"), "sha256": sha256("z"), "bytes": 1}
    tags = {f"data.{name}": json.dumps({**facts, "path": name}), f"md5.{md5('z')}": f"{name}, data/raw/copy.jsonl"}
    pipeline("odd", weights="a", records="x", **tags, **{"data.version": "v3", "data.note": "[1]"})
    found = named(md5("z"), opened(database), database.parent)
    assert isinstance(found, Bytes)
    assert (found.known_as, found.read) == (name, True)
    assert traced(database, "odd").data == {name: facts, "data/raw/records.jsonl": ANY}


def test_a_run_of_ours_comes_before_a_newer_one_of_that_name(three: Path) -> None:
    client = MlflowClient(f"sqlite:///{three}")
    client.create_run(client.create_experiment("another project"), run_name="first")
    assert traced(three, "first").version == "lamp/1"


def test_a_version_that_was_renamed_deleted_or_copied_counts_once_and_under_its_name(three: Path) -> None:
    client = MlflowClient(f"sqlite:///{three}")
    client.rename_registered_model("lamp", "light")
    client.create_registered_model("copy")
    client.create_model_version("copy", "s3://there", tags=client.get_model_version("light", "1").tags)
    known = opened(three)

    def models(kind: str) -> list[tuple[str, bool]]:
        subject = named(md5(kind), known, three.parent)
        assert isinstance(subject, Bytes)
        return [(model.version, model.deleted) for model in offspring.of(subject, known).models]

    assert models("x") == [("copy/1", False), ("light/1", False)]
    client.delete_model_version("light", "1")
    assert models("x") == [("copy/1", False)]


def test_weights_found_anywhere_lead_to_their_version(three: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.safetensors").write_text(WEIGHTS.format("b"))
    assert traced(three, "elsewhere.safetensors").version == "lamp/2"
    assert traced(three, sha256(WEIGHTS.format("a"))).version == "lamp/1"
    assert traced(three, f"{md5('trainb')}.dir").version == "lamp/2"


def test_a_folder_is_known_by_what_is_in_it(three: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "models/train").mkdir()
    (tmp_path / "models/train/weights").write_text("w")
    digest = hashes.folder(tmp_path / "models/train")
    (tmp_path / "models/train/notes").mkdir()
    (tmp_path / "models/train/notes/mine").write_text("what DVC doesn't see")
    (tmp_path / ".dvcignore").write_text("notes/\n")
    pipeline("folder", weights="c", records="z", **{f"md5.{digest}": "models/train"})
    assert traced(three, "models/train").run_name == "folder"
    listing = tmp_path / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    listing.parent.mkdir(parents=True)
    listing.write_text(f'[{{"md5": "{md5("w")}", "relpath": "weights"}}]')
    assert traced(three, "models/train/weights").run_name == "folder"


def test_a_raw_file_leads_to_all_models_that_ate_it(three: Path, tmp_path: Path) -> None:
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/records.jsonl").write_text("x")
    known = opened(three)
    for words in ("data/raw/records.jsonl", md5("x"), sha256("x")):
        subject = named(words, known, tmp_path)
        assert isinstance(subject, Bytes)
        found = offspring.of(subject, known)
        assert (found.known_as, found.read) == ("data/raw/records.jsonl", True)
        assert [(model.version, model.runs, model.aliases) for model in found.models] == [("lamp/1", ["again", "first"], ("candidate",))]
    assert "was read for 1 model version" in shown(tree.offspring(found))


def test_what_is_not_known_is_said_with_what_is_near(three: Path, tmp_path: Path) -> None:
    known = opened(three)
    for words, told in (
        ("lamb/1", "models there are: lamp"),
        ("lamp/9", "lamp has versions 1 to 2 and the aliases @candidate"),
        ("nobody", "found 'nobody', expected NAME/NUMBER or NAME@ALIAS"),
        ("n" * 300, "expected NAME/NUMBER or NAME@ALIAS"),
    ):
        with pytest.raises(SetupError, match=told):
            named(words, known, tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/records.jsonl").write_text("mended")
    with pytest.raises(SetupError, match=r"3 read other bytes from a file of that name, the newest of them again \("):
        named("data/raw/records.jsonl", known, tmp_path)


def test_a_pipeline_without_a_report_tells_what_it_ran(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "broken")
    with pytest.raises(ValueError, match="none"), tracking.run("train", cfg()):
        raise ValueError("none")
    Sender(three.parent).step()
    found = traced(three, "broken")
    assert (found.version, found.commit, found.data) == (None, None, {})
    assert [(made.stage, made.pipeline) for made in found.stages] == [("train", "broken")]
    assert "broken: came to no model version" in shown(tree.ancestry(found))


def test_a_version_outlives_its_run(three: Path) -> None:
    with closing(sqlite3.connect(three)) as connection, connection:
        connection.execute("update runs set lifecycle_stage = 'deleted' where name = 'other'")
    found = traced(three, "lamp/2")
    assert (found.run_name, found.status, found.gates) == ("other", None, "passed")
    assert found.data["data/raw/records.jsonl"]["md5"] == md5("y")
    assert "deleted from MLflow" in shown(tree.ancestry(found))


def test_models_whose_runs_were_deleted_are_still_those_of_a_raw_file(three: Path, pipeline: Pipeline) -> None:
    pipeline("late", weights="c", records="y")
    with closing(sqlite3.connect(three)) as connection, connection:
        connection.execute("update runs set lifecycle_stage = 'deleted' where name in ('other', 'again')")
    known = opened(three)

    def models(words: str) -> list[tuple[str, list[str], tuple[str, ...], bool]]:
        subject = named(words, known, three.parent)
        assert isinstance(subject, Bytes)
        found = offspring.of(subject, known)
        assert (found.known_as, found.read, found.without_model) == ("data/raw/records.jsonl", True, [])
        return [(model.version, list(model.runs), tuple(model.aliases), model.deleted) for model in found.models]

    for kind in (md5, sha256):
        assert models(kind("y")) == [("lamp/3", ["late"], ("candidate",), False), ("lamp/2", ["other"], (), True)]
        assert models(kind("x")) == [("lamp/1", ["first"], (), False)], "of two runs one is left, and tells"
    with closing(sqlite3.connect(three)) as connection, connection:
        connection.execute("update runs set lifecycle_stage = 'deleted'")
    assert models(md5("y")) == [("lamp/3", ["late"], ("candidate",), True), ("lamp/2", ["other"], (), True)]
    told = shown(tree.offspring(offspring.of(named(md5("y"), known, three.parent), known)))  # type: ignore[arg-type]
    assert "was read for 2 model versions" in told
    assert f"run other (deleted from MLflow)  commit {git('rev-parse', 'HEAD')[:12]}" in told
    assert traced(three, f"{md5('exportb')}.dir").version == "lamp/2", "what a version is leads to it, too"


def test_a_version_that_was_deleted_is_no_model_of_a_raw_file(three: Path) -> None:
    with closing(sqlite3.connect(three)) as connection, connection:
        connection.execute("update runs set lifecycle_stage = 'deleted'")
        connection.execute("update model_versions set current_stage = 'Deleted_Internal'")
    with pytest.raises(SetupError, match="MLflow knows no such model, run or file"):
        named(md5("y"), opened(three), three.parent)


def test_the_tree_shows_it_all(three: Path) -> None:
    told = shown(tree.ancestry(traced(three, "lamp/2")))
    commit, data = git("rev-parse", "HEAD")[:12], md5("y")[:12]
    for text in (
        f"commit {commit} as it was (on main)",
        "with changes in params.yaml, conf/config.yaml",
        f"md5 {data}",
        "sha256 bbbbbbbbbbbb",
    ):
        assert text in told
    assert f"train  by this run ({traced(three, 'lamp/2').stages[0].run[:12]}" in told  # type: ignore[index]
    assert f"→ models/train {md5('trainb')[:12]}" in told


def test_the_database_read_directly_and_mlflows_client_give_the_same_answers(three: Path) -> None:
    direct, client = Database.at(three), Server(f"sqlite:///{three}")
    ids = [run for (run,) in rows(three, "select run_uuid from runs")]
    assert len(ids) == 3 + 5 + 3
    runs = direct.runs([*ids, "nobody"])
    assert runs == client.runs([*ids, "nobody"])
    assert direct.models() == client.models() == ["lamp"]
    assert direct.numbers("lamp") == client.numbers("lamp") == [2, 1]
    assert direct.numbers("nobody") == client.numbers("nobody") == []
    assert direct.aliases("lamp") == client.aliases("lamp") == {"candidate": 1}
    assert direct.aliases("nobody") == client.aliases("nobody") == {}
    for model, number in (("lamp", 1), ("lamp", 2), ("lamp", 3), ("nobody", 1)):
        assert direct.version(model, number) == client.version(model, number)
    for digest in (md5("x"), sha256("y"), f"{md5('exportb')}.dir"):
        assert len(direct.versions(digest)) == 1
        assert direct.versions(digest) == client.versions(digest)
    assert direct.versions(md5("w")) == client.versions(md5("w")) == []
    (other,) = direct.named("other")
    assert [other] == client.named("other")
    assert direct.beginning(other.id[:12]) == client.beginning(other.id[:12]) == [other.id]
    assert direct.beginning("") == client.beginning("") == sorted(ids)
    assert direct.children(other.id) == client.children(other.id)
    assert len(direct.children(other.id)) == 3
    for key, value in (("md5." + md5("x"), None), ("model.version", "lamp/1"), ("nobody", None)):
        assert direct.tagged(key, value) == client.tagged(key, value)
    assert len(direct.tagged("md5." + md5("x"))) == 2
    assert direct.artifact(other, "dvc.lock") == client.artifact(other, "dvc.lock") != b""
    assert direct.artifact(other, "nobody") is client.artifact(other, "nobody") is None
    for words in ("lamp/1", "other", sha256(WEIGHTS.format("a"))):
        root = three.parent
        assert ancestry.of(named(words, direct, root), words, direct, root) == ancestry.of(named(words, client, root), words, client, root)


def test_options_of_a_database_are_no_part_of_its_path(three: Path) -> None:
    assert isinstance(named("lamp/1", records.opened(f"sqlite:///{three}?timeout=30"), three.parent), records.Version)


def test_a_database_of_another_mlflow_is_left_to_mlflow(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(three)) as connection, connection:
        connection.execute("alter table runs rename column lifecycle_stage to stage_of_life")
    with pytest.raises(Unknown):
        Database.at(three)
    monkeypatch.setattr("finetune.lineage.server.MlflowClient", lambda uri: uri)
    assert isinstance(opened(three), Server)


def test_a_server_that_is_away_is_said_at_once_by_whatever_is_asked_of_it() -> None:
    with socket.socket() as taken:  # bound and not listening: whoever connects is refused
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        away, of = Server(uri), records.Run("f" * 32, "first", "FINISHED", 0, "mlflow-artifacts:/0/f/artifacts", {}, {})
        asked: list[Callable[[], object]] = [
            lambda: away.runs(["first"]),
            lambda: away.named("first"),
            away.models,
            lambda: away.numbers("lamp"),
            lambda: away.aliases("lamp"),
            lambda: away.version("lamp", 1),
            lambda: away.artifact(of, "dvc.lock"),
        ]
        for ask in asked:
            with pytest.raises(SetupError, match=r"MLflow does not answer:\n  \S+: asked for \S+: (.|\n)*see that it runs"):
                ask()


def test_an_address_that_mlflow_does_not_know_is_said() -> None:
    with pytest.raises(SetupError, match="nowhere://: asked for MlflowClient: "):
        Server("nowhere://")


def test_a_name_that_mlflow_can_not_be_asked_for_is_said(three: Path) -> None:
    with pytest.raises(SetupError, match="found both kinds of quotes in it's \"it\"\ngive the run's id"):
        named('it\'s "it"', Server(f"sqlite:///{three}"), three.parent)


def test_an_artifact_is_none_only_where_the_store_has_none(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text("{}")
    assert downloaded(tmp_path.as_uri(), "dvc.lock") == b"{}"
    assert downloaded(tmp_path.as_uri(), "uncommitted.diff") is None


def test_a_database_that_a_writer_holds_is_waited_for_and_then_said(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.lineage.database.PATIENCE", 0.1)
    known = opened(three)
    writer = sqlite3.connect(three, isolation_level=None)
    writer.execute("begin exclusive")
    with pytest.raises(SetupError, match="database is locked"):
        named("lamp/1", known, three.parent)
    writer.close()
    assert isinstance(named("lamp/1", known, three.parent), records.Version)


def test_a_damaged_database_is_said_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"\xff" * 5000)
    with pytest.raises(SetupError, match=r"mlflow\.db: file is not a database\nput a copy of it back"):
        opened(tmp_path / "mlflow.db")


def test_a_number_beyond_all_is_no_version(three: Path) -> None:
    with pytest.raises(SetupError, match="lamp has versions 1 to 2"):
        named("lamp/99999999999999999999", opened(three), three.parent)


@pytest.mark.parametrize("listing", [b"{", b"\xff", b"3", b'[{"md5": "a"}]'])
def test_a_damaged_listing_in_dvcs_cache_is_said_with_its_place(tmp_path: Path, listing: bytes) -> None:
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab/cd.dir").write_bytes(listing)
    with pytest.raises(SetupError, match=r"ab/cd\.dir: found no list of files"):
        cache.missing(tmp_path, {"models/export": "abcd.dir"})


def test_without_a_database_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="run the pipeline first"):
        records.opened(f"sqlite:///{tmp_path}/none.db")


def test_it_takes_no_import_of_mlflow(three: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from finetune.lineage import records, subject, ancestry, offspring, tree; "
        f"known = records.opened('sqlite:///{three}'); ancestry.of(subject.named('lamp/1', known, Path('.')), 'x', known, Path('.')); "
        "print([name for name in ('mlflow', 'torch', 'numpy', 'pandas') if name in sys.modules])"
    )
    asked = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "[]"
