"""Nothing but what DVC made in the clone is ever the second side of a comparison."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from finetune.clone import Clone
from finetune.errors import SetupError
from finetune.proving import recorded, remaking
from tests.unit.proving.conftest import LOCKED

STAGES = list(recorded.stages(LOCKED).values())
RAN = [f"Running stage '{stage.name}':" for stage in STAGES]


class Pretended(Clone):
    """A clone with the recorded dvc.lock, in which DVC says that it ran some stages, and leaves a dvc.lock."""

    says: Sequence[str]
    leaves: str
    found: bool

    def follow(self, command: Sequence[str], hear: Callable[[str], None]) -> int:
        self.found = (self.folder / "dvc.lock").exists() or (self.folder / "models/train").exists()
        for line in self.says:
            hear(line)
        (self.folder / "dvc.lock").write_text(self.leaves)
        return 0


def remake(folder: Path, says: Sequence[str], leaves: str) -> tuple[list[str], bool]:
    """The stages that were made, and whether DVC found anything of the record."""
    (folder / "dvc.lock").write_text(LOCKED)
    (folder / "models/train").mkdir(parents=True)
    made = Pretended(folder, {}, 0)
    made.says, made.leaves = says, leaves
    return list(remaking.remake(made, STAGES, True, lambda _: None)), made.found


def test_dvc_begins_without_the_record(tmp_path: Path) -> None:
    assert remake(tmp_path, RAN, LOCKED) == ([stage.name for stage in STAGES], False)


def test_a_stage_that_dvc_left_out_is_not_compared_with_its_record(tmp_path: Path) -> None:
    with pytest.raises(SetupError) as refused:
        remake(tmp_path, RAN[:-1], LOCKED)
    assert refused.value.problems == ["dpo: DVC did not run it"]


def test_a_stage_that_dvc_wrote_nothing_of_is_not_compared(tmp_path: Path) -> None:
    with pytest.raises(SetupError) as refused:
        remake(tmp_path, RAN, "schema: '2.0'\nstages:\n  train: {cmd: x}\n")
    assert refused.value.problems == ["reference: DVC did not run it", "dpo: DVC did not run it"]
