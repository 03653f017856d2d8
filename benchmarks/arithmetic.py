"""Hashes of what this processor computes, from the simple to the compound: two machines' outputs side by side show where they part.

    python -m benchmarks.arithmetic compatible > here.txt      # there likewise, then: diff here.txt there.txt

One line a result. What goes in is made of whole numbers, so that nothing before it was rounded. The last lines are a model of
SmolLM2-135M's shape: gradients, and steps of LoRA, with the loss bit for bit. It needs torch, transformers and peft, and of this
repository only finetune/instructions.py and finetune/errors.py: so it also runs where nothing else of it is installed.
"""

import hashlib
import os
import statistics
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING

from finetune import instructions

if TYPE_CHECKING:
    import torch

Line = tuple[str, str]

PRODUCTS = ((256, 576, 576), (256, 576, 1536), (256, 1536, 576), (400, 576, 49152), (8, 64, 64), (256, 576, 16), (1, 576, 576))
ELEMENTWISE = ("exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "reciprocal", "sigmoid", "tanh", "sin", "cos", "erf")
SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
}
RECORDS, TOKENS = 8, 64  # of a step


def main() -> None:
    """Print the hashes."""
    parser = ArgumentParser(description="Hashes of what this processor computes.")
    parser.add_argument("instructions", choices=instructions.VARIABLES, nargs="?", default=instructions.NATIVE)
    parser.add_argument("--steps", type=int, default=10, help="of training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", action="store_true", help="only train, and print the seconds of the median step as the last line")
    asked = parser.parse_args()
    # as a stage does, before it imports torch
    os.environ.update({"OMP_WAIT_POLICY": "PASSIVE", **instructions.VARIABLES[asked.instructions]})
    import torch

    torch.set_num_threads(asked.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    instructions.verify(asked.instructions)
    found = instructions.cpu()
    processor = f"{found.get('model name')} (family {found.get('cpu family')}, model {found.get('model')})"
    used = f"{torch.backends.cpu.get_cpu_capability()}, instructions={asked.instructions}"
    print(f"# {processor}, torch {torch.__version__}, {used}", file=sys.stderr)
    took: list[float] = []
    parts = [training(asked.steps, took)] if asked.seconds else [operations(), backward(), optimizers(), training(asked.steps, took)]
    for part in parts:
        for name, digest in part:
            print(name, digest, flush=True)
    if asked.seconds:
        print(statistics.median(took))


def operations() -> Iterator[Line]:
    """Draws, products, functions of single numbers, sums."""
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(17)
    yield "draws of a normal distribution", digest(torch.randn(4096, generator=generator))
    yield "draws of a uniform distribution", digest(torch.rand(4096, generator=generator))
    for rows, inner, columns in PRODUCTS:
        yield f"product {rows} x {inner} x {columns}", digest(made(rows, inner) @ made(columns, inner).T)
    heads = made(RECORDS, 9, TOKENS, 64)
    yield "products of attention", digest(heads @ heads.transpose(-1, -2))
    positive = made(64, 577).abs() + 2**-10
    for name in ELEMENTWISE:
        yield name, digest(getattr(torch, name)(positive))
    for power in (0.5, 0.9, 2, -1.5):
        yield f"power {power}", digest(positive.pow(power))
    several = 8 * made(400, 576)
    yield "silu", digest(functional.silu(several))
    yield "sum", digest(several.sum())
    yield "mean of squares", digest(several.pow(2).mean(-1))
    yield "norm", digest(several.norm())
    yield "softmax", digest(several.softmax(-1))
    yield "log softmax", digest(several.log_softmax(-1))
    yield "attention", digest(functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True))


def backward() -> Iterator[Line]:
    """Gradients of the parts of a layer."""
    import torch
    from torch.nn import functional

    labels = torch.arange(RECORDS * TOKENS) % 576
    heads = (RECORDS, 9, TOKENS, 64)
    mask = torch.ones(RECORDS, 1, TOKENS, TOKENS, dtype=torch.bool).tril()
    mask[0, 0, 7:, :7] = False  # as of a padded record
    parts: dict[str, tuple[Callable[..., torch.Tensor], list[tuple[int, ...]]]] = {
        "linear": (functional.linear, [(400, 576), (1536, 576)]),
        "low rank": (lambda x, a, b: functional.linear(functional.linear(x, a), b), [(400, 576), (16, 576), (576, 16)]),
        "silu": (functional.silu, [(400, 1536)]),
        "normalised": (lambda x, w: w * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5), [(400, 576), (576,)]),
        "attention": (lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True), [heads] * 3),
        "attention with a mask": (lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, attn_mask=mask), [heads] * 3),
        "cross entropy": (lambda x: functional.cross_entropy(8 * x, labels), [(len(labels), 576)]),
        "embedding": (lambda w: functional.embedding(labels, w), [(576, 64)]),
    }
    for name, (function, shapes) in parts.items():
        given = [made(*shape).requires_grad_() for shape in shapes]
        result = function(*given)
        result.backward(made(*result.shape) if result.dim() else None)
        yield f"{name}, forward", digest(result)
        for place, tensor in enumerate(given, 1):
            yield f"{name}, gradient of {place}", digest(tensor.grad)


def optimizers() -> Iterator[Line]:
    """Weights after five steps, with gradients that were clipped."""
    import torch

    for fused in (False, True):
        weights = [made(64, 16).requires_grad_(), made(16, 65).requires_grad_()]
        optimizer = torch.optim.AdamW(weights, lr=1e-3, fused=fused)
        for step in range(1, 6):
            for tensor in weights:
                tensor.grad = made(*tensor.shape) * step
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
        yield f"adamw_torch{'_fused' * fused}", digest(*weights)


def training(steps: int, took: list[float]) -> Iterator[Line]:
    """Forward, backward and LoRA of the model; the seconds of each step are added to `took`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        base = LlamaForCausalLM(LlamaConfig(**SMOLLM2))  # type: ignore[arg-type]
    base = base.to_empty(device="cpu")
    base.model.rotary_emb = type(base.model.rotary_emb)(config=base.config)
    _fill(base, 2**-4)
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", init_lora_weights=False))
    trained = [tensor for tensor in model.parameters() if tensor.requires_grad]
    _fill(model, 2**-4, only="lora_A")
    _fill(model, 0.0, only="lora_B")
    yield "weights", digest(*model.state_dict().values())
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    for step in range(steps):
        began = time.perf_counter()
        ids = (torch.arange(RECORDS * TOKENS) * (7919 + step) % SMOLLM2["vocab_size"]).reshape(RECORDS, TOKENS)
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        if step == 0:
            yield "gradients of the first step", digest(*(tensor.grad for tensor in trained))
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        took.append(time.perf_counter() - began)
        yield f"loss of step {step + 1}", loss.item().hex()
    yield "adapter", digest(*trained)


def made(*shape: int) -> "torch.Tensor":
    """Numbers from -1 to 1 that are multiples of 2⁻²⁰: sums of a few, and products of two, are exact in any order."""
    import torch

    generator = torch.Generator().manual_seed(sum(shape) * 31 + len(shape))
    return torch.randint(-(2**20), 2**20, shape, generator=generator).float() / 2**20


def digest(*tensors: "torch.Tensor | None") -> str:
    """16 hex digits of the sha256 of their bytes."""
    whole = hashlib.sha256()
    for tensor in tensors:
        assert tensor is not None
        whole.update(tensor.detach().contiguous().numpy().tobytes())
    return whole.hexdigest()[:16]


def _fill(model: "torch.nn.Module", scale: float, only: str = "") -> None:
    """Give all parameters numbers of their own, as large as `scale`; those of one dimension, which scale a norm, are 1."""
    import torch

    numbers = count(1)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if only in name:
                tensor.copy_(
                    torch.ones(tensor.shape) if tensor.dim() == 1 else made(*tensor.shape) * scale + next(numbers) * 2.0**-20 * scale
                )


if __name__ == "__main__":
    main()
