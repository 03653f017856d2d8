"""Tracking as stages see it: they append to a spool and go on; a process of its own sends it to MLflow (finetune.tracking.send).

    with tracking.run("train", cfg):
        tracking.metrics({"loss": 1.0}, step=3)

Nothing here imports MLflow, waits for it, or raises. Outside a run, with `tracking=off`, and on other ranks than 0 it does nothing.
"""

import json
import logging
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from finetune import paths
from finetune.config.schema import Config, Tracking
from finetune.errors import FinetuneError
from finetune.fingerprint import Fingerprint
from finetune.tracking import hashes, sender
from finetune.tracking.process import Pipeline, Process
from finetune.tracking.spool import Writer

GIB = 2**30
On = Literal["stage", "pipeline"]
VERSION = "export"  # folder of a run's artifacts that is its model version
SENT = ("manifest.json", "README.md", "adapter")  # of what was exported

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """The open run of this process."""

    spool: Writer
    began: float

    def end(self, status: str, error: str | None = None, pipeline: str | None = None) -> None:
        """Say what it took and how it ended; the second time nothing, because the spool is closed."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
        usage = {"seconds": time.monotonic() - self.began, "peak_memory_gib": peak / GIB}
        torch = sys.modules.get("torch")  # only where the stage used it: importing it here would cost more than most stages
        if torch is not None and torch.cuda.is_initialized():
            usage["peak_gpu_memory_gib"] = torch.cuda.max_memory_reserved() / GIB
        self.spool.add("metrics", values=usage, step=0, on="stage")
        self.spool.add("end", status=status, error=error, pipeline=pipeline)
        self.spool.close()


_open: Run | None = None


@contextmanager
def run(stage: str, cfg: Config, lock: str | None = None) -> Iterator[None]:
    """One MLflow run of a stage, under the run of its pipeline, from here to the end of the block.

    `lock`: the text of the dvc.lock that it is about, where that is another one than that of the folder.
    """
    global _open  # noqa: PLW0603 (a process is one stage)
    if not cfg.tracking.enabled or os.environ.get("RANK", "0") not in ("", "0"):
        yield
        return
    current = _open = _begin(stage, cfg.tracking, hashes.read() if lock is None else lock)
    try:
        yield
    except (Exception, SystemExit) as error:
        current.end("FAILED", f"{type(error).__name__}: {error}")
        raise
    except BaseException as told:  # Ctrl-C, SIGTERM, the death of dvc
        current.end("KILLED", str(told) or "interrupted")
        raise
    else:
        current.end("FINISHED")
    finally:
        _open = None


def metrics(values: Mapping[str, float], step: int = 0, on: On = "stage") -> None:
    """Numbers at a step."""
    _add("metrics", values=lambda: {key: float(value) for key, value in values.items()}, step=step, on=on)


def params(values: Mapping[str, Any], on: On = "stage") -> None:
    """Settings: flat keys, each set once."""
    _add("params", values=lambda: {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}, on=on)


def tags(values: Mapping[str, str] | Callable[[], Mapping[str, str]], on: On = "stage") -> None:
    """Words to find a run by; a function, where finding them out takes time that nobody pays without tracking."""
    _add("tags", values=lambda: dict(values() if callable(values) else values), on=on)


def note(run: str, values: Mapping[str, str]) -> None:
    """Words on the run of a stage that is long over, and on its pipeline under the stage's name."""
    _add("note", run=run, values=dict(values))


def artifact(path: Path, folder: str = "", on: On = "stage") -> None:
    """A file or folder as it is now."""
    if _open is not None:
        copy = shutil.copytree if path.is_dir() else shutil.copyfile
        _open.spool.keep(path.name, lambda kept: copy(path, kept), folder=folder, on=on)


def text(name: str, content: str, folder: str = "", on: On = "stage") -> None:
    """A text that is no file, as an artifact."""
    if _open is not None:
        _open.spool.keep(name, lambda kept: kept.write_bytes(content.encode(errors="surrogateescape")), folder=folder, on=on)


def dataset(name: str, path: Path, on: On = "stage") -> None:
    """A data set that was read, under the hash that DVC gives it."""
    _add("dataset", name=name, source=path.as_posix(), digest=lambda: hashes.digest(path), on=on)


def version(name: str, folder: Path) -> None:
    """Have what was exported to `folder` as a version of the registered model `name`, with all that its pipeline was tagged with before.

    Sent are the descriptions and the adapter, never the merged weights: DVC has them, by the hash that the version is found by. By hand
    there is no version, because dvc.lock doesn't know these bytes.
    """
    if _open is None:
        return
    md5 = hashes.known(hashes.read()).get(folder.as_posix())
    if "DVC_STAGE" not in os.environ or md5 is None:
        log.info(
            "no version of %s: this stage was started by hand, and dvc.lock is what a version is found by; `dvc repro` makes one", name
        )
        return

    def fill(kept: Path) -> None:
        shutil.copytree(folder, kept, ignore=lambda at, names: [] if Path(at) != folder else [each for each in names if each not in SENT])

    _open.spool.keep(VERSION, fill, folder="", on="pipeline")
    _open.spool.add("version", name=name, md5=md5, on="pipeline")


def made_by(limit: float = 30.0) -> dict[str, Any] | None:
    """Who made what each stage left, by its name in dvc.lock, or None where MLflow knows no such run.

    {"run", "name", "here", "environment", "differences"}: id of the environment it was made in (None: not known), and in which lines that
    differs from this one.

    MLflow knows; the sender asks it and leaves the answer in the spool. This waits for `limit` seconds at most. None: nobody to ask.
    """
    if _open is None:
        return None
    _open.spool.add("ask")
    answer = _open.spool.path / "answer.json"
    reason = sender.wait(answer.exists, [_open.spool.path], limit)
    if reason is not None:
        log.warning("MLflow can't say who made the stages that were not run: %s", reason)
        return None
    return dict(json.loads(answer.read_text(encoding="utf-8")))


def finish(limit: float = 60.0) -> None:
    """End this run and its pipeline's, then wait until MLflow has both; say so when it has not within `limit` seconds."""
    if _open is not None:
        _open.end("FINISHED", pipeline="FINISHED")
        unsent = flush(paths.home(), limit, [_open.spool.path])
        if unsent is not None:
            log.warning("%s", unsent)


def flush(home: Path, limit: float, spools: list[Path] | None = None) -> str | None:
    """Have these spools sent, or all that earlier runs left; the sentence to print when they are not within `limit` seconds."""
    waiting = sender.left_over(home) if spools is None else spools

    def done() -> bool:
        return not any(path.exists() for path in waiting)

    if done():
        return None
    sender.ensure(home)
    reason = sender.wait(done, waiting, limit)
    return None if reason is None else _unsent(len(waiting), reason)


def _begin(stage: str, settings: Tracking, lock: str) -> Run:
    """Open the spool of this stage, see that a sender lives, and say what earlier runs left."""
    began = time.monotonic()
    home = paths.home()
    process = psutil.Process()
    addressed = os.environ.get("DVC_STAGE", "")
    header = {
        "stage": stage,
        "name": addressed if addressed.partition("@")[0] == stage else stage,
        "process": vars(Process.of(process)),
        "pipeline": Pipeline.current(stage).as_dict(),
        "uri": address(settings, home),
        "experiment": settings.experiment,
        "lock": lock,
        "environment": Fingerprint.of_this_machine().as_tags(),
    }
    writer = Writer(home, stage, header)
    writer.add("metrics", values={"startup_seconds": time.time() - process.create_time()}, step=0, on="stage")
    try:
        left = sender.left_over(home, writer.path)
        if left:
            troubles = [path / "trouble" for path in left if (path / "trouble").exists()]
            log.warning("%s", _unsent(len(left), troubles[0].read_text(encoding="utf-8") if troubles else "their sender was stopped"))
        sender.ensure(home)
    except OSError as error:
        log.warning("no process that sends to MLflow could be started (%s); the next stage tries again", error)
    return Run(writer, began)


def address(settings: Tracking, home: Path) -> str:
    """Where MLflow is: a database in the user's repository by default, and a relative sqlite path lies there too, also in `--temp`."""
    if settings.uri is None:
        return f"sqlite:///{home.resolve() / 'mlflow.db'}"
    scheme, slashes, path = settings.uri.partition(":///")
    if scheme == "sqlite" and slashes and not path.startswith("/"):
        return f"sqlite:///{home.resolve() / path}"
    return settings.uri


def _unsent(count: int, reason: str) -> str:
    return f"{count} run{'s' * (count != 1)} not in MLflow yet, kept in .tracking/spool and sent at the next chance: {reason}"


def _add(kind: str, **fields: Any) -> None:
    """Append an event, if a run is open. What must be computed comes as a function; what that can't do is said in one line."""
    if _open is None:
        return
    try:
        known = {key: value() if callable(value) else value for key, value in fields.items()}
    except (OSError, TypeError, ValueError, FinetuneError) as error:
        log.warning("not tracked: %s (%s)", kind, error)
        return
    _open.spool.add(kind, **known)
