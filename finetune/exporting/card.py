"""The model card: what a model was made from, how good it is, what it is for and not for, and how to load it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCardData

from finetune.config.schema import Config
from finetune.evaluation.slices import scored
from finetune.models.adapters import Tuned

METHODS = {"lora": "LoRA", "qlora": "QLoRA (LoRA over the base in 4 bits)", "full": "full fine-tuning of every weight"}
MODELS = {"base": "base model", "train": "after the first step", "dpo": "**this model**"}

Metrics = Mapping[str, Any]


def write(cfg: Config, tuned: Tuned, exported: Mapping[str, int], prepared: Metrics, evaluated: Metrics, *, thinks: bool) -> str:
    """README.md of an export, with the header that the Hugging Face hub reads.

    exported: part → its number of parameters. thinks: the chat template lets the model think aloud first, unless it is told not to.
    """
    parts = [
        f"---\n{_header(cfg).to_yaml()}\n---",
        f"# {cfg.model.name}, tuned",
        _made_from(cfg, tuned, prepared),
        "## How good it is",
        _scores(evaluated),
        _likelihoods(evaluated),
        "## What it is for, and what not",
        _use(cfg),
        "## How to load it",
        *_loading(cfg, tuned, exported, thinks),
        "## Where it comes from",
        _sources(cfg),
    ]
    return "\n\n".join(parts) + "\n"


def _header(cfg: Config) -> ModelCardData:
    return ModelCardData(
        base_model=cfg.model.path if cfg.model.source == "hub" else cfg.model.name,
        library_name="transformers",
        license=cfg.model.license.lower(),  # the hub writes SPDX names so
        pipeline_tag="text-generation",
        tags=sorted({"conversational", "dpo", "sft", cfg.train.method}),
    )


def _base(cfg: Config) -> str:
    return f"`{cfg.model.path}` at revision `{cfg.model.revision}`"


def _made_from(cfg: Config, tuned: Tuned, prepared: Metrics) -> str:
    records, pairs = prepared["splits"]["sft"]["train"], prepared["splits"]["preference"]["train"]
    given = f"{pairs:,} pairs of a better and a worse answer"
    preferred = (
        given if cfg.reference.pairs == "given" else "pairs of a right answer and a wrong one that the model gave after the first step"
    )
    what = "every weight" if tuned.method == "full" else "a LoRA adapter"
    return (
        f"Made from {_base(cfg)} in two steps: {METHODS[cfg.train.method]} on {records:,} conversations, "
        f"then direct preference optimisation of {what} on {preferred} (beta {cfg.dpo.beta:g}). "
        f"Seed {cfg.seed}."
    )


def _scores(evaluated: Metrics) -> str:
    slices = scored(evaluated)
    first = evaluated["dpo"][slices[0]]
    metrics = ["exact_match", *sorted(key.removesuffix("_low") for key in first if key.endswith("_low") and key != "exact_match_low")]
    rows = [
        (name.replace("_", " "), called, f"{scores['records']:,}", *(_percent(scores, metric) for metric in metrics))
        for name in slices
        for called, scores in ((called, evaluated[model][name]) for model, called in MODELS.items())
    ]
    about = f"Greedy answers to test prompts that are not in the training data; {first['confidence']:.0%} bootstrap intervals in brackets."
    return f"{about}\n\n{_table(('slice', 'model', 'prompts', *(metric.replace('_', ' ') for metric in metrics)), rows)}"


def _likelihoods(evaluated: Metrics) -> str:
    rows = [
        (called, f"{scores['validation']['perplexity']:,.3f}", _percent(scores["preference"], "accuracy"))
        for called, scores in ((called, evaluated[model]) for model, called in MODELS.items())
    ]
    margin = {end: evaluated["dpo"]["preference"][f"margin{end}"] for end in ("", "_low", "_high")}
    pairs = f"{evaluated['dpo']['preference']['pairs']:,} held-out pairs"
    ends = f"{margin['_low']:.3f} to {margin['_high']:.3f}"
    about = f"Reward margin on {pairs}, against the model after the first step: {margin['']:.3f} ({ends})."
    return f"{_table(('model', 'perplexity on validation', 'better answer of a pair more likely'), rows)}\n\n{about}"


def _use(cfg: Config) -> str:
    trained = f"It was trained with the system message `{cfg.data.system}`, which belongs in every prompt. "
    system = "" if cfg.data.system is None else trained
    return (
        f"For requests like those it was trained on, one at a time, of at most {cfg.format.max_length:,} tokens with the answer. {system}"
        "Nothing is known of it beyond the test prompts above: on other requests it may answer wrongly in the form of a right answer, "
        "so check what an answer would do before doing it. What the base model must not be used for, and its biases, are this model's too."
    )


def _loading(cfg: Config, tuned: Tuned, exported: Mapping[str, int], thinks: bool) -> list[str]:
    parts = []
    if "merged" in exported:
        parts += [f"`merged/`, {exported['merged']:,} parameters, with `transformers` alone:", _example(cfg, thinks)]
    if "adapter" in exported:
        over = _base(cfg) if tuned.below == "base" else "the weights after the first step, which are not here: use `merged/`"
        parts.append(f'`adapter/`, {exported["adapter"]:,} parameters: `peft.PeftModel.from_pretrained(base, "adapter")`, over {over}.')
    return parts


def _example(cfg: Config, thinks: bool) -> str:
    """A program that asks the model; a test runs it."""
    options = 'add_generation_prompt=True, return_dict=True, return_tensors="pt"' + (", enable_thinking=False" if thinks else "")
    system = [] if cfg.data.system is None else [{"role": "system", "content": cfg.data.system}]
    lines = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'model = AutoModelForCausalLM.from_pretrained("merged", dtype="auto")',
        'tokenizer = AutoTokenizer.from_pretrained("merged")',
        f"messages = {json.dumps([*system, {'role': 'user', 'content': 'your request'}], ensure_ascii=False)}",
        f"prompt = tokenizer.apply_chat_template(messages, {options})",
        f"written = model.generate(**prompt, do_sample=False, max_new_tokens={cfg.format.max_length})",
        'print(tokenizer.decode(written[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]
    return "\n".join(["```python", *lines, "```"])


def _sources(cfg: Config) -> str:
    return (
        f"- Base model: {_base(cfg)}; licence {cfg.model.license}.\n"
        f"- Data, licence and attribution: {cfg.data.license}.\n"
        "- manifest.json: sha256 of every file here and of the data, and the settings."
    )


def _percent(scores: Metrics, metric: str) -> str:
    if metric not in scores:
        return ""
    return f"{100 * scores[metric]:.1f} % ({100 * scores[f'{metric}_low']:.1f} to {100 * scores[f'{metric}_high']:.1f})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
