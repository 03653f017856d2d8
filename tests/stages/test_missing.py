"""A stage that is started before the stages it needs says what is missing, and how to get it."""

from importlib import import_module
from pathlib import Path

import pytest

from finetune import paths
from finetune.errors import DataError, FinetuneError
from tests.conftest import composed


@pytest.mark.parametrize(("stage", "folder"), [("reference", paths.FORMATTED / "preference"), ("report", paths.REFERENCE)])
def test_a_table_that_is_gone_is_named_although_everything_else_is_there(tiny_copy: Path, stage: str, folder: Path) -> None:
    (folder / "train.parquet").unlink()
    with pytest.raises(DataError, match=rf"{folder.as_posix()}/train\.parquet: found no such file(.|\n)*run `dvc repro`"):
        import_module(f"stages.{stage}").main(composed("experiment=tiny"))


def test_report_names_all_tables_that_are_gone(tiny_copy: Path) -> None:
    gone = [paths.FORMATTED / "sft" / "train.parquet", paths.REFERENCE / "train.parquet"]
    for path in gone:
        path.unlink()
    with pytest.raises(DataError) as refused:
        import_module("stages.report").main(composed("experiment=tiny"))
    assert all(f"{path}: found no such file" in str(refused.value) for path in gone)


@pytest.mark.parametrize("stage", ["format", "train", "reference", "dpo", "answer", "evaluate", "export", "report"])
def test_a_stage_without_its_inputs_names_one_and_dvc_repro(workspace: Path, stage: str) -> None:
    with pytest.raises(FinetuneError) as refused:
        import_module(f"stages.{stage}").main(composed("experiment=tiny"))
    assert "found no" in str(refused.value)
    assert "run `dvc repro`" in str(refused.value)
    assert not any(Path(folder).exists() for folder in ("models", "data/formatted"))
