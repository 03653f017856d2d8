"""What a proof found, as reports/certificate.json has it. Nothing but its section `machine` depends on when and where it was made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune.fingerprint import Fingerprint
from finetune.locks import Stage
from finetune.proving.difference import Difference
from finetune.proving.losses import Losses
from finetune.proving.subject import Subject

VERSION = 1  # of the form of the file
Again = Literal["as the first", "as the second", "unlike both"]


@dataclass(frozen=True)
class Made:
    """A stage that was made again."""

    first: Stage
    second: Stage
    differences: tuple[Difference, ...] = ()
    unread: tuple[str, ...] = ()
    """Outs that part, and of which the first run's bytes can't be had any more."""

    @property
    def name(self) -> str:
        """The stage's, as in dvc.lock."""
        return self.first.name

    @property
    def parting(self) -> list[str]:
        """Outs that are not the same."""
        return [out for out in sorted({*self.first.outs, *self.second.outs}) if self.first.outs.get(out) != self.second.outs.get(out)]

    @property
    def same(self) -> bool:
        """Whether every out has the bytes that were recorded."""
        return not self.parting


@dataclass(frozen=True)
class Origin:
    """Who made what was recorded, as far as MLflow knows."""

    run: str
    name: str
    environment: str | None
    """Id of the fingerprint of the machine that made it; None: from before there were fingerprints."""
    differences: tuple[str, ...]
    """In what that machine differs from this one."""


@dataclass(frozen=True)
class Certificate:
    """A proof: what was made again, from what, and whether it is the same."""

    subject: Subject
    lock: Mapping[str, str] | None
    """Name and sha256 of the lock of packages that applies."""
    whole: bool
    """Whether the whole pipeline was made, not chosen stages."""
    stages: Sequence[Made]
    losses: Mapping[str, Losses]
    brought: Mapping[str, str]
    """File → md5 of what the stages read, and no commit has."""
    packages: Sequence[str]
    """Installed packages that are not the lock's, one line each."""
    fingerprint: Fingerprint
    origins: Mapping[str, Origin | None] | None
    """Stage → who made what was recorded; None: MLflow could not be asked."""
    seconds: Mapping[str, float]
    again: Again | None = None
    """The first stage that parts was made a third time: how that came out."""
    causes: Sequence[str] = field(default=())

    @property
    def parting(self) -> list[Made]:
        """Stages with an out that is not the same; the first of them is where to look."""
        return [stage for stage in self.stages if not stage.same]

    @property
    def same(self) -> bool:
        """The verdict."""
        return not self.parting

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        subject = self.subject
        experiment = subject.experiment
        return {
            "version": VERSION,
            "verdict": "same" if self.same else "differs",
            "commit": subject.commit,
            "experiment": None if experiment is None else {"name": experiment.name, "baseline": experiment.baseline},
            "uncommitted": {"patch_sha256": subject.patch_sha256, "new_files": list(subject.untracked)} if subject.dirty else None,
            "dvc_lock": {"sha256": subject.lock_sha256, "committed": subject.lock_committed},
            "lock": None if self.lock is None else dict(self.lock),
            "packages_not_of_the_lock": list(self.packages),
            "whole_pipeline": self.whole,
            "brought": dict(self.brought),
            "stages": {stage.name: _stage(stage) for stage in self.stages},
            "steps": {name: {"same": losses.same, **_numbers(vars(losses))} for name, losses in self.losses.items()},
            "first_difference": None if self.same else self._first(),
            "causes": list(self.causes),
            "machine": {
                "fingerprint": {"id": self.fingerprint.id, **self.fingerprint.as_dict()},
                "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
                "first_made_by": None if self.origins is None else {name: _origin(origin) for name, origin in self.origins.items()},
            },
        }

    def _first(self) -> dict[str, Any]:
        stage = self.parting[0]
        return {"stage": stage.name, "outs": stage.parting, "third_time": self.again}


def _stage(stage: Made) -> dict[str, Any]:
    outs = sorted({*stage.first.outs, *stage.second.outs})
    return {
        "same": stage.same,
        "outs": {out: {"first": stage.first.outs.get(out), "second": stage.second.outs.get(out)} for out in outs},
        "differences": [difference.as_dict() for difference in stage.differences],
        "first_not_to_be_had": list(stage.unread),
    }


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no nan and no infinity."""
    return {key: repr(value) if isinstance(value, float) and not abs(value) < float("inf") else value for key, value in values.items()}


def _origin(origin: Origin | None) -> dict[str, Any] | None:
    if origin is None:
        return None
    return {"run": origin.run, "pipeline": origin.name, "environment": origin.environment, "differs_from_this": list(origin.differences)}
