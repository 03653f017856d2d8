"""Whether dvc.lock is of what lies here: else commit and settings, as they are now, are not those that the models were made from.

DVC sees to that before it runs a stage, but `dvc repro -s report` looks at no other stage, and what one run made from changed files
stays in dvc.lock when the change is taken back.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from pathspec import GitIgnoreSpec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from finetune import locks, paths
from finetune.tracking import hashes

PIPELINE = Path("dvc.yaml")
IGNORED = Path(".dvcignore")
ASKING = "report"
UNREADABLE = (YAMLError, AttributeError, KeyError, TypeError, ValueError)  # of what is no dvc.yaml or params.yaml
PLACE = re.compile(r"\$\{\s*([^}\s]+)\s*\}")  # `${launch.command}`


def names(lock: str) -> list[str]:
    """What was otherwise when the models were made, sorted: `params.yaml:train`, a module, an out that was read before it was made anew.

    `dvc.yaml:train` is a command: that of train has the number of processes, which decides the result. Left aside are stages that made
    nothing, those that dvc.yaml has no more, whose entries DVC keeps, data/raw, which is told by what of it was read, and commands that
    need more than params.yaml.
    """
    yaml = YAML(typ="safe")  # DVC's own, of YAML 1.2: `no` is a word there, and 2e-05 a number
    try:
        entries, pipeline, settings = (yaml.load(text) for text in (lock, PIPELINE, paths.PARAMS))
        commands = _commands(pipeline["stages"], settings)
    except UNREADABLE:  # changed while the pipeline ran, so that DVC itself could not read them
        return [str(PIPELINE), str(paths.PARAMS)]
    stages = {name: stage for name, stage in locks.stages(lock).items() if stage.outs and name != ASKING and name in commands}
    outs = {path: md5 for stage in stages.values() for path, md5 in stage.outs.items()}
    read = {(path, md5) for stage in stages.values() for path, md5 in stage.deps.items() if path != paths.RAW.as_posix()}
    ran = [(key, value) for name in stages for key, value in entries["stages"][name].get("params", {}).get(str(paths.PARAMS), {}).items()]
    return sorted(
        {f"{PIPELINE}:{name}" for name, stage in stages.items() if stage.command != commands[name] and not PLACE.search(commands[name])}
        | {f"{paths.PARAMS}:{key}" for key, value in ran if _at(settings, key) != value}
        | {path for path, md5 in read if (outs[path] != md5 if path in outs else not _here(path, md5, outs))}
        | {path for path, md5 in outs.items() if not md5.endswith(".dir") and not _here(path, md5, outs)}
    )


def same(path: Path, md5: str) -> bool:
    """Whether a file or folder has the bytes of a hash of DVC's."""
    if not path.is_dir():
        return path.is_file() and hashes.md5(path) == md5
    return folder(path) == md5


def folder(path: Path, root: Path = Path()) -> str:
    """DVC's md5 of a folder, computed without what the repository's .dvcignore names: DVC doesn't see that."""
    file = root / IGNORED
    spec = GitIgnoreSpec.from_lines(file.read_text(encoding="utf-8").splitlines() if file.is_file() else [])
    above = path.relative_to(root).parts if path.is_relative_to(root) else ()

    def ignored(parts: tuple[str, ...]) -> bool:
        whole = (*above, *parts)
        folders = ["/".join(whole[:end]) + "/" for end in range(1, len(whole))]  # `!` brings nothing back out of a folder that is ignored
        return any(map(spec.match_file, [*folders, "/".join(whole)]))

    return hashes.folder(path, ignored)


def _here(path: str, md5: str, outs: Mapping[str, str]) -> bool:
    """Whether these bytes lie here. What a stage makes may be in the cache alone; then nothing speaks against it."""
    if not Path(path).exists() and any(locks.overlap(path, out) for out in outs):
        return True
    return same(Path(path), md5)


def _commands(declared: Mapping[str, Any], settings: dict[str, Any]) -> dict[str, str]:
    """Stage → its command in dvc.yaml with the settings in it; `answer@base` and so on of a stage that goes through some.

    What is not in the settings, as the `vars` of dvc.yaml, stays `${…}`; a stage that goes through that is left out.
    """
    found = {}
    for name, stage in declared.items():
        command = stage.get("do", stage).get("cmd")
        for key, item in _through(stage, settings).items():
            fill = partial(PLACE.sub, partial(_value, {**settings, "key": key, "item": item}))
            found[f"{name}@{key}" if key else name] = str([*map(fill, command)]) if isinstance(command, list) else fill(str(command))
    return found


def _through(stage: Mapping[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Key → item of each stage that DVC makes of one with `foreach` or `matrix`; of any other "" alone."""
    if "foreach" in stage:
        items = _resolved(stage["foreach"], settings)
        return {_text(key): item for key, item in items.items()} if isinstance(items, dict) else dict(_keyed(items))
    if "matrix" in stage:
        axes = _resolved(stage["matrix"], settings)
        if not isinstance(axes, dict):
            return {}
        chosen = [[(key, axis, value) for key, value in _keyed(values, axis)] for axis, values in axes.items()]
        return {"-".join(key for key, _, _ in each): {axis: value for _, axis, value in each} for each in product(*chosen)}
    return {"": None}


def _keyed(items: Any, axis: str = "") -> Iterator[tuple[str, Any]]:
    """What DVC calls each item of a list, and the item: by its value, or by its place in the list; none of what is not known."""
    known = items if isinstance(items, list) else []
    nested = [isinstance(item, dict | list) for item in known]
    for place, item in enumerate(known):
        by_place = nested[place] if axis else any(nested)  # `matrix` looks at each value, `foreach` at all
        yield f"{axis}{place}" if by_place else _text(item), item


def _resolved(value: Any, settings: dict[str, Any]) -> Any:
    """A value of dvc.yaml with those of the settings in it, of whatever type where one stands alone."""
    match value:
        case dict():
            return {key: _resolved(item, settings) for key, item in value.items()}
        case list():
            return [_resolved(item, settings) for item in value]
        case str() if (alone := PLACE.fullmatch(value)) and (found := _at(settings, alone[1])) is not None:
            return found
        case str():
            return PLACE.sub(partial(_value, settings), value)
    return value


def _value(known: dict[str, Any], place: re.Match[str]) -> str:
    """What DVC writes in its place; the place as it stands, where that is not known."""
    value = _at(known, place[1])
    return place[0] if value is None or isinstance(value, dict | list) else _text(value)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _at(values: Any, key: str) -> Any:
    """The value of `train`, `train.r` or `seeds[0]`; None where there is none."""
    for part in key.replace("[", ".").replace("]", "").split("."):
        if isinstance(values, list):
            values = dict(zip(map(str, range(len(values))), values, strict=True))
        values = values.get(part) if isinstance(values, dict) else None
    return values
