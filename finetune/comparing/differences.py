"""What differs between two runs, and of each score how much of its difference is chance."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from finetune import environment
from finetune.comparing import chance, versions
from finetune.comparing.chance import Judgement, Spread
from finetune.comparing.locks import Lock
from finetune.comparing.numbers import differing
from finetune.comparing.repository import Repository
from finetune.comparing.tracked import Tracked
from finetune.comparing.versions import CODE, Version
from finetune.fingerprint import Fingerprint

COUNTING = ("prepare", "format")  # stages whose numbers are of the data
SCORED = "evaluate"  # the stage that everything that makes a score goes into
TRAINED = {"train", "dpo"}  # stages whose environment decides whether hashes can be compared
ENDS = ("_low", "_high")  # of an interval: they stand beside their score
Pairs = Mapping[str, tuple[Any, Any]]
Seeds = Callable[[Version, str], dict[str, Spread]]


@dataclass(frozen=True)
class Module:
    """A module that is not the same in both."""

    path: str
    what: str
    """changed, new (b alone reads it) or gone."""
    stages: tuple[str, ...]
    """Those that read it otherwise."""


@dataclass(frozen=True)
class Score:
    """One score of both."""

    name: str
    a: float | None
    b: float | None
    interval_a: tuple[float, float] | None
    """How far other test records would have it, as evaluate found."""
    interval_b: tuple[float, float] | None
    spread_a: Spread | None
    spread_b: Spread | None
    judgement: Judgement | None
    """None where one of them has no such score."""


@dataclass(frozen=True)
class Differences:
    """All of it."""

    a: Version
    b: Version
    params: Pairs
    data: Pairs
    """Path → DVC's hash of what was read and written."""
    counts: Pairs
    code: Sequence[Module]
    packages: Mapping[str, Pairs]
    """Lock of packages → package → versions."""
    fingerprints: Sequence[str]
    """In what the environments differ, a line each."""
    environments: tuple[Mapping[str, str], Mapping[str, str]]
    """Stage → id of the environment it was made in, where that is known."""
    same_environment: bool | None
    """Whether all stages of both were made in one; None: not known of all."""
    scores: Sequence[Score]
    """Those that are not the same."""
    equal: int
    """Scores that are."""
    only_seed: bool
    """Whether nothing that went in differs but the seed."""
    trouble: str | None
    """Why MLflow said nothing of the environments."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **{
                side: {"name": one.name, "title": one.title, "commit": one.commit, "notes": one.notes}
                for side, one in zip("ab", (self.a, self.b), strict=True)
            },
            "params": _both(self.params),
            "data": {"hashes": _both(self.data), "counts": _both(self.counts)},
            "code": [asdict(module) for module in self.code],
            "environment": {
                "same": self.same_environment,
                "differences": list(self.fingerprints),
                "a": dict(self.environments[0]),
                "b": dict(self.environments[1]),
                "packages": {lock: _both(pairs) for lock, pairs in self.packages.items()},
                "unknown_because": self.trouble,
            },
            "metrics": {score.name: _score(score) for score in self.scores},
            "equal_metrics": self.equal,
            "only_seed": self.only_seed,
        }


def compare(a: Version, b: Version, repository: Repository, tracked: Tracked) -> Differences:
    """Put two versions side by side, with all runs of the repository that are theirs under other seeds."""
    question = tracked.ask([a.lock_text, b.lock_text])
    scores = _scores(a, b, _seeds(a, b, repository))
    counts = [{key: value for stage in COUNTING for key, value in one.measured.get(stage, {}).items()} for one in (a, b)]
    made, trouble = question.answer() if question else ([{}, {}], tracked.trouble)
    known = [fingerprint for side in made for fingerprint in side.values()]
    return Differences(
        a,
        b,
        params=differing(a.params, b.params),
        data=differing(_data(a.lock), _data(b.lock)),
        counts=differing(*counts),
        code=_code(a.lock, b.lock),
        packages=_packages(a, b),
        fingerprints=list(dict.fromkeys(line for other in known[1:] for line in known[0].differences(other))),
        environments=({stage: one.id for stage, one in made[0].items()}, {stage: one.id for stage, one in made[1].items()}),
        same_environment=_same(made, known, (a, b)),
        scores=[score for score in scores if score.a != score.b],
        equal=sum(score.a == score.b for score in scores),
        only_seed=_differ_in_seed_alone(a.lock, b.lock),
        trouble=trouble,
    )


def _seeds(a: Version, b: Version, repository: Repository) -> Seeds:
    """A function that gives the spreads of a stage's scores over the seeds of one of both."""
    candidates = [a, b, *versions.others(repository, (a, b), [_code_of(one.lock) for one in (a, b)])]

    @cache
    def keys(stage: str) -> list[str]:
        """For each candidate what went into the stage."""
        return [one.lock.but_for_seed(stage) if stage in one.lock.entries else "" for one in candidates]

    def seeds(one: Version, stage: str) -> dict[str, Spread]:
        own = one.lock.but_for_seed(stage)
        alike = [other for other, key in zip(candidates, keys(stage), strict=True) if key == own and other is not one]
        seeded = [(version.lock.seed(stage), version.scores(stage)) for version in (one, *alike)]
        return chance.spreads((seed, scores) for seed, scores in seeded if seed is not None and scores is not None)

    return seeds


def _scores(a: Version, b: Version, seeds: Seeds) -> list[Score]:
    """Every score that one of both has, by stage in the order of the pipeline."""
    found = []
    for stage in dict.fromkeys([*a.measured, *b.measured]):
        if stage in COUNTING:
            continue
        of_a, of_b = a.measured.get(stage, {}), b.measured.get(stage, {})
        spread_a, spread_b = (seeds(one, stage) if stage in one.measured else {} for one in (a, b))
        alike, seed = _alike(a.lock, b.lock, stage), a.lock.seed(stage)
        together = spread_a | spread_b if alike and seed != b.lock.seed(stage) else None
        if alike and together is None and seed is not None:  # it is no seed that parts them: b stands for itself
            spread_b = {name: Spread({seed: of_b[name]}) for name in spread_b if name in of_b}
        for name in dict.fromkeys([*of_a, *of_b]):
            if name.endswith(ENDS) and name.rpartition("_")[0] in {*of_a, *of_b}:
                continue
            ours, theirs = spread_a.get(name), spread_b.get(name)
            judged = None
            if name in of_a and name in of_b:
                judged = chance.judge(ours, theirs) if ours and theirs else Judgement(chance.UNKNOWN)
                if together is not None:  # two runs of one group: whatever they differ by is its spread
                    judged = Judgement(chance.WITHIN, deviation=together[name].deviation) if name in together else judged
            intervals = _interval(of_a, name), _interval(of_b, name)
            found.append(Score(name, of_a.get(name), of_b.get(name), *intervals, ours, theirs, judged))
    return found


def _interval(scores: Mapping[str, float], name: str) -> tuple[float, float] | None:
    low, high = (scores.get(f"{name}{end}") for end in ENDS)
    return None if low is None or high is None else (low, high)


def _data(lock: Lock) -> dict[str, str]:
    """Path → hash of data, models and reports: all but code, settings and locks of packages."""
    inputs = {path: md5 for path, md5 in lock.inputs.items() if not path.startswith(CODE) and path not in (*environment.LOCKS, "conf")}
    return {**inputs, **lock.outs}


def _code_of(lock: Lock) -> dict[str, str]:
    return {path: md5 for path, md5 in lock.inputs.items() if path.startswith(CODE)}


def _code(a: Lock, b: Lock) -> list[Module]:
    found = []
    for path, (before, after) in differing(_code_of(a), _code_of(b)).items():
        what = "new" if before is None else "gone" if after is None else "changed"
        of_a, of_b = a.readers(path), b.readers(path)
        stages = tuple(stage for stage in {**of_a, **of_b} if of_a.get(stage) != of_b.get(stage))
        found.append(Module(path, what, stages))
    return found


def _packages(a: Version, b: Version) -> dict[str, Pairs]:
    """By lock; of a lock that is not known on both sides only that it differs, by its hash."""
    found: dict[str, Pairs] = {}
    for lock in environment.LOCKS:
        hashes = a.lock.inputs.get(lock), b.lock.inputs.get(lock)
        if lock in a.packages and lock in b.packages:
            pairs: Pairs = differing(a.packages[lock], b.packages[lock])
        else:
            pairs = {"its hash (the file itself is not at hand)": hashes} if hashes[0] != hashes[1] else {}
        if pairs:
            found[lock] = pairs
    return found


def _same(made: Sequence[Mapping[str, Fingerprint]], known: Sequence[Fingerprint], both: Sequence[Version]) -> bool | None:
    if len({one.id for one in known}) > 1:
        return False
    complete = all(TRAINED & set(one.lock.entries) <= set(side) for side, one in zip(made, both, strict=True))
    return True if complete and known else None


def _alike(a: Lock, b: Lock, stage: str) -> bool:
    """Whether a stage's results of both differ by their seeds alone, if at all."""
    return stage in a.entries and stage in b.entries and a.but_for_seed(stage) == b.but_for_seed(stage)


def _differ_in_seed_alone(a: Lock, b: Lock) -> bool:
    return _alike(a, b, SCORED) and a.seed(SCORED) != b.seed(SCORED)


def _both(pairs: Pairs) -> dict[str, dict[str, Any]]:
    return {key: {"a": a, "b": b} for key, (a, b) in pairs.items()}


def _score(score: Score) -> dict[str, Any]:
    judged = score.judgement
    return {
        "a": score.a,
        "b": score.b,
        "difference": None if score.a is None or score.b is None else score.b - score.a,
        "interval_a": score.interval_a,
        "interval_b": score.interval_b,
        "seeds_a": score.spread_a.as_dict() if score.spread_a else None,
        "seeds_b": score.spread_b.as_dict() if score.spread_b else None,
        "difference_of_means": judged.change if judged else None,
        "chance": judged.allowed if judged else None,
        "verdict": judged.verdict if judged else None,
    }
