"""What dvc.lock records, and where its bytes are."""

import json
import shutil
from pathlib import Path

import pytest

from finetune.proving import recorded
from finetune.proving.recorded import Kept
from finetune.tracking import hashes
from tests.unit.proving.conftest import LOCKED


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An out of two files, in a folder."""
    for name, text in (("a.txt", "one"), ("b/c.txt", "two")):
        (tmp_path / "root/models/train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root/models/train" / name).write_text(text)
    return tmp_path / "root/models/train"


def stored(cache: Path, md5: str) -> Path:
    place = cache / md5[:2] / md5[2:]
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def cached(cache: Path, out: Path) -> str:
    """Put an out into a cache, as DVC does."""
    listing = hashes.listing(out)
    for file in listing:
        shutil.copy(out / file["relpath"], stored(cache, file["md5"]))
    stored(cache, hashes.of_listing(listing)).write_text(json.dumps(listing, sort_keys=True))
    return hashes.of_listing(listing)


def texts(files: dict[str, Path] | None) -> dict[str, str]:
    assert files is not None
    return {name: file.read_text() for name, file in files.items()}


def test_stages_come_after_those_whose_outs_they_read() -> None:
    found = recorded.stages(LOCKED)
    assert list(found) == ["train", "reference", "dpo"]
    assert found["dpo"].params == {"seed": 17, "dpo": {"beta": 1.0}}
    assert found["train"].outs == {"models/train": "22.dir", "reports/train.json": "23"}


def test_bytes_that_lie_in_the_folder_are_taken_from_there(out: Path, tmp_path: Path) -> None:
    files = Kept(tmp_path / "root", tmp_path / "cache").files("models/train", hashes.digest(out))
    assert files == {"a.txt": out / "a.txt", "b/c.txt": out / "b/c.txt"}
    assert Kept(tmp_path / "root", tmp_path / "cache").files("models/train/a.txt", hashes.md5(out / "a.txt")) == {"": out / "a.txt"}


def test_bytes_that_changed_in_the_folder_are_taken_from_the_cache(out: Path, tmp_path: Path) -> None:
    md5 = cached(tmp_path / "cache", out)
    (out / "a.txt").write_text("another")
    (out / "d.txt").write_text("new")
    files = Kept(tmp_path / "root", tmp_path / "cache").files("models/train", md5)
    assert texts(files) == {"a.txt": "one", "b/c.txt": "two"}
    shutil.rmtree(out)
    assert texts(Kept(tmp_path / "root", tmp_path / "cache").files("models/train", md5)) == {"a.txt": "one", "b/c.txt": "two"}


def test_bytes_that_are_gone_or_damaged_are_not_had(out: Path, tmp_path: Path) -> None:
    md5 = cached(tmp_path / "cache", out)
    kept = Kept(tmp_path / "root", tmp_path / "cache")
    assert kept.files("models/train", "00" * 16 + ".dir") is None
    assert kept.files("models/train/a.txt", "00" * 16) is None
    lost = hashes.md5(out / "a.txt")
    (out / "a.txt").write_text("another")
    stored(tmp_path / "cache", lost).write_text("damaged")
    assert kept.files("models/train", md5) is None
