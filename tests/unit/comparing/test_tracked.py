"""What MLflow knows of runs, asked of a real database; and that nothing waits for a MLflow that is not there."""

import socket
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from finetune.comparing.repository import Repository
from finetune.comparing.tracked import Tracked
from finetune.comparing.versions import find
from finetune.config.schema import Tracking
from finetune.errors import FinetuneError
from finetune.tracking import hashes
from tests.unit.comparing.conftest import MODULE, Runs
from tests.unit.comparing.test_differences import HERE

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # of SQLAlchemy 2.1, about MLflow's own tables
SETTINGS = Tracking(enabled=True, uri=None, experiment="finetune", model=None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database in it: making one takes 4 s."""
    folder = tmp_path_factory.mktemp("mlflow")
    MlflowClient(f"sqlite:///{folder}/mlflow.db").create_experiment("finetune", artifact_location=(folder / "artifacts").as_uri())
    return folder


@pytest.fixture
def client(made: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{made}/mlflow.db")


def track(client: MlflowClient, name: str, tags: dict[str, str], parent: str | None = None) -> str:
    experiment = client.get_experiment_by_name("finetune")
    assert experiment is not None
    kind = {"finetune.kind": "stage", "mlflow.parentRunId": parent} if parent else {"finetune.kind": "pipeline"}
    return str(client.create_run(experiment.experiment_id, run_name=name, tags=kind | tags).info.run_id)


def test_a_run_is_found_by_name_by_id_and_by_one_of_its_stages(
    made: Path, client: MlflowClient, runs: Runs, repository: Repository
) -> None:
    commit = runs.experiment("beta", 0.8)
    track(client, "it's beta", {"dvc.commit": "0" * 40})
    run = track(client, "it's beta", {"dvc.commit": commit})
    stage = track(client, "train", {}, parent=run)
    tracked = Tracked(SETTINGS, made)
    for name in ("it's beta", run, stage):
        version = find(name, repository, tracked)
        assert (version.title, version.commit) == (f"MLflow's run it's beta, commit {commit[:7]}", commit)
    assert tracked.run("train") is None  # a stage by its name would be any of many
    assert tracked.run("f" * 32) is None
    assert tracked.run("""both ' and " in it""") is None


def test_a_run_that_became_no_commit_is_what_it_left(made: Path, client: MlflowClient, runs: Runs, repository: Repository) -> None:
    head = runs.git("rev-parse", "HEAD")
    run = track(client, "repro-1", {"mlflow.source.git.commit": head, "git.dirty": "true"})
    with pytest.raises(FinetuneError, match=r"repro-1 left no dvc\.lock and no params\.yaml"):
        find(run, repository, Tracked(SETTINGS, made))
    runs.write(0.8, r=8, code="changed = True\n", cached=False)
    for file in ("dvc.lock", "params.yaml"):
        client.log_artifact(run, file)
    client.log_metric(run, "evaluate.seen.exact_match", 0.8)
    client.log_metric(run, "seconds", 3)
    version = find(run, repository, Tracked(SETTINGS, made))
    assert (version.commit, version.params["train.r"]) == (head, 8)
    assert not [note for note in version.notes if MODULE in note]  # the commit never had this code
    assert version.measured["evaluate"] == {"evaluate.seen.exact_match": 0.8}  # from MLflow, as the cache has it not


def test_a_clean_run_is_the_commit_it_started_from(made: Path, client: MlflowClient, runs: Runs, repository: Repository) -> None:
    head = runs.git("rev-parse", "HEAD")
    run = track(client, "clean", {"mlflow.source.git.commit": head, "git.dirty": "false"})
    assert find(run, repository, Tracked(SETTINGS, made)).title == f"MLflow's run clean, commit {head[:7]}"


def test_environments_come_from_the_runs_that_made_what_is_locked(made: Path, client: MlflowClient, runs: Runs) -> None:
    lock = (runs.root / "dvc.lock").read_text()
    entries = hashes.entries(lock)
    track(client, "train", {"dvc.entry": entries["train"], **HERE.as_tags()}, parent="above")
    track(client, "export", {"dvc.entry": entries["export"]}, parent="above")  # from before environments were noted
    question = Tracked(SETTINGS, made).ask([lock, ""])
    assert question is not None
    assert question.answer() == ([{"train": HERE}, {}], None)


def test_nothing_is_created_where_nothing_was_tracked(tmp_path: Path) -> None:
    tracked = Tracked(SETTINGS, tmp_path)
    assert (tracked.ask([]), tracked.run("any"), tracked.trouble) == (None, None, "nothing was tracked here yet")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_away_is_told_and_not_waited_for(tmp_path: Path, runs: Runs, repository: Repository) -> None:
    with socket.socket() as taken:  # bound and not listening: whoever connects is refused
        taken.bind(("127.0.0.1", 0))
        away = Tracking(enabled=True, uri=f"http://127.0.0.1:{taken.getsockname()[1]}", experiment="finetune", model=None)
        question = Tracked(away, tmp_path).ask([(runs.root / "dvc.lock").read_text()])
        assert question is not None
        made, trouble = question.answer()
        assert made == [{}]
        assert str(trouble).startswith(f"MLflow at {away.uri} can't be asked: ")
        with pytest.raises(FinetuneError, match=f"run in MLflow: MLflow at {away.uri} can't be asked: "):
            find("nobody", repository, Tracked(away, tmp_path))


def test_options_of_a_database_are_no_part_of_its_path(made: Path, client: MlflowClient) -> None:
    run = track(client, "with options", {})
    found = Tracked(Tracking(enabled=True, uri=f"sqlite:///{made}/mlflow.db?timeout=30", experiment="finetune", model=None), made).run(run)
    assert found is not None


def test_an_experiment_that_mlflow_does_not_have_is_told(made: Path, runs: Runs) -> None:
    question = Tracked(Tracking(enabled=True, uri=None, experiment="other", model=None), made).ask([(runs.root / "dvc.lock").read_text()])
    assert question is not None
    assert question.answer() == ([{}], "MLflow has no experiment other")


def test_an_answer_that_does_not_come_is_not_waited_for(made: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.comparing.tracked.LIMIT", 0.01)
    question = Tracked(SETTINGS, made).ask([(runs.root / "dvc.lock").read_text()])
    assert question is not None
    assert question.answer() == ([{}], "MLflow gave no answer within 0.01 s")
