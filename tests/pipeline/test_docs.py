"""What README and docs say is so: the tree, the targets, the overrides, the links."""

import itertools
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT, Compose

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "data").rglob("*.md")])


def tracked() -> set[str]:
    """Tracked and new files, and the folders that they are in."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    files = {name for name in listed.stdout.decode().split("\0") if name}
    return files | {parent.as_posix() for name in files for parent in Path(name).parents}


def test_the_tree_in_the_readme_is_the_tree() -> None:
    tree = re.search(r"## The tree\n+```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert tree is not None
    named, folder = set(), ""
    for line in tree[1].splitlines():
        indent, words = len(line) - len(line.lstrip()), line.split("  ")
        names = next(word for word in words if word.strip()).split()
        if indent == 0 and len(names) == 1 and names[0].endswith("/"):
            folder = names[0]
            named.add(folder.rstrip("/"))
        else:
            named.update(((folder if indent else "") + name).rstrip("/") for name in names)
    present = tracked()
    made_by_a_run = {"models", "reports"}
    assert len(named) >= 25
    assert named - present - made_by_a_run == set()
    top = {name for name in present if "/" not in name and name != "." and not name.startswith(".git")}
    assert top - {name.split("/")[0] for name in named} == set()


def test_every_target_named_in_the_docs_exists() -> None:
    targets = set(re.findall(r"^([\w%-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"(?:^|`)make ([a-z][\w-]*)", page.read_text(), re.MULTILINE)}
    assert len(named) >= 6
    assert {target for target in named if target not in targets and not (target.startswith("figure-") and "figure-%" in targets)} == set()


def test_every_override_shown_in_the_docs_composes(compose: Compose) -> None:
    shown = 0
    for page in PAGES:
        for line in re.findall(r"dvc exp run [^\n`|)]*", page.read_text()):
            words = shlex.split(line.split("#")[0].split("&&")[0])
            overrides = [after for before, after in itertools.pairwise(words) if before in ("-S", "--set-param")]
            if any(mark in override for override in overrides for mark in ",<…") or "=0" in line:
                continue  # a sweep, a placeholder, or the example of what is refused
            compose(*overrides)
            shown += bool(overrides)
    assert shown >= 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), f"{page.relative_to(ROOT)}: {link}"


def test_the_changelog_speaks_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[(Unreleased|{re.escape(version)})\]", text, re.MULTILINE)


def test_nothing_of_a_machine_is_committed() -> None:
    pattern = re.compile(r"(?<![\w.~}])/(?:root|home/\w+|work|opt)/")
    seen = 0
    for name in sorted(tracked()):
        path = ROOT / name
        if (
            path.is_file()
            and path.suffix in {".py", ".md", ".yaml", ".toml", ".lock", ".json", ".sh", ""}
            and name != "tests/pipeline/test_docs.py"
        ):
            seen += 1
            assert not pattern.search(path.read_text(errors="replace")), name
    assert seen >= 100
