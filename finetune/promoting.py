"""Making a model version the champion: refused unless it passed its gates, can be made again, and is wholly there."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from finetune import paths
from finetune.errors import PromotionError
from finetune.lineage import ancestry, cache
from finetune.lineage.ancestry import Ancestry
from finetune.lineage.records import Records, Version

CHAMPION = "champion"
EXPORT = paths.EXPORT.as_posix()
AGAIN = "then `dvc repro -sf report`, which has the same bytes registered with the new evidence"
SHOWN = 3  # files named of each kind


def promote(version: Version, records: Records, uri: str, root: Path, without_gates: bool) -> str:
    """Point the alias `champion` at a version, tag it with how that came, and return the sentence to print.

    Raises:
        PromotionError: with everything that is against it.
    """
    known = ancestry.of(version, version.name, records, root)
    against = refusals(known, version, root, without_gates)
    if against:
        raise PromotionError(f"{version.name} can't be promoted:", against)
    before = records.aliases(version.model).get(CHAMPION)
    from mlflow.tracking import MlflowClient  # 2 s, and only who is promoted pays them

    client = MlflowClient(uri)
    told = {"promoted.at": datetime.now(UTC).isoformat(timespec="seconds"), "promoted.gates": str(known.gates)}
    if before is not None and before != version.number:
        told["promoted.instead_of"] = f"{version.model}/{before}"
    for key, text in told.items():
        client.set_model_version_tag(version.model, str(version.number), key, text)
    client.set_registered_model_alias(version.model, CHAMPION, str(version.number))
    instead = f", instead of {told['promoted.instead_of']}" if "promoted.instead_of" in told else ""
    return f"{version.name} is {version.model}@{CHAMPION} now{instead}"


def refusals(known: Ancestry, version: Version, root: Path, without_gates: bool) -> list[str]:
    """Everything that is against promoting a version, each with what to do about it."""
    return [*_gates(known, version, without_gates), *_commit(known), *_made(known), *_bytes(known, root)]


def _gates(known: Ancestry, version: Version, without_gates: bool) -> list[str]:
    if known.gates == "failed":
        return [f"gate {failed}; train a better one, or change evaluate.gates" for failed in version.tags["gates.failed"].split("; ")]
    if known.gates is None:
        return ["gates: found no verdict, because the run could not say all of what it came from; `dvc repro -sf report` has it told again"]
    if known.gates == "none" and not without_gates:
        return ["gates: found none, expected some to judge it by; set evaluate.gates and run again, or say --without-gates, which is noted"]
    if known.gates == "passed" and known.gates_differs:
        changed = f"gates: found them passed with changes in {_some(known.gates_differs)}"
        return [f"{changed}, expected what judges as committed; commit it, or take it back, and run again"]
    return []


def _commit(known: Ancestry) -> list[str]:
    """What of the run's tree is in no commit that git keeps."""
    if known.commit is None:
        return ["commit: found none, the run was made outside of git; run it in a repository"]
    problems = []
    if known.untracked:
        problems.append(f"untracked: found {_some(known.untracked)} in neither git nor DVC; `git add` or `dvc add` them, commit, {AGAIN}")
    if known.differs:
        saved = known.experiment_commit
        if saved is None or not saved.here:
            problems.append(f"tree: found changes in {_some(known.differs)}, expected it as committed; commit them, {AGAIN}")
        elif not saved.kept_by:
            keep = f"`dvc exp branch {known.experiment} {known.experiment}` keeps DVC's commit {saved.sha[:12]}, which has them"
            problems.append(f"tree: found changes in {_some(known.differs)} that are on no branch; {keep}, then promote again")
    elif not known.commit.here:
        problems.append(f"commit: found no {known.commit.sha[:12]} in this repository; `git fetch` it, then promote again")
    elif not known.commit.kept_by:
        problems.append(
            f"commit: found {known.commit.sha[:12]} on no branch or tag, so git will lose it; `git branch NAME {known.commit.sha[:12]}`"
        )
    return problems


def _made(known: Ancestry) -> list[str]:
    """What the models were made from otherwise than commit and settings tell."""
    problems = []
    if known.settings_sha256 is None:
        problems.append("settings: found no hash of them, because the run could not say all of what it came from; `dvc repro -sf report`")
    if known.outdated:
        found = f"made from: found other {_some(known.outdated)} in dvc.lock than the run had at its end, so its commit makes other models"
        problems.append(f"{found}; `dvc repro` makes what is committed, or commit what they were made from, {AGAIN}")
    if known.data_changed:
        problems.append("data/raw: found other files than prepare read; `dvc repro` reads these, or put those back, " + AGAIN)
    return problems


def _bytes(known: Ancestry, root: Path) -> list[str]:
    """What DVC's cache lacks of the stages' outs."""
    outs = {path: md5 for made in known.stages for path, md5 in made.writes.items()}
    if not outs:
        found = "outs: found no dvc.lock among the run's artifacts, expected the hashes of all that it made"
        return [f"{found}; `mlflow runs restore --run-id {known.run}` if the run was deleted" if known.status is None else found]
    if known.export is not None and outs.get(EXPORT) != known.export:
        return [f"{EXPORT}: found {outs.get(EXPORT)} in the run's dvc.lock, expected {known.export}, the version's; register it anew"]
    here = cache.folder(root)
    gone = cache.missing(here, outs)
    problems = [f"outs: found no {_some(gone)} in DVC's cache; `dvc pull`, or make them again: {_again(known)}"] if gone else []
    if spoiled := cache.spoiled(here, EXPORT, outs[EXPORT]):
        problems.append(f"{EXPORT}: found other bytes in DVC's cache than recorded: {_some(spoiled)}; delete them there, then `dvc pull`")
    return problems


def _again(known: Ancestry) -> str:
    """What brings the outs of a run back into this cache; `finetune reproduce` leaves nothing behind."""
    saved, commit = known.experiment_commit, known.commit
    source = saved if known.differs and saved is not None else commit
    return f"`git checkout {source.sha[:12]} && dvc repro`" if source is not None else "`dvc repro` of what it was made from"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
