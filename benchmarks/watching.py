"""DVC run in a fresh clone, with nothing cached, and watched from outside: the seconds and the memory of each stage.

A stage is known by the DVC_STAGE that DVC gives its processes. Its seconds run from the first look at one of them to the last; its memory
is the sum of the resident memory of its processes, so that what they share counts more than once.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from finetune.errors import SHOWN, SetupError

LOADED = ("stages", "hydra_plugins")  # DVC runs every stage, and Hydra loads the plugins
LOOK = 0.2  # seconds between two looks at the processes, which is how exactly a stage's seconds are known
STALE_VARIABLES = (
    "DVC_",
    "MLFLOW_",
    "HYDRA_",
    "MAKE",
    "MFLAGS",
    "VIRTUAL_ENV",
)  # settings of this shell, or of the make above, not of a fresh machine
GIB = 2**30


@dataclass(frozen=True)
class Done:
    """A command that succeeded."""

    seconds: float
    output: str


@dataclass(frozen=True)
class Weighed(Done):
    """The same, with the peak of the resident memory of all its processes together, in GiB."""

    gib: float


@dataclass
class Watched:
    """What one command cost, in seconds and GiB; stages in the order in which they ran."""

    total: float = 0.0
    started: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)

    def seconds(self, stage: str) -> float:
        """Wall seconds of a stage."""
        return self.ended[stage] - self.started[stage]


@contextmanager
def fresh_clone(root: Path, with_environment: bool = True) -> Iterator[Path]:
    """Yield a clone of the commit, with the .venv of `root` but nothing else that git ignores; removed afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="finetune-", ignore_cleanup_errors=True) as folder,
        clone_at(Path(folder).resolve() / "finetune", root, with_environment) as clone,
    ):
        yield clone


@contextmanager
def clone_at(clone: Path, root: Path, with_environment: bool = True) -> Iterator[Path]:
    """Yield a clone at this place, likewise; afterwards nothing works in it any more."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(root), str(clone)], check=True)  # so that it can be given away
    if with_environment:
        (clone / ".venv").symlink_to((root / ".venv").resolve())
        (clone / ".git/info/exclude").write_text(".venv\n", encoding="utf-8")  # .gitignore names the folder, and this is a link
    try:
        yield clone
    finally:
        _end_what_is_left(clone)


def _end_what_is_left(clone: Path) -> None:
    """End the processes that still work in the clone: what sends to MLflow outlives its stage."""
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(clone):
                process.terminate()
                process.wait(timeout=10)
        except psutil.Error:
            continue  # another user's, or it has ended


def environment(folder: Path) -> dict[str, str]:
    """The variables of a fresh shell in which the repository's own .venv comes first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(STALE_VARIABLES)}
    path = [part for part in os.environ["PATH"].split(os.pathsep) if not part.endswith(".venv/bin")]
    return {**kept, "PATH": os.pathsep.join([str(folder / ".venv/bin"), *path])}


def call(folder: Path, *command: str) -> Done:
    """Run a command in a repository, unwatched.

    Raises:
        SetupError: it failed, with the last lines that it printed.
    """
    begin = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    seconds = time.perf_counter() - begin
    _refuse_failure(command, done.returncode, done.stdout)
    return Done(seconds, done.stdout)


def weigh(folder: Path, *command: str) -> Weighed:
    """Run a command in a repository, and add up the memory of its processes meanwhile. Raises as above."""
    ended = threading.Event()
    peak = 0

    def look() -> None:
        nonlocal peak
        while not ended.wait(LOOK):
            peak = max(peak, sum(_resident(process) for process in _children(os.getpid())))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        done = call(folder, *command)
    finally:
        ended.set()
        looking.join()
    return Weighed(done.seconds, done.output, peak / GIB)


def watch(clone: Path, *command: str) -> Watched:
    """Run a command that runs the pipeline, with a bar over its stages; return what they cost.

    Raises:
        SetupError: the command failed, with the last lines that it printed.
    """
    output, stages = clone.parent / "output.txt", _stages(clone)
    with output.open("w", encoding="utf-8") as out, _bar() as bar:
        task = bar.add_task("starting", total=len(stages))
        begin = time.perf_counter()
        process = subprocess.Popen(command, cwd=clone, env=environment(clone), stdout=out, stderr=subprocess.STDOUT)
        try:
            watched = _look(process, bar, task)
        finally:
            for left in _children(process.pid):  # none, unless the look was interrupted: a killed DVC would leave its stage running
                left.terminate()
            process.wait()
        watched.total = time.perf_counter() - begin
    _refuse_failure(command, process.returncode, output.read_text(encoding="utf-8", errors="replace"))
    missed = sorted(set(stages) - set(watched.started) - {"check"})  # which the committed dvc.lock may have
    if missed:
        raise SetupError(f"{' '.join(command)} did not run all of {len(stages)} stages; not seen:", missed)
    return watched


def _refuse_failure(command: tuple[str, ...], status: int, said: str) -> None:
    if status:
        raise SetupError(f"{' '.join(command)} failed with exit status {status}:", said.splitlines()[-SHOWN:])


@contextmanager
def waiting(doing: str) -> Iterator[None]:
    """Show, on a terminal, that something of unknown length is being done, and since when."""
    with _bar() as bar:
        bar.add_task(doing, total=None)
        yield


def _look(process: subprocess.Popen[bytes], bar: Progress, task: TaskID) -> Watched:
    """Look at the processes below DVC until it ends."""
    watched = Watched()
    known: dict[psutil.Process, str] = {}
    while process.poll() is None:
        now = time.perf_counter()
        memory: dict[str, int] = defaultdict(int)
        for child in _children(process.pid):
            try:
                stage = known.get(child) or child.environ().get("DVC_STAGE")
                if stage:
                    known[child] = stage
                    watched.started.setdefault(stage, now)
                    memory[stage] += child.memory_info().rss
            except psutil.Error:
                continue  # it ended between two lines
        for stage, rss in memory.items():
            watched.peak[stage] = max(watched.peak.get(stage, 0.0), rss / GIB)
            watched.ended[stage] = now + LOOK / 2
        _advance(bar, task, watched, set(memory))
        time.sleep(LOOK)
    _advance(bar, task, watched, set())
    return watched


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0  # it ended between two lines


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _advance(bar: Progress, task: TaskID, watched: Watched, running: set[str]) -> None:
    """Print a line for each stage that has ended, and move the bar."""
    ended = [stage for stage in watched.ended if stage not in running]
    for stage in ended[int(bar.tasks[task].completed) :]:
        bar.console.print(f"{stage:16}{watched.seconds(stage):8.1f} s{watched.peak[stage]:8.2f} GiB", highlight=False)
    bar.update(task, completed=len(ended), description=", ".join(sorted(running)) or "dvc")


def _bar() -> Progress:
    """A bar on a terminal; elsewhere only the lines printed under it."""
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _stages(clone: Path) -> list[str]:
    """Names of all stages, those of a foreach one by one."""
    command = [str(clone / ".venv/bin/dvc"), "stage", "list", "--name-only"]
    return subprocess.run(command, cwd=clone, env=environment(clone), check=True, capture_output=True, text=True).stdout.split()
