"""A proof of a pipeline of two short stages: what the clone is given, what it must not see, what is refused, and every verdict."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune import instructions
from finetune.config.schema import Config
from finetune.errors import ConfigError, FinetuneError, SetupError
from finetune.instructions import AVX2, AVX512
from finetune.proving import prove, recorded, telling
from finetune.proving.certificate import Certificate, Made
from finetune.proving.remaking import Moment
from finetune.proving.repository import Repository
from finetune.proving.subject import find
from tests.conftest import Compose

pytestmark = pytest.mark.slow
PIPELINE = """\
stages:
  numbers:
    cmd: python3 make.py numbers
    deps: [make.py, raw]
    params: [amount]
    outs: [out/numbers.json]
  train:
    cmd: python3 make.py train
    deps: [make.py, out/numbers.json]
    params: [seed]
    outs: [out/model]
    metrics: [reports/train.json]
"""
# Writes what the pipeline says, and into $SEEN what only a leak from the user's folder or settings could show.
PROGRAM = """\
import json, os, random, sys
from pathlib import Path
with open(os.environ["SEEN"], "a") as seen:
    names = [name for name in os.environ if name.startswith(("DVC_EXP", "MLFLOW")) or name == "PYTHONHASHSEED"]
    names += os.environ.get("PYTHONPATH", "").split(os.pathsep)
    off = "enabled: false" in Path("params.yaml").read_text()
    seen.write(json.dumps([sys.argv[1], os.getcwd(), os.environ["DVC_ROOT"], names, off]) + "\\n")
drawn = random.Random(7)
if sys.argv[1] == "numbers":
    Path("out").mkdir(exist_ok=True)
    Path("out/numbers.json").write_text(json.dumps(sorted(file.read_text() for file in Path("raw").iterdir() if file.suffix == ".txt")))
else:
    Path("out/model").mkdir(parents=True)
    Path("reports").mkdir(exist_ok=True)
    Path("out/model/weights.json").write_text(json.dumps({"w": [drawn.random() for _ in range(5)]}))
    Path("reports/train.json").write_text(json.dumps({"steps": [{"step": n, "loss": drawn.random()} for n in (1, 2, 3)]}))
"""
HOLDER = "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, 2); print(flush=True); time.sleep(600)"
Proving = Callable[..., Certificate]


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", *words] if words[0] == "dvc" else words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in which the two stages ran, and whose dvc.lock is committed; the working directory is there."""
    folder = tmp_path / "project"
    (folder / "raw").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    for name, text in {
        "dvc.yaml": PIPELINE,
        "make.py": PROGRAM,
        "params.yaml": "amount: 2\nseed: 1\ntracking:\n  enabled: true\n",
        "raw/a.txt": "a",
        ".gitignore": "/out/\n/reports/\n/.cache/\n/.tracking/\n*.private.txt\n",
        "requirements.lock": "torch==0\n",
    }.items():
        (folder / name).write_text(text)
    run("git", "init", "-q", "-b", "main")
    run("dvc", "init", "-q")
    make()
    return folder


def make() -> None:
    """Run the stages, and commit what they left."""
    run("dvc", "repro", "-q")
    commit()


def commit() -> None:
    run("git", "add", "-A")
    run("git", "commit", "-q", "-m", "made")


@pytest.fixture
def cfg(compose: Compose) -> Config:
    """Settings with tracking off."""
    return compose()


@pytest.fixture
def proving(cfg: Config) -> Proving:
    """`proving("train", revision="main")` → the certificate, with `prove` at its defaults and tracking off."""

    def call(*chosen: str, revision: str | None = None, dirty: bool = False, offline: bool = False) -> Certificate:
        repository = Repository(Path.cwd())
        return prove(repository, find(repository, revision, dirty), chosen, lambda moment, made: None, cfg, offline)

    return call


def seen() -> list[list[Any]]:
    """What the stages saw, one list a run of a stage."""
    return [json.loads(line) for line in Path(os.environ["SEEN"]).read_text().splitlines()]


def test_the_same_is_certified_and_the_folder_stays_as_it_was(project: Path, proving: Proving) -> None:
    before = run("git", "status", "--porcelain")
    certificate = proving()
    assert certificate.same
    assert [stage.name for stage in certificate.stages] == ["numbers", "train"]
    assert certificate.losses["train"].same
    assert json.loads(telling.CERTIFICATE.read_text())["verdict"] == "same"
    assert telling.PAGE.read_text().startswith("# The same bytes again")
    assert run("git", "status", "--porcelain") == before
    assert [path.name for path in (project / ".cache/prove").iterdir()] == ["lock"]


def test_a_fresh_clone_proves_what_it_never_made(project: Path, proving: Proving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("git", "clone", "-q", str(project), str(tmp_path / "fresh"))
    monkeypatch.chdir(tmp_path / "fresh")
    certificate = proving()
    assert certificate.same
    assert certificate.losses["train"].same


def test_nothing_but_the_commit_reaches_the_clone(project: Path, proving: Proving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "global").mkdir()
    (tmp_path / "global/config").write_text(f"[cache]\n    dir = {project / '.dvc/cache'}\n")
    (project / ".dvc/config").write_text(f"[cache]\n    dir = {project / '.dvc/cache'}\n")
    commit()
    for name, value in {
        "DVC_GLOBAL_CONFIG_DIR": str(tmp_path / "global"),
        "DVC_ROOT": str(project),
        "DVC_EXP_NAME": "another",
        "MLFLOW_RUN_ID": "another",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": f"{project}{os.pathsep}{tmp_path / 'site'}",
    }.items():
        monkeypatch.setenv(name, value)
    ran = len(seen())
    assert proving().same
    made = seen()[ran:]
    assert [stage for stage, *_ in made] == ["numbers", "train"]  # both ran: no cache of results was in reach
    for _, folder, root, names, off in made:
        assert folder == root
        assert Path(folder).parents[2] == project / ".cache"
        assert (names, off) == ([str(tmp_path / "site")], True)


def test_the_environment_that_is_certified_is_that_of_the_stages(project: Path, proving: Proving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.setattr(instructions, "cpu_flags", lambda: AVX2 | AVX512)
    assert proving("train").fingerprint.instructions == "AVX512"
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "instructions: avx2\n")
    commit()
    assert proving("train").fingerprint.instructions == "AVX2"
    assert "ATEN_CPU_CAPABILITY" not in os.environ


def test_an_out_that_was_recorded_otherwise_is_found_with_its_step_and_value(project: Path, proving: Proving) -> None:
    weights = json.loads((project / "out/model/weights.json").read_text())
    weights["w"][2] += 0.5
    (project / "out/model/weights.json").write_text(json.dumps(weights))
    report = json.loads((project / "reports/train.json").read_text())
    report["steps"][1]["loss"] += 0.25
    (project / "reports/train.json").write_text(json.dumps(report))
    run("dvc", "commit", "-q", "-f", "train")
    commit()
    certificate = proving()
    assert not certificate.same
    (parting,) = certificate.parting
    assert (parting.name, parting.parting) == ("train", ["out/model", "reports/train.json"])
    assert [(found.file, found.at) for found in parting.differences] == [
        ("out/model/weights.json", "w[2]"),
        ("reports/train.json", "steps[1].loss"),
    ]
    assert [found.largest for found in parting.differences] == pytest.approx([0.5, 0.25])
    assert certificate.losses["train"].parted_at == 2
    assert certificate.losses["train"].largest_loss == pytest.approx(0.25)
    assert certificate.again == "as the second"
    assert "made a third time here, train came out as the second time: it is exact on this machine" in "\n".join(certificate.causes)
    page = telling.PAGE.read_text()
    assert "parts at step 2 of 3: loss" in page
    assert "the first stage that parts is `train`" in page


def test_a_stage_that_comes_out_otherwise_every_time_is_told(project: Path, cfg: Config) -> None:
    (project / "make.py").write_text(PROGRAM.replace("random.Random(7)", "random.Random()"))
    make()
    heard: list[Moment] = []
    repository = Repository(project)

    def hear(moment: Moment, made: Made | None) -> None:
        heard.append(moment)

    certificate = prove(repository, find(repository), [], hear, cfg)
    assert [stage.name for stage in certificate.parting] == ["train"]
    assert certificate.again == "unlike both"
    assert "it is not exact on this very machine" in "\n".join(certificate.causes)
    assert [moment.stage for moment in heard if moment.seconds is not None] == ["numbers", "train", "train"]


def test_chosen_stages_are_given_what_was_recorded_from_the_cache(project: Path, proving: Proving) -> None:
    shutil.rmtree(project / "out")
    ran = len(seen())
    certificate = proving("train")
    assert certificate.same
    assert not certificate.whole
    assert [stage for stage, *_ in seen()[ran:]] == ["train"]


def test_an_input_that_is_nowhere_is_refused_unless_a_remote_has_it(project: Path, proving: Proving, tmp_path: Path) -> None:
    run("dvc", "remote", "add", "-q", "-d", "backup", str(tmp_path / "backup"))
    commit()
    run("dvc", "push", "-q")
    shutil.rmtree(project / "out")
    shutil.rmtree(project / ".dvc/cache")
    with pytest.raises(SetupError, match=r"out/numbers\.json: found none with the hash"):
        proving("train", offline=True)
    assert proving("train").same


def test_another_commits_inputs_are_fetched_as_that_commit_records_them(project: Path, proving: Proving) -> None:
    (project / ".dvc/config").write_text("[core]\n    remote = backup\n['remote \"backup\"']\n    url = ../../backup\n")
    for text in ("big", "bigger"):
        (project / "raw/big.txt").write_text(text)
        run("dvc", "add", "-q", "raw/big.txt")
        make()
        run("dvc", "push", "-q")
    shutil.rmtree(project / ".dvc/cache")
    shutil.rmtree(project / "out")
    with pytest.raises(SetupError, match=r"raw/big\.txt: found none with the hash"):
        proving(revision="HEAD~1", offline=True)
    assert proving("train", revision="HEAD~1").same
    assert proving(revision="HEAD~1").same


def test_first_bytes_that_are_gone_leave_the_verdict_and_no_details(project: Path, proving: Proving) -> None:
    lock = (project / "dvc.lock").read_text()
    md5 = recorded.stages(lock)["train"].outs["out/model"]
    (project / "dvc.lock").write_text(lock.replace(md5, "0" * 32 + ".dir"))
    commit()
    certificate = proving()
    (parting,) = certificate.parting
    assert (parting.unread, parting.differences) == (("out/model",), ())
    assert "`out/model`: the first run's bytes can't be had" in telling.PAGE.read_text()


def test_raw_data_that_git_does_not_have_is_brought_and_named(project: Path, proving: Proving) -> None:
    (project / "raw/big.txt").write_text("big")
    (project / "raw/me.private.txt").write_text("private")
    run("dvc", "add", "-q", "raw/big.txt")
    make()
    certificate = proving()
    assert certificate.same
    assert list(certificate.brought) == ["raw/me.private.txt"]
    (project / "raw/big.txt").unlink()
    assert proving().same  # from DVC's cache
    (project / "raw/me.private.txt").write_text("another")
    with pytest.raises(SetupError, match="numbers: raw is modified"):
        proving()


def test_a_dvc_lock_of_other_inputs_is_refused_before_anything_runs(project: Path, proving: Proving) -> None:
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("seed: 1", "seed: 2"))
    (project / "make.py").write_text(PROGRAM + "\n")
    commit()
    ran = len(seen())
    with pytest.raises(SetupError) as refused:
        proving()
    assert refused.value.problems == [
        "numbers: make.py is modified",
        "train: make.py is modified",
        "train: seed in params.yaml is modified",
    ]
    assert len(seen()) == ran


def test_a_dvc_lock_that_contradicts_itself_is_refused_before_anything_runs(project: Path, proving: Proving) -> None:
    (project / "raw/b.txt").write_text("b")
    run("dvc", "repro", "-q", "numbers")  # as where `dvc repro` was stopped before train
    commit()
    ran = len(seen())
    for chosen in ((), ("train",)):
        with pytest.raises(SetupError, match=r"train: found out/numbers\.json with the hash \w+ among what it read, expected \w+, as"):
            proving(*chosen)
    assert len(seen()) == ran
    assert proving("numbers").same


def test_the_verdict_stands_where_a_third_run_fails(project: Path, proving: Proving) -> None:
    once = "import pathlib; again = pathlib.Path('again'); sys.argv[1] == 'train' and again.exists() and sys.exit('full'); again.touch()\n"
    (project / "make.py").write_text(PROGRAM.replace("random.Random(7)", "random.Random()") + once)
    (project / ".gitignore").write_text((project / ".gitignore").read_text() + "/again\n")
    run("dvc", "repro", "-q", "numbers")
    (project / "again").unlink()
    make()
    certificate = proving("train")
    assert [stage.name for stage in certificate.parting] == ["train"]
    assert certificate.again is None
    assert telling.CERTIFICATE.is_file()


def test_a_repository_among_the_raw_data_is_brought_file_by_file(project: Path, proving: Proving) -> None:
    inner = project / "raw/hub.private.txt"
    inner.mkdir()
    run("git", "init", "-q", str(inner))
    (inner / "a.json").write_text("{}")
    (project / "make.py").write_text(PROGRAM.replace('if file.suffix == ".txt"', "if file.is_file()"))
    make()
    certificate = proving()
    assert certificate.same
    assert list(certificate.brought) == ["raw/hub.private.txt/a.json"]


def test_a_stage_that_was_never_run_is_refused_unless_others_are_chosen(project: Path, proving: Proving) -> None:
    (project / "dvc.yaml").write_text(PIPELINE + "  never:\n    cmd: python3 make.py never\n    deps: [make.py]\n    outs: [out/never]\n")
    commit()
    with pytest.raises(SetupError, match="never: "):
        proving()
    assert proving("train").same


def test_a_stage_that_was_never_run_and_reads_but_what_others_make_is_not_passed_over(project: Path, proving: Proving) -> None:
    (project / "dvc.yaml").write_text(
        PIPELINE + "  size:\n    cmd: wc -c out/numbers.json > size\n    deps: [out/numbers.json]\n    outs: [size]\n"
    )
    commit()
    with pytest.raises(SetupError, match=r"size: found in dvc\.yaml, expected in dvc\.lock too"):
        proving()
    assert not proving("train").whole


def test_what_dvc_lock_keeps_of_a_stage_that_is_no_more_is_not_compared_with_itself(project: Path, proving: Proving) -> None:
    entry = f"  old:\n    cmd: python3 old.py\n    outs:\n    - path: out/old\n      hash: md5\n      md5: {'d' * 32}\n      size: 1\n"
    (project / "dvc.lock").write_text((project / "dvc.lock").read_text() + entry)
    commit()
    for chosen in ([], ["old"]):
        with pytest.raises(SetupError, match=r"old: found in dvc\.lock, expected in dvc\.yaml too"):
            proving(*chosen)
    assert [stage.name for stage in proving("numbers", "train").stages] == ["numbers", "train"]


def test_an_out_that_the_commit_has_and_its_stage_would_keep_is_made_again(project: Path, proving: Proving) -> None:
    kept(project, "        persist: true\n")
    assert [stage.name for stage in proving().parting] == ["kept"]


def test_a_frozen_stage_whose_out_the_commit_has_is_not_taken_for_made(project: Path, proving: Proving) -> None:
    kept(project, "    frozen: true\n")
    with pytest.raises(FinetuneError, match=r"failed in the clone; its last lines:\n(.*\n)*.*kept"):
        proving()


def kept(project: Path, how: str) -> None:
    """Commit a stage with its out, which git has."""
    stage = "  kept:\n    cmd: test -f kept || date +%N > kept\n    deps: [make.py]\n    outs:\n    - kept:\n        cache: false\n"
    (project / "dvc.yaml").write_text(PIPELINE + stage + how)
    (project / "kept").write_text("once\n")
    run("dvc", "commit", "-q", "--force", "kept")
    commit()


def test_stages_that_write_nothing_are_no_proof(project: Path, proving: Proving) -> None:
    (project / "dvc.yaml").write_text(PIPELINE + "  check:\n    cmd: 'true'\n    deps: [make.py]\n")
    make()
    assert proving().same
    with pytest.raises(ConfigError, match=r"check: found no outs of it in dvc\.lock"):
        proving("check")


def test_uncommitted_changes_are_taken_along_and_certified(project: Path, proving: Proving) -> None:
    (project / "make.py").write_text(PROGRAM + "\n")
    (project / "raw/b.txt").write_text("b")
    run("dvc", "repro", "-q")
    with pytest.raises(SetupError, match=r"raw/b\.txt: is new"):
        proving()
    certificate = proving(dirty=True)
    assert certificate.same
    told = json.loads(telling.CERTIFICATE.read_text())
    assert told["uncommitted"]["new_files"] == ["raw/b.txt"]
    assert told["uncommitted"]["patch_sha256"] == certificate.subject.patch_sha256


def test_a_commit_of_before_is_proved_by_its_own_record(project: Path, proving: Proving) -> None:
    (project / "make.py").write_text(PROGRAM.replace("Random(7)", "Random(8)"))
    (project / "raw/b.txt").write_text("b")
    make()
    certificate = proving(revision="HEAD~1")
    assert certificate.same
    assert certificate.stages[1].first.outs != proving().stages[1].first.outs


def test_a_stage_that_fails_is_told_by_its_last_lines(project: Path, proving: Proving) -> None:
    (project / "make.py").write_text(PROGRAM + "if '.cache' in os.getcwd() and sys.argv[1] == 'train': sys.exit('no more room')\n")
    make()
    with pytest.raises(FinetuneError, match=r"stage train failed in the clone; its last lines:\n(.*\n)*.*no more room"):
        proving()
    assert [path.name for path in (project / ".cache/prove").iterdir()] == ["lock"]


def test_what_a_killed_proof_left_is_removed_and_what_another_one_holds_is_not(project: Path, proving: Proving) -> None:
    for name in ("killed", "empty", "held"):
        (project / ".cache/prove" / name).mkdir(parents=True)
    for name in ("killed", "held"):
        (project / ".cache/prove" / name / "held").touch()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(project / ".cache/prove/held/held")],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        assert proving("train").same
        assert sorted(path.name for path in (project / ".cache/prove").iterdir()) == ["held", "lock"]
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
