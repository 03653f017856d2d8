"""Whether dvc.lock is of what lies here: else commit and settings, as they are now, are not those that the models were made from.

DVC sees to that before it runs a stage, but `dvc repro -s report` looks at no other stage, and what one run made from changed files
stays in dvc.lock when the change is taken back.
"""

from collections.abc import Mapping
from pathlib import Path

from pathspec import GitIgnoreSpec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from finetune import locks, paths
from finetune.tracking import commands, hashes

IGNORED = Path(".dvcignore")
ASKING = "report"
UNREADABLE = (YAMLError, AttributeError, KeyError, TypeError, ValueError)  # of what is no dvc.yaml or params.yaml


def names(lock: str) -> list[str]:
    """What was otherwise when the models were made, sorted: `params.yaml:train`, a module, an out that was read before it was made anew.

    `dvc.yaml:train` is a command: that of train has the number of processes, which decides the result. Left aside are stages that made
    nothing, those that dvc.yaml has no more, whose entries DVC keeps, data/raw, which is told by what of it was read, and commands that
    need more than params.yaml.
    """
    yaml = YAML(typ="safe")  # DVC's own, of YAML 1.2: `no` is a word there, and 2e-05 a number
    try:
        entries, pipeline, settings = (yaml.load(text) for text in (lock, paths.PIPELINE, paths.PARAMS))
        ran_as = commands.of(pipeline["stages"], settings)
    except UNREADABLE:  # changed while the pipeline ran, so that DVC itself could not read them
        return [str(paths.PIPELINE), str(paths.PARAMS)]
    stages = {name: stage for name, stage in locks.stages(lock).items() if stage.outs and name != ASKING and name in ran_as}
    outs = {path: md5 for stage in stages.values() for path, md5 in stage.outs.items()}
    read = {(path, md5) for stage in stages.values() for path, md5 in stage.deps.items() if path != paths.RAW.as_posix()}
    ran = [(key, value) for name in stages for key, value in entries["stages"][name].get("params", {}).get(str(paths.PARAMS), {}).items()]
    return sorted(
        {f"{paths.PIPELINE}:{name}" for name, stage in stages.items() if stage.command != ran_as[name] and commands.whole(ran_as[name])}
        | {f"{paths.PARAMS}:{key}" for key, value in ran if commands.setting(settings, key) != value}
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
