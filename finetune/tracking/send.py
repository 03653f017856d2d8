"""Send what waits in .tracking/spool to MLflow, as a process of its own: python -m finetune.tracking.send HOME

One per repository (a lock), started by the first stage that finds none, gone some seconds after the last pipeline. It tails the spools
of running stages, so that curves grow while a model trains. What can't be sent stays: MLflow locked, away, or its disk full costs one
line in .tracking/sender.log, and every start tries again.
"""

import fcntl
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INVALID_PARAMETER_VALUE, INVALID_STATE, RESOURCE_DOES_NOT_EXIST, ErrorCode

from finetune.tracking import spool
from finetune.tracking.process import Process
from finetune.tracking.spool import Event, Spool
from finetune.tracking.store import METRICS, Store

POLL = 0.5  # seconds between two looks at the spools
GRACE = 3.0  # seconds without anything to do before it ends
PAUSES = (1, 2, 5, 10)  # seconds before another try, by the number of tries that failed
ENOUGH = 2  # tries that failed before it ends although something waits, if nobody writes any more
COMMIT = 15.0  # seconds after the end of an experiment's process in which DVC makes a commit of it
SILENCE = 24 * 3600.0  # seconds without a word after which a stage on another host, which may be a container that is gone, is dead
FINAL = {ErrorCode.Name(code) for code in (BAD_REQUEST, INVALID_PARAMETER_VALUE, INVALID_STATE, RESOURCE_DOES_NOT_EXIST)}

log = logging.getLogger(__name__)


@dataclass
class Target:
    """One MLflow experiment at one address, and how it fared."""

    uri: str
    experiment: str
    store: Store | None = None
    failures: int = 0
    try_at: float = 0.0
    stale: bool = True
    """Whether runs may be open whose process is gone."""
    pipelines: dict[Process, Event] = field(default_factory=dict)
    """Those whose stages were sent here, by their process; their runs are closed when it is gone."""
    over: list[tuple[Event, float]] = field(default_factory=list)
    """Those whose process is gone, and until when DVC's commit of them is waited for."""


class Sender:
    """The loop's state."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._targets: dict[tuple[str, str], Target] = {}
        self._spools: dict[Path, Spool] = {}

    def step(self) -> bool:
        """Send what there is; True while there is a reason to stay: somebody still writes, or something waits for its first or next try."""
        busy = False
        by_target: dict[tuple[str, str], list[Spool]] = {}
        for path in spool.waiting(self._home):
            found = self._open(path)
            if found is not None:
                by_target.setdefault((found.header["uri"], found.header["experiment"]), []).append(found)
        for key in [*by_target, *(self._targets.keys() - by_target.keys())]:
            target = self._targets.setdefault(key, Target(*key))
            busy |= self._serve(target, by_target.get(key, []))
        return busy

    def elsewhere(self, path: Path) -> bool:
        """Whether a spool is that of a process on another host, which nothing is to be expected from here."""
        return path in self._spools and not self._spools[path].process.here

    def _open(self, path: Path) -> Spool | None:
        """The spool of a folder; None for the rest of one that was sent, which is removed."""
        if path not in self._spools:
            if not (path / "events.jsonl").exists():
                shutil.rmtree(path, ignore_errors=True)
                return None
            try:
                self._spools[path] = Spool(path)
            except (ValueError, KeyError, TypeError) as error:
                log.warning("%s is damaged and put aside: %s", path.name, error)
                path.rename(path.with_name(f".{path.name}"))
                return None
        return self._spools[path]

    def _serve(self, target: Target, spools: list[Spool]) -> bool:
        """Send the spools of one target in their order, and close the runs of dead processes."""
        target.pipelines |= {Process(**found.header["pipeline"]["process"]): found.header["pipeline"] for found in spools}
        gone = [process for process in target.pipelines if not process.alive]
        target.over += [(target.pipelines.pop(process), time.monotonic() + COMMIT) for process in gone]
        target.stale |= bool(gone)
        alive = any(process.here and process.alive for process in (*target.pipelines, *(found.process for found in spools)))
        if time.monotonic() < target.try_at:
            return alive or target.failures < ENOUGH
        try:
            if target.store is None and (spools or target.stale):
                target.store = Store(target.uri, target.experiment, self._home)
            if target.store is not None:
                for found in spools:
                    self._send(target, target.store, found)
                if target.stale:
                    target.store.close_dead(socket.gethostname(), {path.name for path in spool.waiting(self._home)})
                    target.stale = False
                target.over = [(pipeline, until) for pipeline, until in target.over if self._commit_awaited(target.store, pipeline, until)]
        except Exception as error:  # whatever MLflow, its database or the disk raise: what is in the spool stays there
            return self._failed(target, spools, error, alive)
        target.failures = 0
        return alive or bool(target.over)

    def _commit_awaited(self, store: Store, pipeline: Event, until: float) -> bool:
        """Tag a pipeline that is over with the commit that DVC made of the experiment; True while there may still come one."""
        if not pipeline["experiment"] or not pipeline["baseline"]:
            return False
        baseline = pipeline["baseline"]
        reference = f"refs/exps/{baseline[:2]}/{baseline[2:]}/{pipeline['experiment']}"
        command = ["git", "log", "-1", "--format=%H %ct", reference, "--"]
        asked = subprocess.run(command, cwd=self._home, capture_output=True, text=True, check=False).stdout.split()
        if asked and int(asked[1]) >= int(pipeline["process"]["created"]):  # else of an older one, whose name was given again
            store.note_commit(pipeline["key"], asked[0])
            return False
        return time.monotonic() < until

    def _failed(self, target: Target, spools: list[Spool], error: Exception, alive: bool) -> bool:
        """Leave word beside the spools, and in the log the first time; stay for another try while somebody still writes."""
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        sentence = f"{target.uri}: {first[:300]}"
        if target.failures == 0:
            log.warning("%s; what %d runs logged is kept and sent at the next chance", sentence, len(spools))
        target.try_at = time.monotonic() + PAUSES[min(target.failures, len(PAUSES) - 1)]
        target.failures += 1
        target.store = None
        for found in spools:
            try:
                found.trouble(sentence)
            except OSError:  # the disk that is full may be ours
                continue
        return alive or target.failures < ENOUGH

    def _send(self, target: Target, store: Store, found: Spool) -> None:
        """Send one spool from where it stopped; remove it when its end was sent."""
        # asked before reading: what a process wrote before it died is read
        lost = not found.process.here and time.time() - found.last_change() / 1000 > SILENCE
        dead = lost or not found.process.alive
        events = found.unsent()
        sent = found.sent
        if sent.run is None:
            sent.parent = store.pipeline(found.header)
            sent.run = store.stage(found, sent.parent)
            found.save()
        while events:
            several = _together(events)
            self._give(store, found, [event for event, _ in several])
            sent.offset = several[-1][1]
            found.save()
            events = events[len(several) :]
        if dead and not sent.ended:
            store.end(sent.run, "KILLED", found.last_change(), "its process died")
            if lost and sent.parent is not None:  # the pipeline's own process is nobody's to ask either
                store.end(sent.parent, "KILLED", found.last_change(), "its process died")
            sent.ended = True
        found.trouble(None)
        if sent.ended:
            found.remove()
            del self._spools[found.path]

    def _give(self, store: Store, found: Spool, events: list[Event]) -> None:
        """Hand over events of one kind; what MLflow will never take is dropped with a line, because the rest must not wait for it."""
        event, sent = events[0], found.sent
        assert sent.run is not None
        assert sent.parent is not None
        run = sent.parent if event.get("on") == "pipeline" else sent.run
        try:
            match event["event"]:
                case "start":
                    store.note_entries(found, sent.parent)
                case "metrics":
                    store.metrics(run, events)
                case "ask":
                    spool.write(found.path / "answer.json", json.dumps(store.makers(found, sent.parent)))
                case "version":
                    store.version(sent.parent, event)
                case "end":
                    store.end(run, event["status"], event["at"], event["error"])
                    if event["pipeline"] is not None:
                        store.end(sent.parent, event["pipeline"], event["at"])
                    sent.ended = True
                case _:
                    store.add(run, event, found.path)
        except FileNotFoundError as error:
            log.warning("%s: a file is gone that was to be sent: %s", found.path.name, error)
        except MlflowException as error:
            if error.error_code not in FINAL:
                raise
            log.warning("%s: MLflow refuses this for good, so it is left out: %s: %s", found.path.name, event["event"], error)
            sent.ended |= event["event"] == "end"


def _together(events: list[tuple[Event, int]]) -> list[tuple[Event, int]]:
    """The first event, and the metrics of the same run that follow it directly and fit into one call."""
    first, count = events[0][0], 0
    for position, (event, _) in enumerate(events):
        count += len(event.get("values", ()))
        if position and (event["event"] != "metrics" or first["event"] != "metrics" or event["on"] != first["on"] or count > METRICS):
            return events[:position]
    return events


def main(home: Path, lock: int) -> None:
    """Send until nothing was to be done for a while; `lock` is the open lock file, held."""
    while True:
        loop = Sender(home)
        idle_since = time.monotonic()
        while time.monotonic() - idle_since < GRACE:
            if loop.step():
                idle_since = time.monotonic()
            time.sleep(POLL)
        fcntl.flock(lock, fcntl.LOCK_UN)
        # a stage that began just now saw the lock and started no sender: stay for it
        if all((path / "trouble").exists() or loop.elsewhere(path) for path in spool.waiting(home)):
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # or it came after that, and started one
            return


if __name__ == "__main__":
    os.nice(10)
    os.chdir(sys.argv[1])
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    main(Path(sys.argv[1]), lock=sys.stdin.fileno())
