"""What a module imports from this repository, read from the source without running it; and the `deps` of dvc.yaml made from that.

python -m tools.imports            # what differs; exit status 1 when something does
python -m tools.imports --write    # mend dvc.yaml
"""

import ast
import difflib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from finetune import paths

PACKAGES = ("finetune", "stages", "benchmarks", "tools", "tests", "hydra_plugins")
TRACKING = frozenset({"finetune.tracking"})  # determines no result, so no stage depends on it
MARK = "LOADED"  # constant by which a module declares folders whose Python files it loads or runs by path: LOADED = ("stages",)


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml: the module it runs and its body as written; a foreach stage is one, with what it goes through."""

    name: str
    module: str
    body: Mapping[str, Any]
    foreach: Mapping[str, Mapping[str, str]]

    def listed(self, field: str) -> list[str]:
        """The paths or sections under a field; options of a path (`- path: {cache: false}`) are left aside."""
        return [next(iter(item)) if isinstance(item, Mapping) else item for item in self.body.get(field, [])]


def modules(entry: str, root: Path, leave_out: frozenset[str] = frozenset()) -> list[Path]:
    """Files of this repository that importing `entry` and calling what is in it can run, relative to root and sorted.

    Counted: imports inside functions, submodules (`from finetune import paths`), relative imports, __init__.py of each package on the way,
    and the folders declared by LOADED. Not counted: imports under TYPE_CHECKING, which never run, and `leave_out` with what only it uses.
    """
    if _file(entry, root) is None:
        raise ModuleNotFoundError(f"{entry}: no such module in {root.name}/, expected {entry.replace('.', '/')}.py")
    found: set[Path] = set()
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if any(name == out or name.startswith(f"{out}.") for out in leave_out):
            continue
        parents = name.split(".")
        for depth in range(1, len(parents) + 1):
            file = _file(".".join(parents[:depth]), root)
            if file is not None and file not in found:
                found.add(file)
                waiting.extend(_imports(root / file, file, root))
    return sorted(found)


def constant(source: Path, name: str) -> tuple[str, ...]:
    """The tuple of strings that a module assigns to `name`, read without running it; () where there is none."""
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            value = ast.literal_eval(node.value)
            if not isinstance(value, tuple):
                raise ValueError(f"{source.name}: {name} is {value!r}, expected a tuple of strings")
            return value
    return ()


def pipeline(root: Path) -> list[Stage]:
    """The stages of dvc.yaml, in order."""
    declared = YAML().load((root / paths.PIPELINE).read_text(encoding="utf-8"))["stages"]
    bodies = {name: declaration.get("do", declaration) for name, declaration in declared.items()}
    return [Stage(name, _module(body["cmd"]), body, declared[name].get("foreach", {})) for name, body in bodies.items()]


def rewrite(root: Path) -> str:
    """The text of dvc.yaml with each stage's modules, sorted, first under its `deps:`; every other line stays as it is."""
    lines = (root / paths.PIPELINE).read_text(encoding="utf-8").splitlines(keepends=True)
    for stage in reversed(pipeline(root)):  # from the end, so that line numbers above stay true
        deps = stage.body.get("deps")
        if not deps or deps.fa.flow_style():
            raise ValueError(
                f"{paths.PIPELINE}: stages.{stage.name}.deps: expected a list with one entry a line, beginning with any module"
            )
        rows = {path: deps.lc.item(index)[0] for index, path in enumerate(deps)}
        indent = " " * (deps.lc.item(0)[1] - len("- "))
        wanted = [path.as_posix() for path in modules(stage.module, root, TRACKING)]
        block = [lines[rows[path]] if path in rows else f"{indent}- {path}\n" for path in wanted]
        for row in sorted((row for path, row in rows.items() if path.endswith(".py")), reverse=True):
            del lines[row]
        start = stage.body.lc.key("deps")[0] + 1  # type: ignore[attr-defined]  # ruamel's mappings know their lines
        lines[start:start] = block
    return "".join(lines)


def main(write: Annotated[bool, typer.Option("--write", help="Mend dvc.yaml instead of showing what differs.")] = False) -> None:
    """Compare the modules that dvc.yaml lists for each stage with those that the stage imports."""
    root = Path.cwd()
    old, new = (root / paths.PIPELINE).read_text(encoding="utf-8"), rewrite(root)
    if old == new:
        print(f"{paths.PIPELINE}: the deps of {len(pipeline(root))} stages are the modules they import")
    elif write:
        (root / paths.PIPELINE).write_text(new, encoding="utf-8")
        print(f"{paths.PIPELINE}: wrote the modules that {len(pipeline(root))} stages import")
    else:
        was, wanted = old.splitlines(keepends=True), new.splitlines(keepends=True)
        sys.stdout.writelines(difflib.unified_diff(was, wanted, paths.PIPELINE.name, "what the stages import"))
        sys.exit("dvc.yaml lists other modules than the stages import; run `python -m tools.imports --write`")


def _module(command: str) -> str:
    """`stages.train` from `${launch.command} -m stages.train`."""
    named = re.search(r"-m (stages\.\w+)", command)
    if named is None:
        raise ValueError(f"{paths.PIPELINE}: found the command {command!r}, expected one with `-m stages.<name>`")
    return named[1]


def _file(name: str, root: Path) -> Path | None:
    """The file of a module or package of this repository; None for folders without __init__.py and for everything else."""
    if name.split(".")[0] not in PACKAGES:
        return None
    path = Path(*name.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((candidate for candidate in candidates if (root / candidate).is_file()), None)


def _imports(source: Path, file: Path, root: Path) -> Iterator[str]:
    """Dotted names that a file imports; of `from a import b` both `a` and `a.b`, which may be a module."""
    tree = ast.parse(source.read_text(encoding="utf-8"), filename=file.as_posix())
    for node in _running(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = [*file.parts[: -node.level]] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
    for folder in constant(source, MARK):
        names = [path.relative_to(root).with_suffix("") for path in (root / folder).rglob("*.py")]
        if not names:
            raise FileNotFoundError(f"{file}: {MARK} names {folder!r}, expected a folder with Python files")
        yield from (".".join(name.parts) for name in names)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, but for what stands under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from _running(other)
        else:
            yield child
            yield from _running(child)


if __name__ == "__main__":
    typer.run(main)
