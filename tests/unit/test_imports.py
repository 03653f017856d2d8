"""The modules that a stage uses are found by reading the source, and dvc.yaml is rewritten with them and nothing else changed."""

from pathlib import Path

import pytest

from tools.imports import TRACKING, modules, pipeline, rewrite

PIPELINE = """\
# kept
stages:
  one:  # kept too
    cmd: python -m stages.one
    deps:
      - finetune/gone.py
      # why the data is read
      - data/raw  # kept as well
    params:
      - seed

  each:
    foreach:
      base: {}
    do:
      cmd: ${launch.command} -m stages.two which=${key}
      deps:
        - stages/two.py  # in place
        - data/prepared
      outs:
        - models/${key}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small repository with two stages."""
    write(tmp_path, "dvc.yaml", PIPELINE)
    write(tmp_path, "finetune/__init__.py")
    write(tmp_path, "finetune/paths.py")
    write(tmp_path, "finetune/data/__init__.py")
    write(tmp_path, "finetune/data/records.py")
    write(tmp_path, "finetune/tracking/__init__.py", "from finetune.tracking import send\n")
    write(tmp_path, "finetune/tracking/send.py", "import finetune.spool\n")
    write(tmp_path, "finetune/spool.py")
    write(tmp_path, "stages/one.py", "from finetune import tracking, paths\n")
    write(tmp_path, "stages/two.py", "import torch\n")
    return tmp_path


def write(root: Path, name: str, text: str = "") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def found(root: Path, text: str, leave_out: frozenset[str] = frozenset()) -> set[str]:
    """What a module with this text uses, itself left aside."""
    write(root, "stages/entry.py", text)
    return {path.as_posix() for path in modules("stages.entry", root, leave_out)} - {"stages/entry.py"}


def test_packages_on_the_way_are_used(root: Path) -> None:
    assert found(root, "import finetune.data.records") == {"finetune/__init__.py", "finetune/data/__init__.py", "finetune/data/records.py"}


def test_a_submodule_imported_by_name_is_told_from_a_name(root: Path) -> None:
    write(root, "finetune/paths.py", "records = 1\n")
    assert "finetune/data/records.py" in found(root, "from finetune.data import records")
    assert "finetune/data/records.py" not in found(root, "from finetune.paths import records")


def test_imports_inside_functions_count(root: Path) -> None:
    assert "finetune/paths.py" in found(root, "def later():\n    from finetune import paths\n")


def test_imports_that_never_run_do_not_count(root: Path) -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import finetune.paths\nelse:\n    import finetune.spool\n"
    assert found(root, text) == {"finetune/__init__.py", "finetune/spool.py"}


def test_relative_imports_are_followed_from_modules_and_packages(root: Path) -> None:
    write(root, "finetune/data/records.py", "from .. import paths\nfrom ..spool import name\n")
    write(root, "finetune/data/__init__.py", "from . import records\n")
    assert {"finetune/data/records.py", "finetune/paths.py", "finetune/spool.py"} <= found(root, "import finetune.data")


def test_what_only_tracking_imports_is_left_out_with_it(root: Path) -> None:
    assert found(root, "from finetune import tracking, paths", TRACKING) == {"finetune/__init__.py", "finetune/paths.py"}
    assert "finetune/spool.py" in found(root, "from finetune import tracking\nimport finetune.spool", TRACKING)


def test_a_declared_folder_is_used_with_what_its_files_import(root: Path) -> None:
    write(root, "finetune/metrics/exact.py", "import finetune.spool\n")
    assert {"finetune/metrics/exact.py", "finetune/spool.py"} <= found(root, 'LOADED = ("finetune/metrics",)')
    with pytest.raises(FileNotFoundError, match=r"stages/entry.py: LOADED names 'finetune/nothing'"):
        found(root, 'LOADED = ("finetune/nothing",)')


def test_circles_end(root: Path) -> None:
    write(root, "finetune/paths.py", "import finetune.spool\n")
    write(root, "finetune/spool.py", "import finetune.paths\n")
    assert found(root, "import finetune.paths") == {"finetune/__init__.py", "finetune/paths.py", "finetune/spool.py"}


def test_a_module_that_is_not_there_is_refused(root: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"expected stages/three.py"):
        modules("stages.three", root)


def test_stages_are_known_by_their_commands(root: Path) -> None:
    assert [(stage.name, stage.module) for stage in pipeline(root)] == [("one", "stages.one"), ("each", "stages.two")]


def test_rewriting_changes_the_modules_and_nothing_else(root: Path) -> None:
    old, new = PIPELINE.splitlines(), rewrite(root).splitlines()
    assert [line for line in old if line not in new] == ["      - finetune/gone.py"]
    assert [line for line in new if line not in old] == [
        "      - finetune/__init__.py",
        "      - finetune/paths.py",
        "      - stages/one.py",
    ]
    assert new[new.index("    deps:") + 1] == "      - finetune/__init__.py"


def test_rewriting_twice_is_rewriting_once(root: Path) -> None:
    (root / "dvc.yaml").write_text(rewrite(root))
    assert rewrite(root) == (root / "dvc.yaml").read_text()


def test_deps_that_are_not_a_list_of_lines_are_refused(root: Path) -> None:
    write(root, "dvc.yaml", "stages:\n  one:\n    cmd: python -m stages.one\n    deps: [data/raw]\n")
    with pytest.raises(ValueError, match=r"stages.one.deps: expected a list with one entry a line"):
        rewrite(root)
