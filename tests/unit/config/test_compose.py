"""Every wrong setting is named at once, before anything runs; params.yaml and conf/ can't part unnoticed."""

import math
import shutil
from pathlib import Path

import pytest
import yaml

from finetune import paths
from finetune.config.compose import drift, fingerprint, validate, write_params
from finetune.errors import ConfigError
from tests.conftest import ROOT, Compose


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with conf/ and the Hydra plugin alone."""
    for name in ("conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def options() -> list[str]:
    """Every file of every folder of conf/, as an override."""
    return [f"{file.parent.name}={file.stem}" for file in sorted((ROOT / "conf").glob("*/*.yaml"))]


def test_every_option_of_conf_composes(compose: Compose) -> None:
    seen = 0
    for option in options():
        extra = ["train=full"] if option == "dpo=full" else []
        assert compose(option, *extra).seed >= 0
        seen += 1
    assert seen >= 20


def test_what_is_composed_is_what_the_plugin_fingerprints(project: Path) -> None:
    write_params(root=project)
    written = yaml.safe_load((project / paths.PARAMS).read_text())
    assert written["conf_sha"] == fingerprint(ROOT / "conf")
    assert list(written) == [
        "model",
        "data",
        "prepare",
        "format",
        "train",
        "reference",
        "dpo",
        "answer",
        "evaluate",
        "export",
        "tracking",
        "resume",
        "launch",
        "seed",
        "threads",
        "instructions",
        "conf_sha",
    ]


def test_overrides_follow_interpolations(project: Path) -> None:
    write_params(["train.r=32"], root=project)
    train = yaml.safe_load((project / paths.PARAMS).read_text())["train"]
    assert (train["r"], train["lora_alpha"]) == (32, 32)


def test_all_refused_settings_are_named_at_once(project: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        write_params(
            ["train.r=0", "train.rr=3", "train.lora_dropout=2", "dpo.learning_rate=-1", "seed=x", "format.max_length=1.5"], root=project
        )
    assert refused.value.problems == [
        "seed: found 'x', expected a valid integer",
        "format.max_length: found 1.5, expected a valid integer",
        "train.r: found 0, expected greater than or equal to 1",
        "train.lora_alpha: found 0, expected greater than or equal to 1",
        "train.lora_dropout: found 2, expected less than 1",
        "train.max_length: found 1.5, expected a valid integer",
        "train.rr: unknown key; did you mean train.r?",
        "dpo.learning_rate: found -1, expected greater than 0",
    ]
    assert not (project / paths.PARAMS).exists()


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["train.learning_rate=null"], "train.learning_rate: found None, expected a valid number"),
        (["train.method=lora2"], "train.method: found 'lora2', expected one of 'lora', 'qlora', 'full'"),
        (
            ["launch.processes=2"],
            "launch.processes: found 2 with launch.command='python3', expected 1, which is all that it starts; set launch=distributed",
        ),
        (["train.target_modules=[]"], "train.target_modules: found [], expected all-linear, or a list of names of modules, one at least"),
        (["train.target_modules=[1]"], "train.target_modules: found [1], expected all-linear, or a list of names of modules, one at least"),
        (["data.floors=[attic]"], "data.floors: found ['attic'], expected it to have at least 2 items after validation, not 1"),
        (["~train"], "train.method: missing, expected one of 'lora', 'qlora', 'full'"),
        (["export.format=gguf"], "export.format: unknown key, expected one of adapter, dtype, max_shard_size, merged"),
        (["model.device=gpu"], "model.device: found 'gpu', expected 'cpu' or 'cuda'"),
        (["++data.areas=kitchen"], "data.areas: found 'kitchen', expected a valid dictionary"),
        (["dpo=full"], "dpo.method: found 'full' after train.method=lora, expected 'lora', which trains that adapter on; set dpo=lora"),
        (
            ["model.loader=unsloth", "model.device=cpu"],
            "model.loader: found 'unsloth' with model.device=cpu, expected model.device=cuda, all that it runs on",
        ),
        (
            ["train.packing=true", "model.loader=unsloth", "model.device=cuda"],
            (
                "train.packing: found true with model.loader=unsloth, expected false: its attention makes no mask of restarted positions, "
                "so records would see each other; set model.loader=transformers"
            ),
        ),
        (
            ["train.packing=true", "train.max_length=100"],
            "train.max_length: found 100 with train.packing=true, expected at least format.max_length=256, what a record may have",
        ),
    ],
)
def test_a_refusal_says_key_found_and_expected(project: Path, overrides: list[str], problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        write_params(overrides, root=project)
    assert problem in refused.value.problems


def test_a_key_of_another_member_of_the_group_is_refused_with_those_of_the_one_chosen(project: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        write_params(["train=full", "dpo=full", "train.r=8"], root=project)
    (problem,) = refused.value.problems
    assert problem.startswith("train.r: unknown key, expected one of gradient_accumulation_steps, ")
    assert "lora_alpha" not in problem


def test_a_name_that_is_itself_wrong_is_refused_under_the_key_that_was_typed(project: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        write_params(["+data.areas.kitchen.boat=[skiff]"], root=project)
    (problem,) = refused.value.problems
    assert problem.startswith("data.areas.kitchen.boat: found 'boat', expected 'climate', ")


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize("data", ["smart_home", "files"])
def test_no_setting_may_be_infinite_or_no_number(compose: Compose, data: str, value: float) -> None:
    values = compose(f"data={data}").model_dump()
    keys = [
        (section, name)
        for section, settings in values.items()
        for name, setting in (settings.items() if isinstance(settings, dict) else [])
        if isinstance(setting, float)
    ]
    assert len(keys) >= 15
    for section, name in keys:
        values[section][name] = value
    with pytest.raises(ConfigError) as refused:
        validate(values)
    assert refused.value.problems == [f"{section}.{name}: found {value}, expected a finite number" for section, name in keys]


def test_an_option_that_does_not_exist_is_refused_with_the_ones_that_do(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)Could not find 'train/lorra'.*qlora"):
        write_params(["train=lorra"], root=project)


def test_an_edit_of_conf_is_drift_until_it_is_composed_again(project: Path) -> None:
    write_params(root=project)
    before = yaml.safe_load((project / paths.PARAMS).read_text())["conf_sha"]
    assert drift(before, project / "conf") is None
    with (project / "conf/train/lora.yaml").open("a") as opened:
        opened.write("# a word\n")
    assert "composed from a conf/ with fingerprint" in str(drift(before, project / "conf"))
