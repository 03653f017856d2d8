"""reports/certificate.md: what a proof found, for a person."""

from collections.abc import Iterable, Sequence
from typing import Any

from finetune.proving.certificate import Certificate, Made, Origin
from finetune.proving.losses import Losses

HASH = 12  # digits of a hash that are shown


def write(certificate: Certificate) -> str:
    """Return the page as Markdown."""
    parts = [_head(certificate), _outs(certificate)]
    if certificate.losses:
        parts += ["## Every step", *(_steps(name, losses) for name, losses in certificate.losses.items())]
    if not certificate.same:
        parts += ["## Where they part", *(_parting(stage) for stage in certificate.parting)]
        parts += ["## Why, likeliest first", "\n".join(f"{number}. {cause}" for number, cause in enumerate(certificate.causes, 1))]
    parts += ["## Made from what", _sources(certificate), "## Made where", _machine(certificate)]
    return "\n\n".join(parts) + "\n"


def _head(certificate: Certificate) -> str:
    names = [f"`{stage.name}`" for stage in certificate.stages]
    what = "The whole pipeline was" if certificate.whole else f"{', '.join(names)} {'was' if len(names) == 1 else 'were'}"
    outs = sum(len(stage.first.outs) for stage in certificate.stages)
    made = f"{what} made again in a clean clone without cache, from {certificate.subject}."
    if certificate.same:
        return f"# The same bytes again\n\n{made} All {outs} outs have the bytes that dvc.lock records."
    parting = sum(len(stage.parting) for stage in certificate.stages)
    first = certificate.parting[0].name
    return f"# Not the same bytes\n\n{made} {parting} of {outs} outs are not as dvc.lock records; the first stage that parts is `{first}`."


def _outs(certificate: Certificate) -> str:
    rows = [
        (
            stage.name,
            f"`{out}`",
            _hash(stage.first.outs.get(out)),
            _hash(stage.second.outs.get(out)),
            "no" if out in stage.parting else "yes",
        )
        for stage in certificate.stages
        for out in sorted({*stage.first.outs, *stage.second.outs})
    ]
    return _table(("stage", "out", "first", "second", "same"), rows)


def _steps(name: str, losses: Losses) -> str:
    if losses.first_steps is None:
        return f"{name}: {losses.steps:,} steps; those of the first run can't be had, so there is nothing to compare them with."
    if losses.same:
        return f"{name}: {losses.steps:,} steps, every number of each the same, bit for bit."
    largest = "" if losses.largest_loss is None else f" The losses of one step are {losses.largest_loss:.3g} apart at most."
    return f"{name}: parts at step {losses.parted_at} of {losses.steps:,}: {losses.number} {losses.first} → {losses.second}.{largest}"


def _parting(stage: Made) -> str:
    lines = [f"`{stage.name}`:", "", *(f"- `{found.file}`: {found.sentence(_value)}" for found in stage.differences)]
    lines += [f"- `{out}`: the first run's bytes can't be had, neither in the folder nor in DVC's cache" for out in stage.unread]
    return "\n".join(lines)


def _sources(certificate: Certificate) -> str:
    subject = certificate.subject
    rows: list[tuple[str, Any]] = [("commit", f"`{subject.commit}`")]
    if subject.experiment is not None:
        rows.append(("experiment", f"{subject.experiment.name}, on `{subject.experiment.baseline}`"))
    rows.append(("dvc.lock, sha256", f"`{subject.lock_sha256}`" + ("" if subject.lock_committed else ", not committed")))
    if certificate.lock is not None:
        rows.append((f"{certificate.lock['name']}, sha256", f"`{certificate.lock['sha256']}`"))
    if subject.dirty:
        rows.append(("uncommitted changes, sha256", f"`{subject.patch_sha256}`" if subject.patch else "none of tracked files"))
        rows += [("new file", f"`{name}`") for name in subject.untracked]
    rows += [("in no commit, md5", f"`{name}` `{md5}`") for name, md5 in certificate.brought.items()]
    rows += [("not the lock's package", line) for line in certificate.packages]
    return _table(("", ""), rows)


def _machine(certificate: Certificate) -> str:
    packages = certificate.fingerprint.libraries
    rows = [("environment", f"`{certificate.fingerprint.id}`")]
    rows += [(name, value) for name, value in certificate.fingerprint.lines().items() if name not in packages]
    rows.append(("packages", ", ".join(f"{name} {version}" for name, version in packages.items())))
    total = sum(certificate.seconds.values())
    rows.append(("seconds", f"{total:.0f}: " + ", ".join(f"{name} {value:.0f}" for name, value in certificate.seconds.items())))
    if certificate.origins is None:
        rows.append(("who made the first", "not known: tracking is off, or MLflow could not be asked"))
    else:
        known = {name: origin for name, origin in certificate.origins.items() if origin is not None}
        rows += [(f"first {name}", f"run {origin.name} (`{origin.run}`), {_environment(origin)}") for name, origin in known.items()]
        if unknown := [name for name in certificate.origins if name not in known]:
            rows.append(("first " + ", ".join(unknown), "not known to MLflow"))
    return _table(("", ""), rows)


def _environment(origin: Origin) -> str:
    if origin.environment is None:
        return "of before runs had a fingerprint"
    return f"environment `{origin.environment}`" + (f", which differs: {'; '.join(origin.differences)}" if origin.differences else "")


def _hash(md5: str | None) -> str:
    return "nothing" if md5 is None else f"`{md5[:HASH]}`"


def _value(text: str | None) -> str:
    """A value that can't be taken for markup."""
    return "nothing" if text is None else "`" + text.replace("`", "'").replace("\n", " ") + "`"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in lines)
