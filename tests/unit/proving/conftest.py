"""A dvc.lock, a repository that holds it, and what a proof of it may find."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.fingerprint import Fingerprint
from finetune.proving import recorded
from finetune.proving.certificate import Certificate, Made, Origin
from finetune.proving.difference import Difference
from finetune.proving.losses import Losses
from finetune.proving.repository import Repository
from finetune.proving.subject import Subject

LOCKED = """\
schema: '2.0'
stages:
  dpo:
    cmd: python3 -m stages.dpo
    deps:
    - {path: data/reference, hash: md5, md5: 33.dir}
    - {path: models/train, hash: md5, md5: 22.dir}
    - {path: stages/dpo.py, hash: md5, md5: '01'}
    params:
      params.yaml:
        seed: 17
        dpo:
          beta: 1.0
    outs:
    - {path: models/dpo, hash: md5, md5: 44.dir}
    - {path: reports/dpo.json, hash: md5, md5: '45'}
  train:
    cmd: python3 -m stages.train
    deps:
    - {path: data/raw, hash: md5, md5: '11'}
    - {path: stages/train.py, hash: md5, md5: '02'}
    outs:
    - {path: models/train, hash: md5, md5: 22.dir}
    - {path: reports/train.json, hash: md5, md5: '23'}
  reference:
    cmd: python3 -m stages.reference
    deps:
    - {path: models/train/adapter.safetensors, hash: md5, md5: '21'}
    outs:
    - {path: data/reference, hash: md5, md5: 33.dir}
"""
Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """`git("add", "-A")` in the folder `project`, a repository with one commit."""
    folder = tmp_path / "project"
    (folder / "stages").mkdir(parents=True)
    (folder / "data/raw").mkdir(parents=True)

    def run(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    (folder / "dvc.lock").write_text(LOCKED)
    (folder / "params.yaml").write_text("seed: 17\n")
    (folder / "stages/train.py").write_text("pass\n")
    (folder / ".gitignore").write_text("/reports/\n*.log\n")
    run("init", "-q", "-b", "main")
    run("add", "-A")
    run("commit", "-q", "-m", "first")
    return run


@pytest.fixture
def project(git: Git, tmp_path: Path) -> Repository:
    """The repository that `git` works in."""
    return Repository(tmp_path / "project")


COMMIT = "c0" * 20
MACHINE = Fingerprint(
    cpu="a processor",
    instructions="AVX2",
    gpu=None,
    driver=None,
    libc="glibc 2.36",
    python="3.11.7",
    libraries={"numpy": "2.4.6", "torch": "2.13.0"},
    lock={"name": "requirements.lock", "sha256": "ab" * 32},
)


def certificate(parted: bool = False) -> Certificate:
    """A proof made on the machine of the first run: everything came out as recorded, or train did not, and with it dpo."""
    stages = recorded.stages(LOCKED)
    same = Certificate(
        subject=Subject(COMMIT, LOCKED),
        lock=MACHINE.lock,
        whole=True,
        stages=[Made(stage, stage) for stage in stages.values()],
        losses={"train": Losses(64, 64)},
        brought={},
        packages=[],
        fingerprint=MACHINE,
        origins={name: Origin(f"run of {name}", "first", MACHINE.id, ()) for name in stages},
        seconds={"train": 61.04, "reference": 5.0, "dpo": 30.0},
    )
    if not parted:
        return same
    largest = "tensor layers.0.weight"
    weights = Difference("models/train/a.safetensors", f"{largest} at [0, 1]", "0.5", "0.25", 2, 9, "tensors", 0.25, largest)
    train, dpo = stages["train"], stages["dpo"]
    changed = [
        Made(train, replace(train, outs={"models/train": "99.dir", "reports/train.json": "24"}), (weights,)),
        Made(stages["reference"], stages["reference"]),
        Made(dpo, replace(dpo, outs={"models/dpo": "88.dir"}), unread=("models/dpo",)),
    ]
    losses = Losses(64, 64, parted_at=7, number="loss", first="0.5", second="0.25", largest_loss=0.5)
    return replace(same, stages=changed, losses={"train": losses}, again="unlike both", causes=("one reason", "another"))


@pytest.fixture
def same() -> Certificate:
    """A proof in which everything came out as recorded."""
    return certificate()


@pytest.fixture
def parted() -> Certificate:
    """A proof in which train came out otherwise, and with it dpo."""
    return certificate(parted=True)
