"""The base model that comes inside a Python package: GGUF → float32 safetensors and a tokenizer that knows where an answer ends."""

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from gguf.gguf_reader import ReaderTensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PretrainedConfig

from finetune.errors import ModelError

EOS, PAD = "<|im_end|>", "<|endoftext|>"
ARCHITECTURE = "llama"

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert(gguf: Path, folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer of a Llama-shaped GGUF file.

    The weights are dequantised by ggml's own library: bit for bit what transformers' GGUF loading gives, in a fifth of its time.

    Raises:
        ModelError: the file holds another architecture.
    """
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if config.model_type != ARCHITECTURE:
        raise ModelError(
            f"{gguf.name}: found a {config.model_type} model, expected {ARCHITECTURE}; use model.source=hub or local for others"
        )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers 5.17 takes <|im_start|> for the end and knows no padding token; as arguments of from_pretrained they are ignored
    tokenizer.eos_token, tokenizer.pad_token = EOS, PAD
    tokenizer.clean_up_tokenization_spaces = False  # else a space before a comma is lost in what the model answered
    tokenizer.model_max_length = config.max_position_embeddings
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(weights(gguf, config), strict=True, assign=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(
        eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id, bos_token_id=config.bos_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def weights(gguf: Path, config: PretrainedConfig) -> dict[str, torch.Tensor]:
    """Return the tensors under transformers' names, in float32."""
    found = {_name(tensor.name): _tensor(tensor, config) for tensor in GGUFReader(gguf).tensors}
    if config.tie_word_embeddings:
        found["lm_head.weight"] = found["model.embed_tokens.weight"]
    return found


def _name(name: str) -> str:
    """`blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`."""
    *block, kind, suffix = name.split(".")
    prefix = f"model.layers.{block[1]}." if block else ""
    return f"{prefix}{NAMES[kind]}.{suffix}"


def _tensor(tensor: ReaderTensor, config: PretrainedConfig) -> torch.Tensor:
    # a copy, because the file is mapped read-only
    values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(tensor.name.split(".")[-2])
    if heads is None:
        return values
    # llama.cpp interleaves the two halves of each rotary head; transformers keeps them apart
    rows, columns = values.shape
    return values.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)
