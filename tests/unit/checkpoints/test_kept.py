"""What a stage keeps is whole or not there, and belongs to one piece of work."""

import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from finetune import outputs, paths
from finetune.checkpoints import kept
from finetune.checkpoints.kept import Kept
from finetune.config.stage import cut
from finetune.errors import OutputError
from tests.conftest import composed, full_disk

INPUT = Path("data.jsonl")


@pytest.fixture
def open_work(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kept]:
    """`open_work("train.r=4")`: what is kept of that training, by a stage that then died."""
    INPUT.write_text("one")

    def opened(*overrides: str, inputs: tuple[Path, ...] = (INPUT,)) -> Kept:
        cfg = cut(composed("experiment=tiny", *overrides), ("seed", "threads", "model", "train"))
        with pytest.raises(KeyboardInterrupt), kept.work("train", cfg, inputs, INPUT) as found:
            raise KeyboardInterrupt
        return found

    return opened


def writes(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "weights").write_text(text)
        (folder / "state").write_text("state")

    return write


def names(found: Kept) -> list[str]:
    assert found.folder is not None
    return sorted(path.name for path in found.folder.iterdir())


def newest(found: Kept) -> str | None:
    path = found.newest()
    return None if path is None else path.name


def test_the_newest_checkpoint_is_the_one_with_the_highest_step(open_work: Callable[..., Kept]) -> None:
    found = open_work("resume.save_total_limit=3")
    for step in (9, 10, 11):
        found.save(step, writes(str(step)))
    assert newest(found) == "step-11"
    assert names(found) == ["step-10", "step-11", "step-9"]


def test_only_the_newest_are_kept(open_work: Callable[..., Kept]) -> None:
    found = open_work("resume.save_total_limit=2")
    for step in (8, 9, 10, 11):
        found.save(step, writes("some"))
    assert names(found) == ["step-10", "step-11"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "weights").write_text("others"),
        lambda folder: (folder / "weights").unlink(),
        lambda folder: (folder / "complete.json").unlink(),
        lambda folder: (folder / "complete.json").write_text("{"),
        lambda folder: (folder / "complete.json").write_text("[]"),
        lambda folder: os.truncate(folder / "weights", 2),
    ],
    ids=["other bytes", "file gone", "mark gone", "mark cut", "mark of another kind", "cut"],
)
def test_a_damaged_checkpoint_is_skipped_with_a_line(
    open_work: Callable[..., Kept], damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    found = open_work()
    found.save(1, writes("first"))
    found.save(2, writes("second"))
    assert found.folder is not None
    damage(found.folder / "step-2")
    assert newest(found) == "step-1"
    (line,) = (record.getMessage() for record in caplog.records if "damaged" in record.getMessage())
    assert f"{found.folder / 'step-2'} is damaged and is skipped" in line
    assert names(found) == ["step-1"]


@pytest.mark.parametrize("moment", ["write", "mark", "rename"])
def test_a_death_while_a_checkpoint_is_written_leaves_the_one_before(
    open_work: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    found = open_work()
    found.save(1, writes("first"))

    def die(*_: object) -> None:
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        if moment == "mark":
            patch.setattr(kept, "_complete", die)
        if moment == "rename":
            patch.setattr(Path, "rename", die)
        with pytest.raises(SystemExit):
            found.save(2, die if moment == "write" else writes("second"))
    assert ".step-2.part" in names(found)
    assert newest(open_work()) == "step-1"
    assert names(found) == ["step-1"], "the half one is cleared away by who comes next"
    found.save(2, writes("second"))
    assert newest(found) == "step-2"


def test_all_is_on_the_disk_before_a_checkpoint_gets_its_name(open_work: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch) -> None:
    found, happened = open_work(), list[str]()

    def noted(name: Callable[[Path], str], honest: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path, *rest: Any) -> Any:
            happened.append(name(path))
            return honest(path, *rest)

        return call

    monkeypatch.setattr(kept, "sync", noted(lambda path: path.name, outputs.sync))
    monkeypatch.setattr(Path, "rename", noted(lambda _: "rename", Path.rename))
    found.save(3, writes("some"))
    assert found.folder is not None
    assert happened == ["state", "weights", "complete.json", ".step-3.part", "rename", found.folder.name]


@pytest.mark.parametrize("disk_full", ["continue", "stop"])
def test_a_full_disk_leaves_the_last_good_checkpoint(
    open_work: Callable[..., Kept], disk_full: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = open_work(f"resume.disk_full={disk_full}")
    found.save(1, writes("first"))
    with full_disk():
        if disk_full == "continue":
            found.save(2, writes("second"))
            assert "because the disk is full; the last one, step-1, stays, and the stage goes on" in caplog.text
        else:
            with pytest.raises(OutputError, match=r"the last one, step-1, stays. Make room, or set resume.disk_full=continue, and run"):
                found.save(2, writes("second"))
    assert newest(found) == "step-1"
    assert names(found) == ["step-1"]


def test_a_disk_that_takes_nothing_for_another_reason_is_no_full_one(open_work: Callable[..., Kept]) -> None:
    def fails(_: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    found = open_work("resume.disk_full=continue")
    with pytest.raises(OutputError, match=r"could not be written \(.*Read-only file system\); there is none before it. Mend that and run"):
        found.save(1, fails)


def test_a_checkpoint_that_can_not_be_read_is_not_taken_for_a_damaged_one(
    open_work: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    found = open_work()
    found.save(1, writes("some"))
    monkeypatch.setattr(kept, "sha256", fails)
    with pytest.raises(OutputError, match=r"step-1: can't be read \(.*Input/output error\); mend that or remove it"):
        found.newest()
    assert names(found) == ["step-1"]


def test_an_error_of_another_kind_is_not_taken_for_a_full_disk(open_work: Callable[..., Kept]) -> None:
    def broken(_: Path) -> None:
        raise TypeError("a checkpoint can't hold a set")

    found = open_work()
    with pytest.raises(TypeError, match="can't hold a set"):
        found.save(1, broken)
    assert names(found) == []


def test_the_folder_is_gone_when_the_work_is_done_and_stays_when_it_was_not(open_work: Callable[..., Kept]) -> None:
    died = open_work()
    died.save(1, writes("some"))
    cfg = cut(composed("experiment=tiny"), ("seed", "threads", "model", "train"))
    with kept.work("train", cfg, [INPUT], INPUT) as again:
        assert again.folder == died.folder
        assert newest(again) == "step-1"
    assert not list(Path(".resume").rglob("*"))


@pytest.fixture
def others(open_work: Callable[..., Kept]) -> Iterator[dict[str, Path | None]]:
    before = open_work().folder
    found: dict[str, Path | None] = {}
    yield found
    assert len({before, *found.values()}) == 1 + len(found), "each has a folder of its own"


def test_another_result_never_goes_on_from_this_one(
    open_work: Callable[..., Kept], others: dict[str, Path | None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    others["settings"] = open_work("train.r=32").folder
    others["seed"] = open_work("seed=18").folder
    others["base model"] = open_work("model.revision=x").folder
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        others["processes"] = open_work().folder
    with monkeypatch.context() as patch:
        patch.setenv("ATEN_CPU_CAPABILITY", "default")
        others["instructions of the processor"] = open_work().folder
    with monkeypatch.context() as patch:
        for folder in ("finetune", "stages"):
            (tmp_path / "code" / folder).mkdir(parents=True)
        (tmp_path / "code" / "finetune" / "one.py").write_text("1")
        patch.setattr("finetune.checkpoints.key.CODE", tmp_path / "code")
        others["code"] = open_work().folder
    tokenizer = tmp_path / "base" / "tokenizer.json"
    tokenizer.parent.mkdir()
    local = ["model.source=local", f"model.path={tokenizer.parent}", f"model.sha256={'0' * 64}"]
    for content in ("one", "two"):
        tokenizer.write_text(content)
        others[f"tokenizer {content}"] = open_work(*local).folder
    INPUT.write_text("two")
    others["data"] = open_work().folder


def test_another_gpu_of_this_machine_never_goes_on_from_this_one(open_work: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for name in ("NVIDIA H100", "NVIDIA L4"):
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.get_device_name", partial(str, name))
        found.add(open_work("model.device=cuda").folder)
    assert len(found) == 2


def test_what_determines_no_result_has_the_same_folder(open_work: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_work().folder
    assert open_work("resume.save_total_limit=7").folder == before
    assert open_work("tracking.experiment=other", "dpo.beta=0.2").folder == before, "not among the stage's sections"


def test_unfinished_work_of_other_settings_is_told(open_work: Callable[..., Kept], caplog: pytest.LogCaptureFixture) -> None:
    open_work("train.r=4").save(1, writes("some"))
    with caplog.at_level("INFO"):
        open_work()
    assert "1 unfinished run with other settings, data, code or packages: kept in" in caplog.text


def test_without_save_seconds_nothing_is_kept(open_work: Callable[..., Kept]) -> None:
    found = open_work("resume.save_seconds=null")
    found.save(1, writes("some"))
    assert list(found.items("answers").each([1, 2], str)) == ["1", "2"]
    assert not found.has("answers")
    assert newest(found) is None
    assert not Path(".resume").exists()


def test_it_lies_in_the_users_repository_also_from_a_temporary_copy(
    open_work: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "own"))
    found = open_work().folder
    assert found is not None
    assert found.parent == tmp_path / "own" / ".resume" / "train"
    assert paths.home() == tmp_path / "own"
