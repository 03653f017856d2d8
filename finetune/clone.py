"""A clean clone to make things again in: the commit's files, no results, no cache, none of this user's settings of DVC.

It lies in .cache of the repository, on the same disk, and is removed at the end; what a killed process left is removed at the next start.
A lock, which the dvc at work in it inherits, tells the two apart.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from finetune import paths
from finetune.errors import SetupError

HELD = "held"  # file beside a clone, locked as long as somebody works in it
KEPT = ".kept"  # file beside a clone that was to be kept
PATIENCE = 15.0  # seconds that an interrupted stage has to end by itself
# Of the surrounding process: another run's names, and what would make two runs alike that are not.
DROPPED = ("DVC_", "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "HYDRA_", "MLFLOW_", "PYTHONHASHSEED", "RANK", "WORLD_SIZE", "LOCAL_RANK")
# no hooks; and a commit that no branch leads to can be fetched by its name, which only the second protocol allows
GIT = ("core.hooksPath=/dev/null", "advice.detachedHead=false", "protocol.version=2", "protocol.file.allow=always")
# wins over a cache that .dvc/config names, which may be shared and full of the results of before
SETTINGS = "[cache]\n    dir = cache\n    type = hardlink,copy\n[core]\n    autostage = false\n"
# has the kernel end a program with this one, and becomes that program
MORTAL = "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGTERM); os.execvp(sys.argv[1], sys.argv[1:])"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass
class Clone:
    """The folder, and the environment that programs in it get."""

    folder: Path
    environment: Mapping[str, str]
    held: int
    """The open lock file."""

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a short command in the clone."""
        return subprocess.run(
            words, cwd=self.folder, env=dict(self.environment), capture_output=True, text=True, errors="replace", check=False
        )

    def follow(self, command: Sequence[str], hear: Callable[[str], None]) -> int:
        """Run a long command, have `hear` get each line that it prints, and return its exit status.

        Ctrl-C ends it in order, and it ends with this process, however that dies: a stage looks after the death of its dvc.
        """
        with subprocess.Popen(
            [sys.executable, "-c", MORTAL, *command],
            cwd=self.folder,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others in order
            pass_fds=(self.held,),
        ) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    hear(line)
                return process.wait()
            except BaseException:
                _end(process)
                raise

    def bring(self, path: str, source: Path) -> None:
        """Copy a file to its place in the clone."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).unlink(missing_ok=True)  # it may be a link
        shutil.copyfile(source, self.folder / path)

    def stages(self) -> list[str]:
        """Names of the stages in dvc.yaml. Raises SetupError: DVC can't read it."""
        said = self.run(sys.executable, "-m", "dvc", "stage", "list", "--name-only", "--fail")
        if said.returncode:
            raise SetupError("DVC can't read the pipeline in the clone:", said.stderr.strip().splitlines(), "mend dvc.yaml, and commit it")
        return said.stdout.split()

    def forget(self, outs: Iterable[str]) -> None:
        """Remove dvc.lock and these outs: what is there afterwards, with its hash in dvc.lock, was made in the clone.

        dvc.lock keeps entries of stages that dvc.yaml has no more, and a frozen or persisted out may come from the commit: all of them
        would be compared with themselves.

        Raises:
            SetupError: an out lies outside of the clone, where it is somebody's.
        """
        places = {out: self.folder / out for out in outs}
        within = self.folder.resolve()
        outside = [out for out, place in places.items() if not place.parent.resolve().is_relative_to(within)]
        if outside:
            lines = [f"{out}: found a path outside of the repository, expected one in it" for out in outside]
            raise SetupError("these outs can't be made in a clone, they would be written in their own place:", lines, "mend dvc.yaml")
        (self.folder / paths.LOCK).unlink(missing_ok=True)
        for place in places.values():
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)

    def params(self) -> dict[str, Any]:
        """The settings of params.yaml; {} where there is none. Raises SetupError: it can't be read."""
        file = self.folder / paths.PARAMS
        try:
            return dict(yaml.safe_load(file.read_text(encoding="utf-8"))) if file.is_file() else {}
        except (yaml.YAMLError, ValueError, TypeError) as error:
            found = f"{paths.PARAMS}: found no settings in that of the commit ({error})"
            raise SetupError("the commit can't be made again:", [found], "take another commit") from None

    def git(self, *words: str, given: bytes | None = None) -> bytes:
        """Run git in the clone, without any hooks. Raises SetupError with what it said."""
        command = ["git", *(word for setting in GIT for word in ("-c", setting)), *words]
        done = subprocess.run(command, cwd=self.folder, env=dict(self.environment), input=given, capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise SetupError(f"the clone can't be made: git {words[0]} failed:", said, "mend what it says, and run the same command again")
        return done.stdout


@contextmanager
def clean(
    root: Path, place: Path, commit: str, patch: bytes | None, files: Mapping[Path, bytes], offline: bool = False, keep: bool = False
) -> Iterator[Clone]:
    """Yield a clone of a commit, in `place`, which is removed at the end unless it is to be kept.

    Tracking is off in it, so that MLflow does not hear of it as of another run.

    patch: uncommitted changes, put on top.
    files: path → content, put in place of the commit's.

    Raises:
        SetupError: git can't check it out, or the patch doesn't fit.
    """
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / "lock"):  # else another start could remove the folder before it is held
        sweep(place)
        work = Path(tempfile.mkdtemp(dir=place))
        held = os.open(work / HELD, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        made = Clone(work / root.resolve().name, _environment(root, work, offline), held)
        _check_out(made, root, commit, patch, files)
        yield made
    finally:
        os.close(held)
        if keep and made.folder.is_dir():
            (work / KEPT).touch()
        else:
            shutil.rmtree(work, ignore_errors=True)


def sweep(place: Path) -> None:
    """Remove the clones of processes that were killed."""
    for work in place.iterdir():
        if not work.is_dir() or (work / KEPT).exists():
            continue
        try:
            opened = os.open(work / HELD, os.O_RDWR)
        except FileNotFoundError:  # killed within its first millisecond
            shutil.rmtree(work, ignore_errors=True)
            continue
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(work, ignore_errors=True)
        except BlockingIOError:  # somebody works in it
            pass
        finally:
            os.close(opened)


def _environment(root: Path, work: Path, offline: bool) -> dict[str, str]:
    """That of this process, but for DROPPED, this user's DVC, and what would let a program import from the folder `root`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
    for name in ("dvc-site", "dvc-global", "dvc-system"):
        (work / name).mkdir()
    programs = Path(sys.executable).parent
    modules = [path for path in kept.get("PYTHONPATH", "").split(os.pathsep) if path and Path(path).resolve() != root.resolve()]
    own = {
        "PATH": os.pathsep.join([str(programs), kept.get("PATH", os.defpath)]),
        "DVC_SITE_CACHE_DIR": str(work / "dvc-site"),
        "DVC_GLOBAL_CONFIG_DIR": str(work / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(work / "dvc-system"),
        "DVC_NO_ANALYTICS": "1",
        "PYTHONPATH": os.pathsep.join(modules),
    }
    return kept | own | (OFFLINE if offline else {})


def _check_out(made: Clone, root: Path, commit: str, patch: bytes | None, files: Mapping[Path, bytes]) -> None:
    """Fetch the one commit, which may be one that no branch leads to, and put in what does not come from it."""
    made.folder.mkdir()
    made.git("init", "--quiet")
    made.git("fetch", "--quiet", "--no-tags", "--depth", "1", root.resolve().as_uri(), commit)
    made.git("checkout", "--quiet", "--detach", "FETCH_HEAD")
    if patch:
        made.git("apply", "--whitespace=nowarn", "-", given=patch)
    for name, content in files.items():
        (made.folder / name).write_bytes(content)
    if (root / ".venv").is_dir():  # stages run with the environment of their repository or, where it has none, with any
        (made.folder / ".venv").symlink_to((root / ".venv").resolve())
    (made.folder / ".dvc" / "config.local").write_text(SETTINGS, encoding="utf-8")
    values = made.params()
    if not values:
        raise SetupError("the commit can't be made again:", [f"{commit[:12]}: found no params.yaml in it"], "take another commit")
    if "tracking" in values:  # in the settings of no stage, so that no hash changes
        values["tracking"] = {**values["tracking"], "enabled": False}
        (made.folder / paths.PARAMS).write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _end(process: subprocess.Popen[str]) -> None:
    """End dvc and its stage, which dvc would not do at SIGINT: asked first, so that a stage can clean up, then forced."""
    for sent in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            return
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:  # asked again: no more patience
            continue
