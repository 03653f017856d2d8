"""`finetune reproduce`: what was made of a commit, a patch, an experiment or a lost commit is found, made again by DVC, and compared.

The pipeline is a small one of its own, with the real DVC and git: a stage that copies a raw file and a setting, and a report.
"""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import psutil
import pytest

from finetune import reproducing
from finetune.clone import sweep
from finetune.errors import FinetuneError, SetupError
from finetune.fingerprint import Fingerprint
from finetune.lineage.records import Records, Run
from finetune.reproducing import recorded, source
from finetune.reproducing.recorded import Recorded
from finetune.tracking import hashes

pytestmark = pytest.mark.slow  # DVC starts in a second, and runs three stages in three more
DVC_YAML = """
stages:
  check:
    cmd: python3 check.py
    deps: [check.py, conf]
  train:
    cmd: python3 train.py
    deps: [train.py, data/raw]
    params: [r]
    outs: [models/train]
  report:
    cmd: python3 -c "open('report.md', 'w').write('x')"
    deps: [models/train]
    outs:
      - report.md: {cache: false}
"""
TRAIN = """
import pathlib, re
r = re.search(r"r: (.*)", pathlib.Path("params.yaml").read_text())[1]
pathlib.Path("models/train").mkdir(parents=True)
pathlib.Path("models/train/weights").write_text(r + pathlib.Path("data/raw/records.jsonl").read_text())
"""
CHECK = "import pathlib; assert pathlib.Path('conf/of').read_text() in pathlib.Path('params.yaml').read_text()\n"


def git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()


def dvc(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *words], check=True, capture_output=True)


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose one commit was run, with raw data that git ignores; the working directory is there."""
    root = tmp_path / "repository"
    root.mkdir()
    monkeypatch.chdir(root)
    files = {
        "dvc.yaml": DVC_YAML,
        "train.py": TRAIN,
        "check.py": CHECK,
        "conf/of": "conf: a\n",
        "params.yaml": "r: 8\nconf: a\ntracking:\n  enabled: true\n",
        ".gitignore": "/models\n/report.md\n/data/raw/*.jsonl\n/.cache\n",
        "data/raw/README.md": "what is here",
        "data/raw/records.jsonl": "records",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git("init", "-q", "-b", "main")
    dvc("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "one")
    dvc("repro", "-q")
    return root


def run(**changed: object) -> Recorded:
    """What MLflow would have of the run that lies in the folder."""
    diff = subprocess.run(["git", "diff", "--binary", "HEAD"], capture_output=True, check=True).stdout
    differs = tuple(name for name in git("diff", "--name-only", "HEAD").split() if name != "dvc.lock")
    found = Recorded(
        name="first",
        run="f" * 32,
        commit=git("rev-parse", "HEAD"),
        experiment=None,
        experiment_commit=None,
        dirty=bool(diff),
        differs=differs,
        untracked=(),
        patch=diff or None,
        params=Path("params.yaml").read_bytes(),
        lock=hashes.read(),
        raw={"data/raw/records.jsonl": hashes.md5(Path("data/raw/records.jsonl"))},
        environment=Fingerprint.of_this_machine(),
    )
    return replace(found, **changed)  # type: ignore[arg-type]


def change(text: str) -> None:
    """Change the code and the setting, and run that, uncommitted."""
    Path("train.py").write_text(Path("train.py").read_text().replace("write_text(r", f"write_text({text!r} + r"))
    Path("params.yaml").write_text("r: 16\nconf: b\ntracking:\n  enabled: true\n")
    Path("conf/of").write_text("conf: b\n")
    dvc("repro", "-q")


def back() -> None:
    """Put the folder back to its commit."""
    git("checkout", "-q", "--", ".")


def made(recorded: Recorded, keep: bool = False) -> tuple[reproducing.Reproduction, str]:
    told: list[str] = []
    found = reproducing.reproduce(recorded, Path.cwd(), told.append, keep)
    return found, "\n".join(told)


def clones(root: Path) -> list[Path]:
    """Those that lie there still."""
    return [path for path in (root / reproducing.PLACE).iterdir() if path.is_dir()]


def test_a_clean_run_comes_out_the_same_and_leaves_nothing(pipeline: Path) -> None:
    before = git("status", "--porcelain")
    found, told = made(run(dirty=False, patch=None))
    assert found.same
    assert [(out.stage, out.path) for out in found.outs] == [("train", "models/train")]
    assert "from which nothing differed" in told
    assert "Running stage 'train'" in told, "no cache is believed"
    assert clones(pipeline) == []
    assert git("status", "--porcelain") == before
    assert reproducing.sentences(found) == ["first came out the same: 1 outs have the recorded bytes"]


def test_an_entry_of_a_stage_that_is_no_more_is_left_out_and_said(pipeline: Path) -> None:
    md5 = "d" * 32
    Path("dvc.lock").write_text(hashes.read() + f"  old:\n    cmd: x\n    outs:\n    - path: old\n      hash: md5\n      md5: {md5}\n")
    git("add", "-A")
    git("commit", "-qm", "with what a stage left")
    found, told = made(run(dirty=False, patch=None))
    assert [out.stage for out in found.outs] == ["train"]
    assert "old is in the recorded dvc.lock and not in this dvc.yaml" in told
    assert reproducing.sentences(found) == [
        "first came out the same: 1 outs have the recorded bytes; not compared, because no stage makes it: old"
    ]
    assert found.as_dict()["left_over"] == ["old"]
    with pytest.raises(SetupError, match=r"old: found no such stage in the dvc\.yaml of \w{12}"):
        made(run(commit="9" * 40, patch=None))  # of a commit with the same code nobody knows that


def test_what_lies_in_the_commit_is_not_compared_with_itself(pipeline: Path) -> None:
    text = DVC_YAML.replace("[models/train]\n  report", "\n    - models/train: {cache: false, persist: true}\n    frozen: true\n  report")
    assert text != DVC_YAML
    Path("dvc.yaml").write_text(text)
    git("add", "-A", "-f", "models")
    git("commit", "-qam", "a frozen stage and its out")
    with pytest.raises(FinetuneError, match=r"the pipeline failed in the clone(.|\n)*models/train"):
        made(run(dirty=False, patch=None))


def test_a_recorded_stage_that_the_report_does_not_need_is_not_called_made(pipeline: Path) -> None:
    Path("dvc.yaml").write_text(DVC_YAML + "  aside:\n    cmd: echo x > aside\n    deps: [train.py]\n    outs: [aside]\n")
    git("commit", "-qam", "a stage aside")
    dvc("repro", "-q")
    git("add", "-A")
    git("commit", "-qm", "made")
    assert made(run(dirty=False, patch=None))[0].same
    with pytest.raises(SetupError, match="aside: DVC did not run it"):
        made(run(commit="9" * 40, patch=None))


@pytest.mark.parametrize(
    "lock", [b"", b"stages: {train: null}", b"\xff", b"stages: {check: {cmd: x}, report: {cmd: x, outs: [{path: r, md5: a}]}}"]
)
def test_a_record_of_nothing_is_no_record(lock: bytes) -> None:
    class Kept:
        def artifact(self, _run: Run, path: str) -> bytes | None:
            return lock if path == "dvc.lock" else None

    of = Run("f" * 32, "first", "FINISHED", 0, "", {}, {})
    with pytest.raises(SetupError, match=r"run first \(f+\): found no outs in its artifact dvc\.lock"):
        recorded.recorded(of, cast(Records, Kept()))


def test_models_of_other_settings_or_data_than_the_runs_are_refused_before_anything_is_made() -> None:
    tags = {"dvc.outdated": "params.yaml:train, finetune/data.py", "data.changed": "while the pipeline ran"}
    with pytest.raises(SetupError) as refused:
        recorded.recorded(Run("f" * 32, "first", "FINISHED", 0, "", tags, {}), cast(Records, None))
    outdated, changed = refused.value.problems
    assert outdated.startswith(f"run first ({'f' * 32}): found other params.yaml:train, finetune/data.py in its dvc.lock")
    assert "found other files in data/raw than prepare read" in changed
    assert "`dvc repro` makes what is committed" in refused.value.remedy


def test_a_dirty_run_comes_from_its_patch(pipeline: Path) -> None:
    change("new ")
    recorded = run()
    assert recorded.differs == ("conf/of", "params.yaml", "train.py")
    back()
    found, told = made(recorded)
    assert found.same
    assert "with the recorded patch" in told


def test_an_experiment_comes_from_the_commit_that_dvc_made_of_it(pipeline: Path) -> None:
    change("tried ")
    git("commit", "-qam", "experiment")
    saved = git("rev-parse", "HEAD")
    recorded = run(experiment="puffy-daks", experiment_commit=saved, commit=git("rev-parse", "HEAD~1"), dirty=True, patch=None)
    git("update-ref", "refs/exps/aa/bb/puffy-daks", saved)
    git("reset", "-q", "--hard", "HEAD~1")
    found, told = made(recorded)
    assert found.same
    assert f"experiment puffy-daks, which DVC committed as {saved[:12]}" in told


def test_an_experiment_with_new_code_comes_from_its_patch_which_has_it(pipeline: Path) -> None:
    saved = git("rev-parse", "HEAD")
    recorded = run(experiment="new", experiment_commit=saved, dirty=True, patch=b"diff", untracked=("train.py",))
    assert "DVC's commit" in source.found(recorded, pipeline).how
    assert source.found(recorded, pipeline).patch == b"diff"
    raw = replace(recorded, untracked=("data/raw/records.jsonl",))
    assert source.found(raw, pipeline).patch is None


def test_a_lost_experiment_comes_from_its_baseline_and_its_patch(pipeline: Path) -> None:
    change("tried ")
    recorded = run(experiment="puffy-daks", experiment_commit="9" * 40)
    back()
    found, told = made(recorded)
    assert found.same
    assert "DVC's commit 999999999999 of experiment puffy-daks is gone; commit" in told


def test_a_lost_patch_is_no_loss_where_only_settings_differed(pipeline: Path) -> None:
    Path("params.yaml").write_text("r: 16\nconf: a\ntracking:\n  enabled: true\n")
    dvc("repro", "-q")
    recorded = run(patch=None)
    back()
    found, told = made(recorded)
    assert "with the recorded params.yaml; the patch is gone" in told
    assert found.same


def test_a_lost_commit_is_found_again_by_the_hashes_of_its_code(pipeline: Path) -> None:
    change("lost ")
    recorded = run(commit="9" * 40, patch=None)
    git("commit", "-qam", "amended since")
    Path("params.yaml").write_text("r: 8\nconf: a\n")
    git("commit", "-qam", "and gone on")
    found, told = made(recorded)
    assert found.same
    assert re.search(r"commit 999999999999 is gone; commit \w{12} has the same 2 modules", told)
    assert "Running stage 'check'" not in told


def test_what_is_lost_altogether_is_said_with_who_may_have_it(pipeline: Path) -> None:
    change("lost ")
    recorded = run(commit="9" * 40, patch=None)
    back()
    with pytest.raises(SetupError) as lost:
        made(recorded)
    assert lost.value.problems[0] == "commit: 999999999999: found no such commit in this repository"
    assert re.search(r"code: found none with the recorded modules; \w{12} is nearest, and differs in train.py", str(lost.value))
    assert "`git push` there and `git fetch` here" in str(lost.value)
    with pytest.raises(SetupError, match="`dvc exp push <remote> puffy-daks` there and `dvc exp pull` here"):
        source.found(replace(recorded, experiment="puffy-daks", experiment_commit="8" * 40), pipeline)
    with pytest.raises(SetupError, match=r"found it without the patch\n  params\.yaml: found none"):
        source.found(replace(recorded, commit=git("rev-parse", "HEAD"), params=None), pipeline)


def test_without_a_recorded_module_no_commit_has_the_same_code(pipeline: Path) -> None:
    bare = "stages: {train: {cmd: x, outs: [{path: models/train, md5: a}]}}"
    with pytest.raises(SetupError, match=r"code: found no module in the run's dvc\.lock"):
        source.found(run(commit="9" * 40, patch=None, lock=bare), pipeline)


def test_another_result_is_named_by_stage_and_hash(pipeline: Path) -> None:
    recorded = run(dirty=False, patch=None)
    md5 = recorded.outs["train"]["models/train"]
    found, _ = made(replace(recorded, lock=recorded.lock.replace(md5, "0" * 32 + ".dir"), environment=None))
    assert not found.same
    first, last = reproducing.sentences(found)
    assert first == f"train: models/train: recorded {'0' * 32}.dir, again {md5}"
    assert last == "first came out otherwise: 1 of 1 outs differ, first in train (made in another environment, see above)"
    assert json.loads(json.dumps(found.as_dict()))["verdict"] == "differs"


def test_data_that_git_has_not_comes_from_the_folder_or_the_cache_by_its_hash(pipeline: Path) -> None:
    recorded = run(dirty=False, patch=None)
    assert "records.jsonl comes from repository/data/raw/records.jsonl: git does not have it" in made(recorded)[1]
    dvc("add", "-q", "data/raw/records.jsonl")
    Path("data/raw/records.jsonl").unlink()
    Path("data/raw/records.jsonl").write_text("other records")
    found, told = made(recorded)
    assert "records.jsonl comes from DVC's cache: git does not have it" in told
    assert found.same
    (digest,) = recorded.raw.values()
    cached = Path(".dvc/cache/files/md5", digest[:2], digest[2:])
    cached.chmod(0o644)
    cached.write_text("spoiled")
    with pytest.raises(SetupError, match=f"found other bytes here and none of md5 {digest} in DVC's cache"):
        made(recorded)


def test_another_environment_is_said_first(pipeline: Path) -> None:
    here = Fingerprint.of_this_machine()
    recorded = run(dirty=False, patch=None, environment=replace(here, python="3.9.1"))
    found, told = made(recorded)
    assert told.startswith(f"another environment than recorded: python: 3.9.1 → {here.python}\n")
    assert found.environment == [f"python: 3.9.1 → {here.python}"]


def test_pinned_instructions_are_no_other_environment(pipeline: Path) -> None:
    here = Fingerprint.of_this_machine()
    elsewhere = replace(here, instructions="SSE")
    free = run(environment=elsewhere)
    assert reproducing.differences(free, pipeline) == [f"instructions: SSE → {here.instructions}"]
    assert reproducing.differences(replace(free, params=b"instructions: compatible\n"), pipeline) == []


def test_a_clone_that_is_kept_has_what_was_made_and_no_later_run_removes_it(pipeline: Path) -> None:
    recorded = run(dirty=False, patch=None)
    found, _ = made(recorded, keep=True)
    assert found.folder is not None
    assert (Path(found.folder) / "models/train/weights").read_text() == "8records"
    assert found.folder in reproducing.sentences(found)[-1]
    kept = Path(found.folder).parent
    kept.with_name("killed").mkdir()
    sweep(pipeline / reproducing.PLACE)
    assert clones(pipeline) == [kept]


def test_interrupted_it_leaves_neither_clone_nor_process(pipeline: Path) -> None:
    Path("train.py").write_text("import time\nprint('waiting', flush=True)\ntime.sleep(300)")

    def interrupt(line: str) -> None:
        if line == "waiting":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproducing.reproduce(run(), pipeline, interrupt)
    assert clones(pipeline) == []
    folders = [process.info["cwd"] for process in psutil.process_iter(["cwd"])]  # None: another user's, or gone
    assert [folder for folder in folders if folder and Path(folder).is_relative_to(pipeline / reproducing.PLACE)] == []


def test_a_stage_that_fails_is_told_with_its_last_lines(pipeline: Path) -> None:
    change("x")
    Path("train.py").write_text("raise SystemExit('no memory')")
    with pytest.raises(FinetuneError, match=r"the pipeline failed in the clone; its last lines:(.|\n)*no memory"):
        made(run())
    assert clones(pipeline) == []
