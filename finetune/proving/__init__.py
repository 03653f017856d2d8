"""A proof: make it all again in a clean clone, and compare every byte with what dvc.lock records.

Nothing of the folder is changed but reports/certificate.*. What can't be made again raises FinetuneError; what comes out otherwise is a
result, and the certificate says where it parts and why.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from finetune import clone, environment, instructions, locks, paths, tracking
from finetune.clone import Clone
from finetune.config.schema import Config
from finetune.errors import ConfigError, FinetuneError, SetupError
from finetune.fingerprint import Fingerprint
from finetune.lineage import cache
from finetune.locks import Stage
from finetune.proving import causes, files, inputs, losses, recorded, remaking, telling
from finetune.proving.certificate import Again, Certificate, Made, Origin
from finetune.proving.losses import Losses
from finetune.proving.recorded import Kept
from finetune.proving.remaking import Moment
from finetune.proving.repository import Repository
from finetune.proving.subject import Subject
from finetune.proving.telling import Tell
from finetune.tracking import hashes

PLACE = Path(".cache") / "prove"

log = logging.getLogger(__name__)


def prove(
    repository: Repository, subject: Subject, chosen: Sequence[str], tell: Tell, cfg: Config, offline: bool = False, third: bool = True
) -> Certificate:
    """Make the chosen stages again (none: all), compare, write the certificate, and have MLflow know, once there is something to know.

    tell: hears of each stage as it goes, and how it came out.
    third: the first stage that parts is made a third time, which tells a stage that is not exact from a machine that is another.

    Raises:
        FinetuneError: it can't be made: dvc.lock is not that of the commit, an input is gone, a stage fails.
    """
    first = recorded.stages(subject.lock)
    names = _named(chosen, first)
    if parted := inputs.parted(first, names):
        remedy = "`dvc repro` was stopped in between: run it to its end, commit dvc.lock, and prove that"
        raise SetupError("dvc.lock contradicts itself, so there is nothing to compare:", parted, remedy)
    kept = Kept(repository.root, cache.folder(repository.root))
    lock = {paths.LOCK: subject.lock.encode(errors="surrogateescape")}
    fetch = None if offline else partial(inputs.fetch, repository.root, subject.recorded_in)
    with clone.clean(repository.root, repository.root / PLACE, subject.commit, subject.patch, lock, offline) as made:
        _complete(made.stages(), first, names, whole=not chosen)
        for name in subject.untracked:
            made.bring(name, repository.root / name)
        brought = inputs.bring(made, repository, first, names, kept, fetch)
        if old := inputs.stale(made, names if chosen else None):
            remedy = "run `dvc repro` (or `dvc exp run`), commit dvc.lock, and prove that"
            raise SetupError("dvc.lock records what was made of other inputs than these, so there is nothing to compare:", old, remedy)
        packages = environment.locked_differences(environment.lock_that_applies(made.folder))
        seconds = remaking.remake(made, [first[name] for name in names], not chosen, _comparing(made, first, tell))
        stages = [_made(made, first[name], kept) for name in names]
        if fetch is not None and (missing := [out for stage in stages for out in stage.unread]):
            fetch(missing)  # bytes of the first that only a remote may have
            stages = [_made(made, first[name], kept) for name in names]
        compared = {name: found for name in losses.TRAININGS if name in names and (found := _losses(made, first[name], kept)) is not None}
        with _instructions(made), tracking.run("prove", cfg, subject.lock):
            machine = Fingerprint.of_this_machine(made.folder)
            certificate = Certificate(
                subject, machine.lock, not chosen, stages, compared, brought, packages, machine, _origins(names), seconds
            )
            if not certificate.same:
                certificate = _explained(certificate, made, tell if third else None)
            telling.write(certificate)
            telling.track(certificate)
    return certificate


@contextmanager
def _instructions(made: Clone) -> Iterator[None]:
    """Within the block this process answers for the environment that stages have: `instructions` pins theirs as they begin."""
    pinned = instructions.VARIABLES.get(instructions.asked(made.folder / paths.PARAMS, []), {})
    before = {name: os.environ.get(name) for name in pinned}
    os.environ.update(pinned)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _explained(certificate: Certificate, made: Clone, tell: Tell | None) -> Certificate:
    """The certificate with its likely causes; with `tell`, the first stage that parts is made a third time for them."""
    parting = certificate.parting[0]
    again = None if tell is None else _again(made, parting, tell)
    why = causes.likely(parting, certificate.subject, certificate.packages, certificate.origins, again)
    return replace(certificate, again=again, causes=why)


def _named(chosen: Sequence[str], first: Mapping[str, Stage]) -> list[str]:
    """The stages meant, in the order of the pipeline; `answer` means all of its models.

    Raises:
        ConfigError: dvc.lock has no such stage, or nothing that they wrote.
    """
    unknown = [name for name in chosen if not any(name in (stage, stage.partition("@")[0]) for stage in first)]
    if unknown:
        lines = [f"{name}: dvc.lock has no such stage, expected some of {', '.join(first)}" for name in unknown]
        raise ConfigError("nothing to prove:", lines, "name stages of dvc.yaml that were run")
    names = [stage for stage in first if not chosen or stage in chosen or stage.partition("@")[0] in chosen]
    if not any(first[name].outs for name in names):
        lines = [f"{name}: found no outs of it in dvc.lock" for name in names]
        raise ConfigError("nothing to prove:", lines, "name stages that write something")
    return names


def _complete(there: Sequence[str], first: Mapping[str, Stage], names: Sequence[str], whole: bool) -> None:
    """See that dvc.yaml, with the stages `there`, has all that are meant, and that nothing of a whole pipeline is passed over.

    Raises:
        SetupError: dvc.lock has a stage that dvc.yaml has not, or the other way round.
    """
    lines = [f"{name}: found in dvc.lock, expected in dvc.yaml too" for name in names if name not in there]
    lines += [f"{name}: found in dvc.yaml, expected in dvc.lock too" for name in there if whole and name not in first]
    if lines:
        remedy = (
            "run `dvc repro` where it never ran, take out of dvc.lock what dvc.yaml has no more, and commit dvc.lock; "
            "or name the stages that are meant: `finetune prove train dpo`"
        )
        raise SetupError("dvc.lock does not record the pipeline that dvc.yaml has:", lines, remedy)


def _comparing(made: Clone, first: Mapping[str, Stage], tell: Tell) -> Callable[[Moment], None]:
    """Have `tell` hear how a stage came out as soon as it is done: DVC then writes its hashes."""

    def told(moment: Moment) -> None:
        stage = first.get(moment.stage)
        second = None if moment.seconds is None else _now(made).get(moment.stage)
        tell(moment, None if stage is None or second is None else Made(stage, second))

    return told


def _now(made: Clone) -> dict[str, Stage]:
    """The stages that were made in the clone: of the first run its dvc.lock has nothing any more."""
    return locks.stages(hashes.read(made.folder / paths.LOCK))


def _made(made: Clone, first: Stage, kept: Kept) -> Made:
    """A stage compared, with what parts looked into."""
    found = Made(first, _now(made)[first.name])
    differences, unread = [], []
    for out in found.parting:
        before = kept.files(out, first.outs[out]) if out in first.outs else {}
        if before is None:
            unread.append(out)
        else:
            differences += files.compare(out, before, _files(made.folder / out))
    return replace(found, differences=tuple(differences), unread=tuple(unread))


def _files(out: Path) -> dict[str, Path]:
    if out.is_dir():
        return {file.relative_to(out).as_posix(): file for file in sorted(out.rglob("*")) if file.is_file()}
    return {"": out} if out.is_file() else {}


def _losses(made: Clone, first: Stage, kept: Kept) -> Losses | None:
    """The steps of a training compared; None: there is no report of it, as of a pipeline that names it otherwise."""
    report = paths.metrics(first.name)
    second = made.folder / report
    if not second.is_file():
        return None
    md5 = first.outs.get(report.as_posix())
    if md5 == hashes.md5(second):  # then its steps are known, also where nobody has the first file any more, as on a fresh clone
        return losses.compare(_read(second), _read(second))
    before = kept.files(report.as_posix(), md5) if md5 is not None else None
    return losses.compare(None if before is None else _read(before[""]), _read(second))


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _origins(names: Sequence[str]) -> dict[str, Origin | None] | None:
    """Who made what was recorded, as MLflow has it; None: nobody to ask."""
    answer = tracking.made_by()
    if answer is None:
        return None
    return {name: _origin(answer.get(name)) for name in names}


def _origin(maker: Mapping[str, Any] | None) -> Origin | None:
    if maker is None:
        return None
    return Origin(maker["run"], maker["name"], maker.get("environment"), tuple(maker.get("differences", ())))


def _again(made: Clone, parting: Made, tell: Tell) -> Again | None:
    """Make the first stage that parts once more, from the inputs that it had; None: that failed, or was stopped, and the verdict stands."""
    try:
        remaking.remake(made, [parting.first], False, lambda moment: tell(moment, None))
    except (FinetuneError, KeyboardInterrupt) as error:
        log.warning("%s was not made a third time: %s", parting.name, str(error) or "interrupted")
        return None
    third = _now(made)[parting.name].outs
    return "as the second" if third == parting.second.outs else "as the first" if third == parting.first.outs else "unlike both"
