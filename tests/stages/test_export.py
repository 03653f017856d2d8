"""The stage export: what is shipped loads without this project, is what was tuned, and is described to the last byte."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from finetune import outputs, paths
from finetune.config.compose import validate
from finetune.config.schema import Model
from finetune.data import tables
from finetune.errors import ConfigError, ModelError, OutputError
from finetune.exporting import manifest, merged
from finetune.models import adapters
from stages import dpo, export, reference, train
from tests.conftest import composed

PROGRAM = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
assert not [name for name in sys.modules if name.split(".")[0] in ("finetune", "stages")]
with torch.inference_mode():
    logits = model(torch.tensor([json.loads(sys.argv[2])])).logits[0]
print(json.dumps({"logits": logits.tolist(), "ends": model.generation_config.eos_token_id, "template": bool(tokenizer.chat_template)}))
"""


def alone(program: str, folder: Path, *arguments: str) -> str:
    """Run a program in another folder, with nothing of this project on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def run(*overrides: str) -> dict[str, Any]:
    shutil.rmtree(paths.EXPORT, ignore_errors=True)
    export.main(composed("experiment=tiny", *overrides))
    described: dict[str, Any] = outputs.read_json(paths.EXPORT / "manifest.json")
    return described


def tune_again(*overrides: str) -> None:
    """Train and dpo with other methods, on the data that is there."""
    for folder in (paths.TRAIN, paths.DPO, paths.REFERENCE):
        shutil.rmtree(folder)
    for stage in (train, reference, dpo):
        stage.main(composed("experiment=tiny", *overrides))


def test_plain_transformers_loads_the_merged_weights_and_they_say_what_the_tuned_model_says(
    tiny_run: Path, tiny_copy: Path, tmp_path: Path
) -> None:
    ids = tables.read(paths.FORMATTED / "sft" / "test.parquet")[0]["input_ids"]
    found = json.loads(alone(PROGRAM, tmp_path, str(tiny_run / paths.EXPORT / "merged"), json.dumps(ids)))
    (expected,) = merged.logits(adapters.load_tuned(composed("experiment=tiny").model, paths.DPO, merge=False), [ids])
    assert torch.allclose(torch.tensor(found["logits"]), expected, atol=1e-4)
    assert (found["ends"], found["template"]) == (2, True)


def test_the_program_in_the_model_card_runs(tiny_run: Path) -> None:
    program = (tiny_run / paths.EXPORT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    alone(program, tiny_run / paths.EXPORT)


def test_the_adapter_is_the_bytes_of_models_dpo(tiny_run: Path) -> None:
    exported = sorted((tiny_run / paths.EXPORT / "adapter").iterdir())
    assert [file.name for file in exported] == [adapters.CONFIG, adapters.WEIGHTS]
    assert all(file.read_bytes() == (tiny_run / paths.DPO / file.name).read_bytes() for file in exported)


def sha256(content: dict[str, bytes], names: Iterable[str]) -> dict[str, str]:
    return {name: hashlib.sha256(content[name]).hexdigest() for name in names}


def test_the_manifest_has_every_other_file_and_the_report_counts_them(tiny_run: Path) -> None:
    folder = tiny_run / paths.EXPORT
    described = outputs.read_json(folder / "manifest.json")
    found = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert set(described["files"]) == set(found) - {"manifest.json"}
    assert len(described["files"]) > 7
    assert {name: entry["sha256"] for name, entry in described["files"].items()} == sha256(found, described["files"])
    formatted = {file.relative_to(tiny_run).as_posix(): file.read_bytes() for file in (tiny_run / paths.FORMATTED).rglob("*.parquet")}
    assert described["data"] == sha256(formatted, formatted)
    assert len(formatted) == 5
    report = outputs.read_json(tiny_run / paths.metrics("export"))
    assert (report["files"], report["bytes"]) == (len(found), sum(map(len, found.values())))
    assert report["parameters"] == described["parameters"]["merged"]
    assert 0 <= report["max_logit_difference"] < 1e-4


def test_the_model_card_has_a_header_and_no_path_of_this_machine(tiny_run: Path) -> None:
    text = (tiny_run / paths.EXPORT / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert {"license", "base_model", "tags", "pipeline_tag"} <= set(header)
    for file in (tiny_run / paths.EXPORT).rglob("*"):
        assert not file.is_file() or str(tiny_run).encode() not in file.read_bytes(), file


def test_the_same_model_gives_the_same_bytes(tiny_copy: Path) -> None:
    assert run() == run()


def test_a_gpu_is_asked_for_sums_in_one_order(tiny_copy: Path) -> None:
    torch.use_deterministic_algorithms(False)
    run()
    assert torch.are_deterministic_algorithms_enabled()


def test_a_part_that_is_not_wanted_is_not_written(tiny_copy: Path) -> None:
    described = run("export.merged=false")
    assert set(described["parameters"]) == {"adapter"}
    assert not (paths.EXPORT / "merged").exists()
    assert "max_logit_difference" not in outputs.read_json(paths.metrics("export"))
    assert set(run("export.adapter=false")["parameters"]) == {"merged"}
    assert not (paths.EXPORT / "adapter").exists()


def test_a_smaller_type_makes_smaller_files(tiny_copy: Path) -> None:
    large = run()["files"]["merged/model.safetensors"]["bytes"]
    assert run("export.dtype=bfloat16")["files"]["merged/model.safetensors"]["bytes"] < 0.55 * large


def test_after_full_training_there_is_no_adapter_and_it_says_so(tiny_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    tune_again("train=full", "dpo=full")
    with caplog.at_level("INFO"):
        assert set(run("train=full", "dpo=full")["parameters"]) == {"merged"}
    assert "no adapter, because every weight was trained" in caplog.text
    with pytest.raises(ConfigError, match=r"export\.merged: found false .* set export\.merged=true"):
        run("train=full", "dpo=full", "export.merged=false")


def test_an_adapter_over_full_weights_is_merged_into_them(tiny_copy: Path) -> None:
    tune_again("train=full", "dpo=lora")
    assert adapters.Tuned.of(paths.DPO).below == "models/train"
    assert set(run("train=full")["parameters"]) == {"adapter", "merged"}
    assert "which are not here" in (paths.EXPORT / "README.md").read_text()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"adapter": False, "merged": False}, r"export: found adapter=false and merged=false, .*set export\.merged=true"),
        ({"max_shard_size": "0GB"}, r"export\.max_shard_size: found '0GB'"),
        ({"dtype": "int8"}, r"export\.dtype: found 'int8'"),
    ],
)
def test_impossible_settings_are_refused_before_anything_runs(changed: dict[str, Any], says: str) -> None:
    values = composed().model_dump()
    values["export"] |= changed
    with pytest.raises(ConfigError, match=says):
        validate(values)


def test_a_merge_that_says_something_else_leaves_nothing(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged, "TOLERANCE", dict.fromkeys(merged.TOLERANCE, 0.0))
    monkeypatch.setattr(merged, "logits", lambda model, rows: [torch.rand(3, 3)])
    with pytest.raises(ModelError, match="models/export/merged: found a logit"):
        run()
    assert not list(paths.MODELS.glob("*export*"))


def test_without_a_tuned_model_it_says_how_to_get_one(tiny_copy: Path) -> None:
    shutil.rmtree(paths.DPO)
    with pytest.raises(ModelError, match=r"models/dpo: .*run `dvc repro`"):
        run()


def test_a_full_disk_and_ctrl_c_leave_nothing_and_the_same_command_then_works(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, seen in ((OSError(28, "No space left on device"), OutputError), (KeyboardInterrupt(), KeyboardInterrupt)):
        with monkeypatch.context() as patch:
            patch.setattr(manifest, "describe", _raise(error))
            with pytest.raises(seen):
                run()
        assert not list(paths.MODELS.glob("*export*"))
    run()


def _raise(error: BaseException) -> Any:
    def raising(*_: object) -> None:
        raise error

    return raising


def test_full_weights_in_16_bits_are_exported_as_they_were_trained(tiny_copy: Path) -> None:
    tune_again("train=full", "dpo=full", "model.dtype=bfloat16")
    run("train=full", "dpo=full", "model.dtype=bfloat16")
    assert outputs.read_json(paths.metrics("export"))["max_logit_difference"] == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (paths.DPO, paths.EXPORT / "merged"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in after)


@pytest.mark.parametrize(
    ("overrides", "judged_by"),
    [
        (("train=full", "dpo=full", "export.dtype=bfloat16"), torch.float32),
        (("train=lora", "dpo=lora", "export.dtype=float32"), torch.bfloat16),
    ],
)
def test_merged_weights_are_judged_by_the_type_of_the_tuned_ones(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], judged_by: torch.dtype
) -> None:
    tune_again(*overrides, "model.dtype=bfloat16")
    asked, difference = [], merged.difference

    def noting(folder: Path, model: Model, tuned: torch.dtype, *given: Any) -> float:
        asked.append(tuned)
        return difference(folder, model, tuned, *given)

    monkeypatch.setattr(merged, "difference", noting)
    run(*overrides, "model.dtype=bfloat16")
    assert asked == [judged_by]
