"""What a clone forgets before something is made in it, and what it says of a commit that has no settings."""

from pathlib import Path

import pytest

from finetune.clone import Clone
from finetune.errors import SetupError


@pytest.fixture
def made(tmp_path: Path) -> Clone:
    """A folder with a dvc.lock, an out that is a file, one that is a folder, and a file that is none."""
    folder = tmp_path / "clone"
    for name in ("dvc.lock", "reports/train.json", "models/train/weights", "stages/train.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("of before")
    return Clone(folder, {}, 0)


def test_what_was_recorded_and_made_before_is_away(made: Clone) -> None:
    made.forget(["reports/train.json", "models/train", "models/dpo"])
    assert [path.relative_to(made.folder).as_posix() for path in made.folder.rglob("*") if path.is_file()] == ["stages/train.py"]
    made.forget([])


@pytest.mark.parametrize("how", ["/{outside}", "../outside", "link/outside"])
def test_an_out_that_is_not_the_clones_is_left_and_refused(made: Clone, how: str) -> None:
    outside = made.folder.parent / "outside"
    outside.mkdir()
    (made.folder / "link").symlink_to(made.folder.parent)
    with pytest.raises(SetupError, match="outside: found a path outside of the repository"):
        made.forget(["models/train", how.format(outside=outside.relative_to("/"))])
    assert outside.is_dir()
    assert (made.folder / "dvc.lock").exists()


@pytest.mark.parametrize("text", ["a: [", "- 1", "just words"])
def test_a_commit_without_settings_can_not_be_made(made: Clone, text: str) -> None:
    (made.folder / "params.yaml").write_text(text)
    with pytest.raises(SetupError, match=r"params\.yaml: found no settings in that of the commit"):
        made.params()
