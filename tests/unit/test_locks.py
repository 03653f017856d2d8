"""What stages ran, read and wrote, from the text of a dvc.lock."""

import pytest

from finetune import locks
from tests.unit.proving.conftest import LOCKED


def test_sources_are_what_no_stage_makes() -> None:
    assert locks.sources(locks.stages(LOCKED)) == {"data/raw": "11", "stages/train.py": "02", "stages/dpo.py": "01"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<<<<<<< ours\nstages:\n=======\n>>>>>>> theirs\n",
        "stages: []",
        "- 1",
        "stages: {train: 3}",
        "stages: {train: null}",
        "stages: [train]",
    ],
)
def test_what_is_no_lock_has_no_stages(text: str) -> None:
    assert locks.stages(text) == {}


@pytest.mark.parametrize("entry", ["deps: null", "outs: [1]", "outs: [{md5: '1'}]", "params: {params.yaml: null}", "cmd: \udcff"])
def test_an_entry_that_dvc_did_not_write_makes_it_no_lock(entry: str) -> None:
    assert locks.stages(f"stages: {{train: {{{entry}}}}}") == {}
