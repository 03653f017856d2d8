"""A stage that is started before the stages it needs says what is missing, and how to get it."""

from importlib import import_module
from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from tests.conftest import composed


@pytest.mark.parametrize("stage", ["format", "train", "reference", "dpo", "answer", "evaluate", "export", "report"])
def test_a_stage_without_its_inputs_names_one_and_dvc_repro(workspace: Path, stage: str) -> None:
    with pytest.raises(FinetuneError) as refused:
        import_module(f"stages.{stage}").main(composed("experiment=tiny"))
    assert "found no" in str(refused.value)
    assert "run `dvc repro`" in str(refused.value)
    assert not any(Path(folder).exists() for folder in ("models", "data/formatted"))
