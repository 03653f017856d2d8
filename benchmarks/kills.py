"""kill -9 in the middle of each stage, and what is left when the same command has run again: the bytes of an undisturbed run, or not.

In a clone whose run cache is emptied before each row, the stage and all after it are made to run. A hook in the stage (killing/) says when
it is at a drawn moment of its work, or holds it still between two steps of writing a checkpoint. Then the stage, or the dvc above it, or
their whole process group is killed, `dvc repro` is run once more, and every out of every stage is compared by its hash. Rows are drawn from
SEED; a kill that came too late is drawn again. benchmarks/results/kills.jsonl has each row.
"""

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml

from benchmarks.exactness import commit
from benchmarks.record import RESULTS, Samples
from benchmarks.watching import LOADED as LOADED
from benchmarks.watching import environment, fresh_clone
from finetune import outputs
from finetune.errors import SetupError

READS = ("benchmarks/killing",)
HOOK = Path(__file__).parent / "killing"
SEED = 4
TRIES = 5  # of a row whose kill came too late
LATEST = 0.15  # seconds after the moment at which it is killed
PATIENCE = 900.0  # seconds that a pipeline may take
STAGES = ("prepare", "format", "train", "reference", "dpo", "answer@base", "answer@train", "answer@dpo", "evaluate", "export", "report")
TINY = (
    "experiment=tiny",
    "resume.save_seconds=0",
    "train.num_train_epochs=2",
    "dpo.num_train_epochs=2",
    "answer.batch_size=4",
    "reference.batch_size=4",
)
SMOLLM2 = ("experiment=smoke", "resume.save_seconds=0")

STEP, SYNC = "finetune.training.steps:Steps.on_step_end", "finetune.outputs:sync"
SCORED, ANSWERED = "finetune.models.scoring:_batch", "finetune.evaluation.generation:_continued"
# Where a stage is at work: a function that it calls again and again or at the turn from one thing to the next, and how often at least.
WORK = {
    "prepare": [("finetune.data.contract:settle", 1), ("finetune.data.contract:write", 1), (SYNC, 6)],
    "train": [(STEP, 10)],
    "reference": [(SCORED, 6)],
    "dpo": [(STEP, 4)],
    "answer@base": [(ANSWERED, 4), (SCORED, 3)],
    "answer@train": [(ANSWERED, 4), (SCORED, 3)],
    "answer@dpo": [(ANSWERED, 4), (SCORED, 3)],
    "evaluate": [("finetune.evaluation.scores:judged", 3), ("finetune.evaluation.scores:of_slice", 6), (SYNC, 1)],
    "export": [("finetune.exporting.merged:logits", 1), ("finetune.exporting.merged:save", 1), (SYNC, 8)],
}
GROUPS = {
    "prepare": (("prepare",), 9),
    "train": (("train",), 8),
    "reference or dpo": (("reference", "dpo"), 8),
    "answer or evaluate": (("answer@base", "answer@train", "answer@dpo", "evaluate"), 8),
    "export": (("export",), 8),
}
Calls = tuple[str, Literal["before", "after"], int]
# Between write, fsync and rename of a checkpoint, where the stage is held still: before or after a function, and calls of it a checkpoint.
CHECKPOINT: tuple[Calls, ...] = (
    ("finetune.training.checkpoints:write", "before", 1),
    ("finetune.training.checkpoints:write", "after", 1),
    ("finetune.checkpoints.kept:sync", "before", 6),
    ("finetune.checkpoints.kept:sync", "after", 6),
    ("finetune.checkpoints.kept:_complete", "after", 1),
)
IN_CHECKPOINTS = 9
Victim = Literal["stage", "dvc", "group"]
VICTIMS: tuple[Victim, ...] = ("stage", "dvc", "group")

Do = Literal["go", "hold", "full"]
Hashes = dict[str, str]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One disturbance."""

    group: str
    stage: str
    function: str
    call: int
    when: Literal["before", "after"] = "before"
    do: Do = "go"
    delay: float = 0.0
    """Seconds after the moment."""
    victim: Victim | None = "stage"
    """None: nobody is killed."""
    signal: int = signal.SIGKILL
    damage: bool = False
    """Whether the newest checkpoint is damaged before the second try."""
    says: str = ""
    """What one of the two runs must say."""
    overrides: tuple[str, ...] = ()


def measure(root: Path) -> Samples:
    """Disturb the pipeline again and again; an hour. Interrupted, it goes on with the rows that are missing, on the same commit."""
    part = root / ".cache/kills" / f"{commit(root)}.jsonl"
    done = outputs.read_jsonl(part) if part.is_file() else []
    part.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name, settings, drawn in (("tiny", TINY, tiny), ("smollm2", SMOLLM2, smollm2)):
        wanted = list(enumerate(drawn(random.Random(SEED))))
        known = {row["number"]: row for row in done if row["pipeline"] == name}
        if missing := [(number, row) for number, row in wanted if number not in known]:
            with fresh_clone(root) as clone, Pipeline(clone, settings) as pipeline:
                for number, row in missing:
                    found = pipeline.row(row, random.Random(f"{SEED} {number}"))
                    known[number] = {"pipeline": name, "number": number, "undisturbed": pipeline.seconds, **found}
                    with part.open("a", encoding="utf-8") as out:
                        out.write(json.dumps(known[number]) + "\n")
                    log.info("%s", json.dumps(known[number]))
        rows += [known[number] for number, _ in wanted]
    outputs.write_jsonl(root / RESULTS / "kills.jsonl", rows)
    part.unlink()
    return results(rows)


def results(rows: Sequence[dict[str, Any]]) -> Samples:
    """Whether each row ended as undisturbed, by its group; how many kills there were, and what the undisturbed pipelines took."""
    samples: Samples = defaultdict(list)
    for row in rows:
        samples[f"{row['group']}.same"].append(float(row["same"]))
        samples[f"{row['group']}.tries"].append(row["tries"])
    for name in ("tiny", "smollm2"):
        samples[f"{name}.undisturbed.seconds"] = sorted({row["undisturbed"] for row in rows if row["pipeline"] == name})
    samples["tiny.kills"] = [sum(len(samples[f"{group}.same"]) for group in (*GROUPS, "checkpoint"))]
    return dict(samples)


def tiny(draw: random.Random) -> Iterator[Row]:
    """50 kills, then SIGTERM, deaths before DVC has noted the outs, a full disk and damaged checkpoints."""
    victims = cycle(VICTIMS)
    for group, (stages, count) in GROUPS.items():
        for _, stage in zip(range(count), cycle(stages), strict=False):
            yield moment(draw, group, stage, next(victims))
    for _, stage, (function, when, calls) in zip(range(IN_CHECKPOINTS), cycle(("train", "dpo")), cycle(CHECKPOINT), strict=False):
        call = draw.randint(1, 3 * calls)
        yield Row("checkpoint", stage, function, call, when, "hold", victim=next(victims))
    for stage in ("prepare", "train", "reference", "dpo", "answer@train", "export"):
        told = replace(moment(draw, "SIGTERM", stage, "stage"), signal=signal.SIGTERM, says="exited with 143")
        yield replace(told, do="hold") if stage == "export" else told  # it works milliseconds only, and then heeds no SIGTERM
    for stage in ("train", "dpo"):
        yield replace(moment(draw, "SIGTERM", stage, "group"), signal=signal.SIGTERM, says="ended by SIGTERM")
    for stage in ("train", "dpo"):
        yield Row("not yet noted", stage, "finetune.checkpoints.noted:finish", 1, "after", "hold", victim="group", says="going on from")
    for limit in ("continue", "stop"):
        for stage in ("train", "dpo"):
            full = Row("disk full", stage, "finetune.checkpoints.kept:sync", draw.randint(6, 12), do="full", victim=None)
            says = "disk is full; the last one" if limit == "continue" else "the last one, step-"
            yield replace(full, says=says, overrides=(f"resume.disk_full={limit}",))
    for stage in ("train", "dpo"):
        yield Row("damaged", stage, STEP, 4, delay=0.05, damage=True, says="is damaged and is skipped")


def smollm2(draw: random.Random) -> Iterator[Row]:
    """Five kills of the real model."""
    for stage, victim in zip(("train", "dpo", "reference", "answer@train", "train"), cycle(VICTIMS), strict=False):
        yield moment(draw, "smollm2", stage, victim)


def moment(draw: random.Random, group: str, stage: str, victim: Victim) -> Row:
    """A drawn moment of a stage's work."""
    function, calls = draw.choice(WORK[stage])
    if group == "smollm2":
        calls = {"train": 20, "dpo": 4, "reference": 2, "answer@train": 1}[stage]
        function = function if stage != "answer@train" else ANSWERED
    return Row(group, stage, function, draw.randint(1, calls), delay=round(draw.uniform(0, LATEST), 3), victim=victim)


class Pipeline:
    """A clone in which the pipeline ran once, undisturbed, and is disturbed again and again."""

    def __init__(self, clone: Path, settings: tuple[str, ...]) -> None:
        self._clone, self._settings = clone, settings
        self._note = Path(tempfile.mkdtemp()) / "note"

    def __enter__(self) -> "Pipeline":
        self._compose()
        began = time.monotonic()
        status, said = self._repro()
        if status:
            raise SetupError("the undisturbed pipeline failed:", said.splitlines()[-10:])
        self.seconds = time.monotonic() - began
        self._lock = (self._clone / "dvc.lock").read_text(encoding="utf-8")
        self._undisturbed = self._hashes()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._note.parent)

    def row(self, row: Row, draw: random.Random) -> dict[str, Any]:
        """Disturb it, run it again, compare; a kill that hit nothing is drawn again."""
        tries = 0
        while True:
            tries += 1
            self._forget(row.stage)
            self._compose(*row.overrides)
            hit, first = self._disturbed(row)
            if hit:
                break
            if tries == TRIES:
                raise SetupError(f"{row.stage}: no kill came in time", [str(asdict(row))])
            row = replace(row, call=max(1, row.call - 1), delay=round(row.delay * draw.random(), 3))
        if row.damage:
            self._damage(row.stage)
        status, second = self._repro()
        found = self._hashes()
        different = sorted(path for path in found.keys() | self._undisturbed.keys() if found.get(path) != self._undisturbed.get(path))
        left = [path.relative_to(self._clone).as_posix() for path in self._clone.rglob("*.part") if ".venv" not in path.parts]
        kept = [path.name for path in (self._clone / ".resume").glob("*/*")]
        said = not row.says or row.says in first + second
        same = status == 0 and not different and not left and not kept and said
        if not same:
            log.warning("%s", (first + second)[-6000:])
        resumed = "going on from" in second or "are there from before" in second
        return {**asdict(row), "tries": tries, "same": same, "resumed": resumed, "different": different, "left": left + kept}

    def _compose(self, *overrides: str) -> None:
        command = [str(self._clone / ".venv/bin/python"), "-m", "finetune", "params", "tracking=off", *self._settings, *overrides]
        subprocess.run(command, cwd=self._clone, env=environment(self._clone), check=True, capture_output=True)

    def _forget(self, first: str) -> None:
        """Have this stage and all after it not been run: no outs, no entries in dvc.lock, no run cache."""
        locked = yaml.safe_load(self._lock)
        for stage in STAGES[STAGES.index(first) :]:
            for out in locked["stages"].pop(stage)["outs"]:
                path = self._clone / out["path"]
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        (self._clone / "dvc.lock").write_text(yaml.safe_dump(locked, sort_keys=False), encoding="utf-8")
        shutil.rmtree(self._clone / ".dvc/cache/runs", ignore_errors=True)
        self._note.unlink(missing_ok=True)

    def _disturbed(self, row: Row) -> tuple[bool, str]:
        """Whether the disturbance met the stage at its work, and what was said."""
        told = {name: value for name, value in asdict(row).items() if name in ("stage", "function", "call", "when", "do")}
        hook = {"MOMENT": json.dumps(told | {"note": str(self._note)}), "PYTHONPATH": str(HOOK)}
        with tempfile.TemporaryFile("w+") as output:
            dvc = self._start(hook, output)
            while not self._note.exists() and dvc.poll() is None:
                time.sleep(0.005)
            hit = self._note.exists()
            if hit and row.victim is not None:
                time.sleep(row.delay)
                hit = _kill(row, dvc, int(self._note.read_text()))
            dvc.wait(PATIENCE)
            if hit:
                _wait(int(self._note.read_text()))
            output.seek(0)
            return hit and (row.victim is None or row.stage not in self._locked()), output.read()

    def _damage(self, stage: str) -> None:
        found = (self._clone / ".resume" / stage).glob("*/step-*/tensors.safetensors")
        newest = max(found, key=lambda path: int(path.parent.name.partition("-")[2]))
        content = bytearray(newest.read_bytes())
        content[-1] ^= 1
        newest.write_bytes(content)

    def _repro(self) -> tuple[int, str]:
        with tempfile.TemporaryFile("w+") as output:
            status = self._start({}, output).wait(PATIENCE)
            output.seek(0)
            return status, output.read()

    def _start(self, extra: dict[str, str], output: Any) -> subprocess.Popen[bytes]:
        variables = environment(self._clone) | extra
        command = [str(self._clone / ".venv/bin/dvc"), "repro"]
        return subprocess.Popen(
            command,
            cwd=self._clone,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _locked(self) -> dict[str, Any]:
        locked: dict[str, Any] = yaml.safe_load((self._clone / "dvc.lock").read_text(encoding="utf-8"))["stages"]
        return locked

    def _hashes(self) -> Hashes:
        """Path → md5 of every out of every stage."""
        return {out["path"]: out["md5"] for entry in self._locked().values() for out in entry.get("outs", ())}


def _wait(stage: int) -> None:
    """Until the stage is gone too, which may have something to say after its dvc."""
    with suppress(psutil.NoSuchProcess):
        psutil.Process(stage).wait(PATIENCE)


def _kill(row: Row, dvc: subprocess.Popen[bytes], stage: int) -> bool:
    """Kill the victim; whether the stage was still alive then."""
    try:
        process = psutil.Process(stage)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        match row.victim:
            case "stage":
                process.send_signal(row.signal)
            case "dvc":
                dvc.send_signal(row.signal)
            case "group":
                os.killpg(dvc.pid, row.signal)
        if row.do == "hold" and (row.victim == "dvc" or row.signal == signal.SIGTERM):  # what holds still can't end itself
            if row.victim == "dvc":
                dvc.wait()
            process.send_signal(signal.SIGCONT)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
    return True


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    measure(Path.cwd())
