"""Lineage as a tree on the terminal."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.tree import Tree

from finetune.lineage.ancestry import Ancestry, Made
from finetune.lineage.commits import Commit
from finetune.lineage.offspring import Offspring

SHORT = 12  # digits of a hash; --json has them all
LISTED = 20  # models of one file; --json has them all
UNKNOWN = "[dim]not known[/dim]"


def ancestry(found: Ancestry) -> Tree:
    """Version, run, commit, settings, data, base, environment and stages of a model."""
    tree = Tree(_head(found), guide_style="dim")
    tree.add(f"[b]run[/b] {_run(found)}")
    for name in found.same_bytes:
        tree.add(f"[b]the same bytes[/b] came out of run {escape(name)}")
    if found.gates_run not in (None, found.run):
        differs = f" [yellow]with changes in {escape(_some(found.gates_differs))}[/yellow]" if found.gates_differs else ""
        tree.add(f"[b]gates[/b] {found.gates}, by run {found.gates_run}{differs}")
    _commit(tree, found)
    if found.outdated:
        tree.add(f"[yellow]the models were made with other {escape(_some(found.outdated))} than commit and settings tell[/yellow]")
    values = f", {len(found.settings)} values (--json lists them)" if found.settings else ""
    tree.add(f"[b]settings[/b] sha256 {_short(found.settings_sha256)}{values}")
    _data(tree, found)
    base = found.base
    pinned = "".join(
        f", {key} {escape(base[key][:SHORT] if key == 'sha256' else base[key])}" for key in ("revision", "sha256") if key in base
    )
    tree.add(f"[b]base model[/b] {escape(base.get('path', '')) or UNKNOWN}{pinned}")
    environment = tree.add(f"[b]environment[/b] {_short(found.environment)}")
    for key, text in found.environment_fields.items():
        environment.add(f"{escape(key)}: {escape(text)}")
    stages = tree.add("[b]stages[/b]" if found.stages else f"[b]stages[/b] {UNKNOWN}")
    for made in found.stages:
        _stage(stages, made, found)
    return tree


def offspring(found: Offspring) -> Tree:
    """The models of a file, newest first."""
    also = "" if found.known_as == found.name else f", known as {escape(found.known_as)}"
    did = "was read for" if found.read else "was made on the way to"
    tree = Tree(f"[b]{escape(found.name)}[/b]{also}: {did} {_count(len(found.models), 'model version')}", guide_style="dim")
    for model in found.models[:LISTED]:
        runs = ", ".join(model.runs[:3]) + (f" and {len(model.runs) - 3} more" if len(model.runs) > 3 else "")
        gone = " [yellow](deleted from MLflow)[/yellow]" * model.deleted
        name = f"[b]{escape(model.version)}[/b]{_aliases(model.aliases)}"
        tree.add(f"{name}  {_time(model.started)}  run {escape(runs)}{gone}  commit {_short(model.commit)}")
    if len(found.models) > LISTED:
        tree.add(f"… and {len(found.models) - LISTED} older ones (--json lists them)")
    if found.without_model:
        shown = ", ".join(found.without_model[:3])
        tree.add(
            f"{_count(len(found.without_model), 'run')} that came to no version: {escape(shown)}{' …' * (len(found.without_model) > 3)}"
        )
    return tree


def _head(found: Ancestry) -> str:
    if found.version is None:
        return f"[b]{escape(found.asked)}[/b]: came to no model version"
    model = found.version.rpartition("/")[0]
    asked = "" if found.asked in (found.version, *(f"{model}@{alias}" for alias in found.aliases)) else f", of {escape(found.asked)}"
    name = f"[b]{escape(found.version)}[/b]{_aliases(found.aliases)}{asked}"
    return f"{name}: export {_short(found.export)}, gates: {found.gates or 'not known'}"


def _run(found: Ancestry) -> str:
    if found.run is None:
        return UNKNOWN
    gone = " [yellow](deleted from MLflow; what follows is told by the version)[/yellow]" if found.status is None else ""
    told = f"  {_time(found.started)}  {str(found.status).lower()}" if found.started is not None else ""
    return f"{escape(found.run_name or '')} ({found.run}){told}{gone}"


def _commit(tree: Tree, found: Ancestry) -> None:
    if found.commit is None:
        tree.add(f"[b]commit[/b] {UNKNOWN}")
        return
    branch = tree.add(f"[b]commit[/b] {_at(found.commit)}")
    if found.differs:
        branch.add(f"with changes in {escape(_some(found.differs))}, kept as uncommitted.diff of the run")
    if found.untracked:
        branch.add(f"[yellow]with files that neither git nor DVC had: {escape(_some(found.untracked))}[/yellow]")
    if found.experiment_commit is not None:
        branch.add(f"experiment {escape(found.experiment or '')}: DVC's commit {_at(found.experiment_commit)}")
    elif found.experiment is not None:
        branch.add(f"experiment {escape(found.experiment)}: DVC's commit of it is not known")


def _at(commit: Commit) -> str:
    if not commit.here:
        return f"{commit.sha} [yellow](not in this repository)[/yellow]"
    kept = f"on {', '.join(commit.kept_by)}" if commit.kept_by else "on no branch or tag"
    return f"{commit.sha[:SHORT]} {escape(commit.subject)} [dim]({escape(kept)})[/dim]"


def _data(tree: Tree, found: Ancestry) -> None:
    branch = tree.add("[b]data[/b]" if found.data else f"[b]data[/b] {UNKNOWN}")
    for name, facts in found.data.items():
        branch.add(f"{escape(name)}  {escape('  '.join(_facts(facts)))}")
    if found.data_changed:
        branch.add("[yellow]files of data/raw changed while the pipeline ran: these are the hashes at its end[/yellow]")


def _facts(facts: Mapping[str, Any]) -> Iterable[str]:
    if "package" in facts:
        yield f"{facts['package']} {facts['version']}"
    if "revision" in facts:
        yield f"revision {facts['revision']}, split {facts['split']}"
    for kind in ("md5", "sha256"):
        if kind in facts:
            yield f"{kind} {facts[kind][:SHORT]}"
    if "bytes" in facts:
        yield f"{facts['bytes']:,} bytes"


def _stage(tree: Tree, made: Made, found: Ancestry) -> None:
    if made.run is None:
        by = "made where MLflow did not hear of it"
    else:
        another = f"run {escape(made.pipeline)}" if made.pipeline is not None else "a run that was deleted since"
        whose = "this run" if made.pipeline_run == found.run else another
        by = f"by {whose} ({made.run[:SHORT]}, {_time(made.started)})"
        if made.environment and found.environment and made.environment != found.environment:
            by += f" [yellow]in another environment, {made.environment}[/yellow]"
    branch = tree.add(f"[b]{escape(made.stage)}[/b]  {by}")
    if made.reads:
        branch.add(f"← {_files(made.reads)}")
    if made.writes:
        branch.add(f"→ {_files(made.writes)}")


def _files(files: Mapping[str, str]) -> str:
    return ", ".join(f"{escape(path)} [dim]{_short(md5)}[/dim]" for path, md5 in files.items())


def _aliases(aliases: Sequence[str]) -> str:
    return "".join(f" [green]@{escape(alias)}[/green]" for alias in aliases)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _short(digest: str | None) -> str:
    return digest[:SHORT] if digest else UNKNOWN


def _time(milliseconds: int | None) -> str:
    return UNKNOWN if milliseconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(milliseconds / 1000))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
