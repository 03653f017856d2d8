"""What a clone lacks of the stages' inputs, brought from this user's folder or DVC's cache, and compared with what dvc.lock records."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from finetune import locks, paths
from finetune.clone import Clone
from finetune.errors import FinetuneError, SetupError
from finetune.locks import Stage
from finetune.proving.recorded import Kept
from finetune.proving.repository import Repository
from finetune.tracking import hashes

Fetch = Callable[[Sequence[str]], None]
# `dvc fetch` knows the outs of the folder or of all commits, not those of one; the remotes are the folder's, as they are now
FETCH = """
import sys
from dvc.repo import Repo
commit, *outs = sys.argv[1:]
with Repo() as repo:
    remotes = {name: dict(repo.config[name]) for name in ("core", "remote")}
    repo.fetch(outs, revs=[commit], workspace=False, config=remotes)
"""
BY_TOOLS = ("__pycache__", "*.pyc", ".*.part", ".ipynb_checkpoints", ".DS_Store")  # .dvcignore keeps them out of every hash


def fetch(root: Path, commit: str | None, outs: Sequence[str]) -> None:
    """Have DVC bring outs, as a commit records them (None: as the folder does), from a remote into this user's cache, if there is one."""
    words = ["-m", "dvc", "fetch"] if commit is None else ["-c", FETCH, commit]
    subprocess.run([sys.executable, *words, *outs], cwd=root, capture_output=True, check=False)


def bring(
    made: Clone, repository: Repository, stages: Mapping[str, Stage], chosen: Sequence[str], kept: Kept, fetch: Fetch | None
) -> dict[str, str]:
    """Bring all that the chosen stages read and neither git has nor one of them makes; return file → md5 of what no other clone would have.

    fetch: asks a remote for outs; None: no network.

    Raises:
        SetupError: something of it can't be had any more.
    """
    _tracked_by_dvc(made, kept, fetch)
    brought = _ignored_by_git(made, repository, locks.sources(stages))
    brought |= _base_model(made, repository.root)
    _made_before(made, stages, chosen, kept, fetch)
    return brought


def parted(stages: Mapping[str, Stage], chosen: Sequence[str]) -> list[str]:
    """One line for each out that a chosen stage read otherwise than dvc.lock records it: one of the two is of another run."""
    made: dict[str, list[str]] = {}
    for stage in stages.values():
        for path, md5 in stage.outs.items():
            made.setdefault(path, []).append(md5)
    return [
        f"{name}: found {path} with the hash {md5} among what it read, expected {' or '.join(made[path])}, as it was made last"
        for name in chosen
        for path, md5 in stages[name].deps.items()
        if path in made and md5 not in made[path]
    ]


def stale(made: Clone, chosen: Sequence[str] | None) -> list[str]:
    """One line for each input of these stages (None: of all in dvc.yaml) that is not the one that dvc.lock records.

    What stages make for each other is left aside.

    Raises:
        FinetuneError: DVC can't read the clone.
    """
    said = made.run(sys.executable, "-m", "dvc", "status", "--json")
    if said.returncode:
        raise FinetuneError(f"DVC can't read the clone: {said.stderr.strip()}")
    status: dict[str, list[Any]] = json.loads(said.stdout or "{}")
    made_by_stages = [out for stage in locks.stages(hashes.read(made.folder / paths.LOCK)).values() for out in stage.outs]
    lines = []
    for name, changes in status.items():
        for change in changes if chosen is None or name in chosen else []:
            if not isinstance(change, dict):
                lines.append(f"{name}: {change}")  # "changed command"
                continue
            for path, what in change.get("changed deps", {}).items():
                if isinstance(what, dict):  # of params.yaml
                    lines += [f"{name}: {key} in params.yaml is {how}" for key, how in what.items()]
                elif not any(locks.overlap(path, out) for out in made_by_stages):
                    lines.append(f"{name}: {path} is {what}")
    return lines


def _tracked_by_dvc(made: Clone, kept: Kept, fetch: Fetch | None) -> None:
    """The files of `dvc add`, by the hashes in the commit."""
    wanted: dict[str, str] = {}
    for name in made.git("ls-files", "-z", "--", "*.dvc").decode().split("\0"):
        if name:
            entry = yaml.safe_load((made.folder / name).read_text(encoding="utf-8"))
            folder = Path(name).parent / entry.get("wdir", ".")
            wanted |= {(folder / out["path"]).as_posix(): str(out["md5"]) for out in entry.get("outs", []) if "md5" in out}
    _bring_recorded(made, wanted, kept, fetch, "what `dvc add` keeps")


def _made_before(made: Clone, stages: Mapping[str, Stage], chosen: Sequence[str], kept: Kept, fetch: Fetch | None) -> None:
    """The outs of stages that are not made again, where those that are read them."""
    read = {dep for name in chosen for dep in stages[name].deps}
    outs = {path: md5 for name, stage in stages.items() if name not in chosen for path, md5 in stage.outs.items()}
    wanted = {path: md5 for path, md5 in outs.items() if any(locks.overlap(path, dep) for dep in read)}
    _bring_recorded(made, wanted, kept, fetch, "an earlier stage's out")


def _bring_recorded(made: Clone, wanted: Mapping[str, str], kept: Kept, fetch: Fetch | None, what: str) -> None:
    found = {path: kept.files(path, md5) for path, md5 in wanted.items()}
    missing = [path for path, files in found.items() if files is None]
    if missing and fetch is not None:
        fetch(missing)
        found |= {path: kept.files(path, wanted[path]) for path in missing}
    lines = [f"{path}: found none with the hash {wanted[path]}, expected {what}" for path, files in found.items() if files is None]
    if lines:
        remedy = "bring it from where it was made (`dvc push` there; here a proof without --offline), or prove the stages before it too"
        where = "in the folder nor in DVC's cache" if fetch is None else "in the folder, DVC's cache nor a remote"
        raise SetupError(f"inputs can't be had, neither {where}:", lines, remedy)
    for path, files in found.items():
        for name, source in (files or {}).items():
            made.bring(f"{path}/{name}" if name else path, source)


def _ignored_by_git(made: Clone, repository: Repository, read: Iterable[str]) -> dict[str, str]:
    """Files in folders that stages read that this user has, and git ignores: they are in DVC's hash of the folder."""
    brought = {}
    for name in repository.ignored(read):
        file = Path(name)
        if (made.folder / file).exists() or any(file.match(pattern) for pattern in BY_TOOLS) or "__pycache__" in file.parts:
            continue
        if any((repository.root / f"{above}.dvc").is_file() for above in (file, *file.parents)):
            continue  # of `dvc add` in the folder as it is now; the commit's own were brought
        made.bring(name, repository.root / name)
        brought[name] = hashes.md5(repository.root / name)
    return brought


def _base_model(made: Clone, root: Path) -> dict[str, str]:
    """A base model that lies in this user's folder and in no commit, shown to the clone; the stages compare its pinned sha256."""
    model = made.params().get("model", {})
    if model.get("source") != "local" or Path(model["path"]).is_absolute():
        return {}
    target, source = made.folder / model["path"], root / model["path"]
    if target.exists() or not source.exists():
        return {}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())
    return {f"{model['path']}/{file['relpath']}": file["md5"] for file in hashes.listing(source)}
