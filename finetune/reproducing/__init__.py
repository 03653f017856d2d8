"""A recorded run made again, in a clean clone of what it was made of, and compared with the hashes that were recorded of it."""

import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from finetune import clone, instructions, locks, paths
from finetune.clone import Clone
from finetune.errors import FinetuneError, SetupError
from finetune.fingerprint import Fingerprint
from finetune.reproducing import raw, source
from finetune.reproducing.recorded import Recorded
from finetune.reproducing.source import Source
from finetune.tracking import hashes

Tell = Callable[[str], None]
PLACE = Path(".cache") / "reproduce"
CHECKED = "report"  # target that needs every stage but check
SHOWN = 10  # last lines of a pipeline that failed


@dataclass(frozen=True)
class Out:
    """An out, and its md5 as recorded and as made again; None: it was not there."""

    stage: str
    path: str
    recorded: str | None
    again: str | None

    @property
    def same(self) -> bool:
        """Whether it has the same bytes."""
        return self.recorded == self.again


@dataclass(frozen=True)
class Reproduction:
    """How a run came out the second time."""

    name: str
    run: str
    commit: str
    how: str
    """What the code and settings were taken from."""
    environment: list[str]
    """In which lines the recorded environment differs from this one."""
    brought: list[str]
    left_over: list[str]
    """Stages that the recorded dvc.lock still had, and the pipeline no more: the run did not make them."""
    outs: list[Out]
    folder: str | None
    """Where it was made, if that was kept."""

    @property
    def same(self) -> bool:
        """The verdict."""
        return bool(self.outs) and all(out.same for out in self.outs)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"verdict": "same" if self.same else "differs", **asdict(self)}


def reproduce(recorded: Recorded, root: Path, tell: Tell, keep: bool = False) -> Reproduction:
    """Make a run again and compare every out of every stage; `tell` hears what is found out before, and what DVC prints.

    Raises:
        FinetuneError: what it was made of is lost, the pipeline fails, or it leaves out a recorded stage.
    """
    different = differences(recorded, root)
    for line in different:
        tell(f"another environment than recorded: {line}")
    taken = source.found(recorded, root)
    tell(f"taken from {taken.how}")
    files = {} if taken.params is None else {paths.PARAMS: taken.params}
    with clone.clean(root, root / PLACE, taken.commit, taken.patch, files, keep=keep) as made:
        brought = raw.bring(made, root, recorded.raw)
        for line in brought:
            tell(line)
        left_over = _left_over(recorded, made, taken)
        for name in left_over:
            tell(f"{name} is in the recorded dvc.lock and not in this dvc.yaml: it is left over from before, and not compared")
        expected = {name: outs for name, outs in recorded.outs.items() if name not in left_over}
        again = _made(made, expected, taken.whole, tell)
    kept = str(made.folder) if keep else None
    outs = compared(expected, again)
    return Reproduction(recorded.name, recorded.run, taken.commit, taken.how, different, brought, left_over, outs, kept)


def sentences(made: Reproduction) -> list[str]:
    """How it came out, for people."""
    differing = [out for out in made.outs if not out.same]
    lines = [f"{out.stage}: {out.path}: recorded {out.recorded or 'nothing'}, again {out.again or 'nothing'}" for out in differing]
    if differing:
        why = " (made in another environment, see above)" if made.environment else ""
        lines.append(
            f"{made.name} came out otherwise: {len(differing)} of {len(made.outs)} outs differ, first in {differing[0].stage}{why}"
        )
    else:
        beside = f"; not compared, because no stage makes it: {', '.join(made.left_over)}" if made.left_over else ""
        lines.append(f"{made.name} came out the same: {len(made.outs)} outs have the recorded bytes{beside}")
    if made.folder is not None:
        lines.append(f"kept in {made.folder}; remove it when you are done")
    return lines


def differences(recorded: Recorded, root: Path) -> list[str]:
    """One line for each thing in which the recorded environment is not the one that the stages will have here."""
    if recorded.environment is None:
        return ["it was not noted, so it can't be compared with this one"]
    here = Fingerprint.of_this_machine(root)
    if recorded.setting("instructions") not in (None, instructions.NATIVE):  # pinned: the stages use what was recorded, or refuse
        here = replace(here, instructions=recorded.environment.instructions)
    return recorded.environment.differences(here)


def compared(recorded: Mapping[str, Mapping[str, str]], again: Mapping[str, Mapping[str, str]]) -> list[Out]:
    """Every out of the recorded stages, and what the same stages wrote beside them."""
    return [
        Out(stage, path, outs.get(path), again.get(stage, {}).get(path))
        for stage, outs in recorded.items()
        for path in sorted(outs.keys() | again.get(stage, {}).keys())
    ]


def _left_over(recorded: Recorded, made: Clone, taken: Source) -> list[str]:
    """Recorded stages that the pipeline has not, which its very dvc.yaml decides: DVC keeps entries of stages that were taken out of it.

    Raises:
        SetupError: the dvc.yaml is only that of a like commit, or has none of them.
    """
    there = made.stages()
    missing = [name for name in recorded.outs if name not in there]
    if (missing and not taken.whole) or len(missing) == len(recorded.outs):
        lines = [f"{name}: found no such stage in the dvc.yaml of {taken.commit[:12]}, expected what made it" for name in missing]
        raise SetupError(f"{recorded.name} can't be made again:", lines, f"bring its own commit, {recorded.commit_shown}")
    return missing


def _made(made: Clone, expected: Mapping[str, Mapping[str, str]], whole: bool, tell: Tell) -> dict[str, Mapping[str, str]]:
    """Stage → path → md5 of what the pipeline writes when all that it wrote before is away.

    Raises:
        FinetuneError: it fails.
        SetupError: it left out a stage.
    """
    before = locks.stages(hashes.read(made.folder / paths.LOCK)).values()
    made.forget({out for outs in [*expected.values(), *(stage.outs for stage in before)] for out in outs})
    _run(made, whole, tell)
    again = {name: stage.outs for name, stage in locks.stages(hashes.read(made.folder / paths.LOCK)).items()}
    if unmade := [name for name in expected if name not in again]:
        lines = [f"{name}: DVC did not run it" for name in unmade]
        raise SetupError("stages were not made in the clone, so there is nothing to compare:", lines, "let none be `frozen` in dvc.yaml")
    return again


def _run(made: Clone, whole: bool, tell: Tell) -> None:
    """Run the pipeline with nothing cached."""
    last: deque[str] = deque(maxlen=SHOWN)

    def hear(line: str) -> None:
        if line.strip():
            last.append(line.rstrip())
            tell(line.rstrip())

    command = [sys.executable, "-m", "dvc", "repro", "--force", "--no-run-cache", *([] if whole else [CHECKED])]
    if made.follow(command, hear):
        raise FinetuneError("\n".join(["the pipeline failed in the clone; its last lines:", *(f"  {line}" for line in last)]))
