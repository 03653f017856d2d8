"""Why the second run may have parted from the first, likeliest first: what was found before what can only be supposed."""

from collections.abc import Mapping, Sequence

from finetune.proving.certificate import Again, Made, Origin
from finetune.proving.subject import Subject

SHOWN = 6  # differences of two machines in a line

# What the first stage that parts is known for, where nothing else explains it: stage → sentences.
HABITS = {
    "prepare": (
        "an order that is not fixed: a set, a folder listed without sorting (PYTHONHASHSEED is another in each process)",
        "a random draw without the seed, or with the process's own state",
        "raw data that changed after dvc.lock was written",
    ),
    "format": (
        "an order that is not fixed: a set, a folder listed without sorting (PYTHONHASHSEED is another in each process)",
        "results of several processes taken as they come, not in the order of the work",
    ),
    "train": (
        "on a GPU: kernels that add in no fixed order (atomics); on a CPU: another number of threads than `threads` says",
        "something random that the seed does not reach: an initial adapter, dropout, the order of the data",
        "a module or parameter order that comes from a set (PYTHONHASHSEED is another in each process)",
    ),
    "reference": (
        "other batches: what is padded beside a record moves its sums in the last bits",
        "on_policy: sampling whose generator is not seeded for each prompt",
    ),
    "answer": (
        "other batches: what is padded beside a prompt moves its sums in the last bits, and a near tie then falls to another token",
    ),
    "evaluate": (
        "resampling without the seed",
        "a metric of yours that depends on time, order or chance",
    ),
    "export": (
        "a time, path or host in a written file (the model card, a config)",
        "weights merged in another order or type",
    ),
    "report": ("another version of matplotlib or of a font, which the pictures are drawn with",),
}
HABITS["dpo"] = HABITS["train"]


def likely(
    parting: Made,
    subject: Subject,
    packages: Sequence[str],
    origins: Mapping[str, Origin | None] | None,
    again: Again | None,
) -> list[str]:
    """Sentences about the first stage that parts, whose inputs are therefore the same, likeliest first."""
    stage = parting.name
    origin = origins.get(stage) if origins else None
    found = [*_inputs(parting), *_packages(packages)]
    if again in ("as the first", "unlike both"):
        found.append(f"made a third time here, {stage} came out {again}: it is not exact on this very machine")
    if origin is not None and origin.differences:
        found.append(f"the recorded {stage} was made in another environment: {_some(origin.differences)}")
    if again == "as the second":
        found.append(
            f"made a third time here, {stage} came out as the second time: it is exact on this machine, so what was recorded was made on "
            "another one, with other packages, or from files that no commit has"
        )
    if not subject.lock_committed:
        found.append("the dvc.lock that was proved is not committed: what it records may have been made from other files")
    if subject.dirty:
        found.append("uncommitted changes were taken along: they may not be those that the recorded outs were made with")
    if origin is None or origin.environment is None:
        why = _unknown(origin, origins is not None)
        found.append(f"the machine that made the recorded {stage} is not known ({why}): another processor, GPU or library may be all of it")
    if again != "as the second":
        found += [f"what {stage} can do: {habit}" for habit in HABITS.get(stage.partition("@")[0], ())]
    return found


def _inputs(parting: Made) -> list[str]:
    first, second = parting.first, parting.second
    changed = [path for path in sorted({*first.deps, *second.deps}) if first.deps.get(path) != second.deps.get(path)]
    settings = [key for key in sorted({*first.params, *second.params}) if first.params.get(key) != second.params.get(key)]
    lines = []
    if changed:
        lines.append(f"{parting.name} read other files than dvc.lock records: {', '.join(changed)}")
    if settings:
        lines.append(f"{parting.name} had other settings than dvc.lock records: {', '.join(settings)}")
    if first.command != second.command:
        lines.append(f"{parting.name} was started as `{second.command}`, dvc.lock records `{first.command}`")
    return lines


def _packages(packages: Sequence[str]) -> list[str]:
    return [f"this environment is not that of the commit's lock: {_some(packages)}"] if packages else []


def _unknown(origin: Origin | None, asked: bool) -> str:
    if origin is not None:
        return f"its run in MLflow, {origin.run}, has no fingerprint"
    return "MLflow has no run that made it" if asked else "tracking is off, or MLflow could not be asked"


def _some(lines: Sequence[str]) -> str:
    more = f", and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return f"{'; '.join(lines[:SHOWN])}{more}"
