"""A repository with runs that never were: commits and experiments with the dvc.lock, and in DVC's cache the scores, of three stages."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.comparing.repository import Repository
from finetune.comparing.tracked import Tracked

MODULE = "finetune/training/order.py"


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@dataclass
class Runs:
    """Writes runs into a repository."""

    root: Path

    def write(
        self,
        score: float,
        *,
        seed: int = 17,
        r: int = 16,
        merged: bool = True,
        code: str = "",
        raw: str = "records",
        packages: str = "torch==2.13.0\n",
        cached: bool = True,
    ) -> None:
        """Leave a run in the working tree, as `dvc repro` does: prepare → train → evaluate, and export."""
        params = {"seed": seed, "train": {"r": r, "learning_rate": 2e-5}, "export": {"merged": merged}, "conf_sha": f"{r}{merged}"}
        (self.root / "params.yaml").write_text(yaml.safe_dump(params))
        (self.root / MODULE).parent.mkdir(parents=True, exist_ok=True)
        (self.root / MODULE).write_text(code)
        (self.root / "requirements.lock").write_text(packages)
        given = {MODULE: md5(code.encode()), "requirements.lock": md5(packages.encode())}
        prepared, model = md5(raw.encode()), md5(f"{raw} {seed} {r} {code}".encode())
        reports = {
            "prepare": {"kept": len(raw), "rejected": {}},
            "train": {"loss": [score], "validation_loss": 1 - score},
            "evaluate": {"seen": {"exact_match": score, "exact_match_low": score - 0.1, "exact_match_high": score + 0.1, "records": 150}},
        }
        locked = {
            "prepare": self.entry({"data/raw": md5(raw.encode())} | given, {}, {"data/prepared": prepared}),
            "train": self.entry({"data/prepared": prepared} | given, {"seed": seed, "train": params["train"]}, {"models/train": model}),
            "evaluate": self.entry({"models/train": model} | given, {"seed": seed}, {}),
            "export": self.entry(
                {"models/train": model} | given, {"export": params["export"]}, {"models/export": md5(f"{model} {merged}".encode())}
            ),
        }
        for stage, report in reports.items():
            content = json.dumps(report).encode()
            locked[stage]["outs"].append({"path": f"reports/{stage}.json", "hash": "md5", "md5": md5(content)})
            if cached:
                self.cache(content)
        (self.root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": locked}, sort_keys=False))

    @staticmethod
    def entry(deps: dict[str, str], params: dict[str, Any], outs: dict[str, str]) -> dict[str, Any]:
        files = {
            kind: [{"path": path, "hash": "md5", "md5": one} for path, one in named.items()]
            for kind, named in (("deps", deps), ("outs", outs))
        }
        return {"cmd": "python3 -m stages", **files, "params": {"params.yaml": params}}

    def train_alone(self) -> None:
        """As `dvc repro train` leaves it after a change: another models/train than evaluate read."""
        file = self.root / "dvc.lock"
        locked = yaml.safe_load(file.read_text())
        next(out for out in locked["stages"]["train"]["outs"] if out["path"] == "models/train")["md5"] = md5(b"another")
        file.write_text(yaml.safe_dump(locked, sort_keys=False))

    def alone(self, stage: str, code: str) -> None:
        """As `dvc repro -s` of one stage leaves it after a change of code: the others read what was there before."""
        (self.root / MODULE).write_text(code)
        file = self.root / "dvc.lock"
        locked = yaml.safe_load(file.read_text())
        next(dep for dep in locked["stages"][stage]["deps"] if dep["path"] == MODULE)["md5"] = md5(code.encode())
        file.write_text(yaml.safe_dump(locked, sort_keys=False))

    def cache(self, content: bytes) -> None:
        file = self.root / ".dvc/cache/files/md5" / md5(content)[:2] / md5(content)[2:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def commit(self, score: float, **given: Any) -> str:
        """A run that was committed."""
        self.write(score, **given)
        self.git("add", "-A", ":!.dvc/cache")
        self.git("commit", "-q", "--allow-empty", "-m", "a run")
        return self.git("rev-parse", "HEAD")

    def experiment(self, name: str, score: float, **given: Any) -> str:
        """A run that DVC made an experiment of; the branch and the working tree are as before."""
        before = self.git("rev-parse", "HEAD")
        commit = self.commit(score, **given)
        self.git("update-ref", f"refs/exps/{before[:2]}/{before[2:]}/{name}", commit)
        self.git("reset", "-q", "--hard", before)
        return commit

    def git(self, *words: str) -> str:
        return subprocess.run(["git", *words], cwd=self.root, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """A repository with one run, `main`: seed 17, r 16, score 0.70. The working directory is there."""
    monkeypatch.chdir(tmp_path)
    found = Runs(tmp_path)
    found.git("init", "-q", "-b", "main")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").touch()
    found.commit(0.70)
    return found


@pytest.fixture
def repository(runs: Runs) -> Iterator[Repository]:
    with Repository(runs.root) as opened:
        yield opened


@pytest.fixture
def untracked(tmp_path: Path) -> Tracked:
    """No MLflow."""
    return Tracked(None, tmp_path)
