"""reports/report.md: what a run was made from, what it made, how good it is, and how to make it again; for a person."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from finetune.config.schema import Config
from finetune.evaluation.samples import in_turn
from finetune.evaluation.slices import scored
from finetune.fingerprint import Fingerprint
from finetune.reporting.evidence import MODELS, Metrics
from finetune.reporting.provenance import Origin

FIGURES = {  # title → name of the file
    "Before and after": "before_after",
    "Supervised fine-tuning": "supervised",
    "Preference optimisation": "preference",
    "Lengths": "lengths",
}
SHOWN = 10  # samples
WIDTH, LINES = 110, 4  # characters a line of a sample, and lines of an answer before it is cut


def write(
    cfg: Config,
    metrics: Mapping[str, Metrics],
    samples: Sequence[dict[str, Any]],
    origin: Origin,
    experiment: str | None,
    environment: Fingerprint,
    makers: Mapping[str, Any] | None,
) -> str:
    """Return the page as Markdown, its pictures in figures/ beside it; `makers`: what tracking.made_by() said."""
    parts = [
        _head(cfg, metrics),
        "## How good it is",
        _scores(metrics["evaluate"], cfg.evaluate.confidence),
        _picture("Before and after"),
        _likelihoods(metrics["evaluate"]),
        _gates(metrics["evaluate"]["gates"]),
        "## What it answers",
        f"At most {SHOWN} prompts, of each kind of outcome in each slice in turn; [samples.jsonl](samples.jsonl) has more, and uncut.",
        *map(_sample, in_turn(samples, SHOWN)),
        "## How it was trained",
        _training(metrics),
        _picture("Supervised fine-tuning"),
        _picture("Preference optimisation"),
        "## What it was trained on",
        _data(metrics),
        _picture("Lengths"),
        "## Where it was made",
        _environment(environment),
        "## Who made what",
        _makers(makers),
        "## Making it again",
        _again(origin, experiment),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(cfg: Config, metrics: Mapping[str, Metrics]) -> str:
    train, dpo = metrics["train"], metrics["dpo"]
    return (
        f"# {cfg.model.name}, tuned\n\n"
        f"`{cfg.model.path}` at revision `{cfg.model.revision}`, "
        f"tuned with {cfg.train.method} on {train['records']:,} records ({train['steps_total']:,} steps), "
        f"then with DPO on {dpo['pairs']:,} preference pairs ({dpo['steps_total']:,} steps), seed {cfg.seed}."
    )


def _scores(evaluated: Mapping[str, Metrics], confidence: float) -> str:
    rows = []
    for name in scored(evaluated):
        for model in (model for model in MODELS if name in evaluated.get(model, {})):
            score = evaluated[model][name]
            exact = f"{_percent(score['exact_match'])} ({100 * score['exact_match_low']:.1f} to {100 * score['exact_match_high']:.1f})"
            others = (_percent(score.get(key)) for key in ("valid_json", "intent"))
            rows.append((name.replace("_", " "), model, score["records"], exact, *others))
    return _table(("slice", "model", "prompts", f"exact match ({confidence:.0%} interval)", "valid JSON", "intent"), rows)


def _likelihoods(evaluated: Mapping[str, Metrics]) -> str:
    rows = []
    for model in (model for model in MODELS if model in evaluated):
        validation, pairs = evaluated[model]["validation"], evaluated[model]["preference"]
        margin = f"{pairs['margin']:+.3f} ({pairs['margin_low']:+.3f} to {pairs['margin_high']:+.3f})"
        rows.append((model, f"{validation['loss']:.4f}", f"{validation['perplexity']:.3f}", _percent(pairs["accuracy"]), margin))
    lines = [_table(("model", "validation loss", "perplexity", "chosen more likely", "reward margin"), rows)]
    lines += [
        f"The {model} adapter over the 4-bit base that it was trained on: validation loss {scores['validation_4bit']['loss']:.4f}, "
        f"{scores['loss_distance_4bit']:+.4f} from the one above."
        for model, scores in evaluated.items()
        if "validation_4bit" in scores
    ]
    return "\n\n".join(lines)


def _gates(gates: Mapping[str, Any]) -> str:
    if gates["verdict"] == "none":
        return "No gates are set (`evaluate.gates`), so `finetune promote` has nothing to judge it by."
    rows = [
        (f"`{key}`", f"{check['found']:.4g}", f"{check['expected']:.4g}", "passed" if check["passed"] else "**failed**")
        for key, check in sorted(gates["checks"].items())
    ]
    return _table(("gate", "found", "at least", "verdict"), rows)


def _sample(sample: Mapping[str, Any]) -> str:
    """One prompt and its answers as plain text: no markup in them can end the block, because each line begins with our word or blanks."""
    lines = [_line("prompt", sample["slice"].replace("_", " "), sample["prompt"]), _line("expected", "", sample["expected"])]
    lines += [_line(model, verdict, sample[model]) for model, verdict in sample["verdicts"].items()]
    return "\n".join(("```text", *lines, "```"))


def _line(name: str, note: str, text: str) -> str:
    """A text behind its name: blanks for what can't be printed, wrapped, and cut when it is long."""
    start = f"{name:<10}{note:<14}"
    shown = " ".join("".join(char if char.isprintable() else " " for char in text).split()) or "(nothing)"
    return textwrap.fill(shown, WIDTH, initial_indent=start, subsequent_indent=" " * len(start), max_lines=LINES, placeholder=" …")


def _training(metrics: Mapping[str, Metrics]) -> str:
    train, dpo = metrics["train"], metrics["dpo"]
    share = train["trainable_parameters"] / train["parameters"]
    return (
        f"Supervised: {train['trainable_parameters']:,} of {train['parameters']:,} parameters trained ({share:.2%}), "
        f"loss {train['loss']:.4f} over the last steps. "
        f"DPO: its loss began at {dpo['first']['loss']:.6f} (ln 2 is 0.693147) with a margin of {dpo['first']['margin']:.6f}, "
        f"and ended at {dpo['dpo_loss']:.4f}."
    )


def _data(metrics: Mapping[str, Metrics]) -> str:
    prepared, formatted = metrics["prepare"], metrics["format"]
    rejected, changed = (sum(prepared[name].values()) for name in ("rejected", "changed"))
    also = f", of which {changed:,} were changed" if changed else ""
    conflicts = f" {prepared['conflicts']:,} prompts have several answers." if prepared["conflicts"] else ""
    story = f"Read {prepared['read']:,} records, kept {prepared['kept']:,}{also}, rejected {rejected:,}.{conflicts}"
    reasons = "\n\n".join(
        _table((heading, "records"), sorted(prepared[name].items(), key=lambda item: -item[1]))
        for heading, name in (("rejected because", "rejected"), ("changed because", "changed"), ("personal data", "personal"))
        if prepared[name]
    )
    counted = [(f"{kind} {split}", counts) for kind in ("sft", "preference") for split, counts in formatted[kind].items()]
    keys = ("records", "tokens", "supervised_tokens", "median", "longest")
    splits = _table(
        ("split", *(key.replace("_", " ") for key in keys)), [(name, *(f"{counts[key]:,}" for key in keys)) for name, counts in counted]
    )
    dropped = f"{formatted['dropped']:,} records were longer than allowed and left out." if formatted.get("dropped") else ""
    return "\n\n".join(part for part in (story, reasons, splits, dropped) if part)


def _environment(environment: Fingerprint) -> str:
    rows = [(name, text) for name, text in environment.lines().items() if name not in environment.libraries]
    libraries = ", ".join(f"{name} {version}" for name, version in environment.libraries.items())
    return (
        f"In the environment `{environment.id}`. The same commit, data and settings give the same bytes where it is the same; "
        f"in another one they may not.\n\n{_table(('', ''), rows)}\n\nPackages that decide bytes: {libraries}."
    )


def _makers(makers: Mapping[str, Any] | None) -> str:
    if makers is None:
        return "Not known: tracking is off, or MLflow could not be asked."
    return "\n".join(f"- {stage}: {_maker(maker)}" for stage, maker in sorted(makers.items()))


def _maker(maker: Mapping[str, Any] | None) -> str:
    if maker is None:
        return "not found in MLflow; it was made where MLflow did not hear of it"
    made = f"made by {'this run' if maker['here'] else 'run ' + maker['name']} (`{maker['run']}`)"
    if maker["differences"]:
        return f"{made}, in another environment, `{maker['environment']}`: {'; '.join(maker['differences'])}"
    return made if maker["environment"] else f"{made}, in an environment that was not noted"


def _again(origin: Origin, experiment: str | None) -> str:
    if origin.commit is None:
        return f"The commit is not known: {origin.missing}. With the same files, params.yaml and packages: `.venv/bin/dvc repro`."
    commands = [f"git checkout {origin.commit}", *(["git apply uncommitted.diff"] if origin.dirty else []), ".venv/bin/dvc repro"]
    lines = ["```\n" + "\n".join(commands) + "\n```"]
    if origin.dirty:
        lines.append("Files differed from the commit; the difference is `uncommitted.diff` among this run's artifacts in MLflow.")
    if experiment:
        lines.append(f"In this repository: `.venv/bin/dvc exp apply {experiment}`.")
    return "\n\n".join(lines)


def _picture(title: str) -> str:
    return f"![{title}](figures/{FIGURES[title]}.png)"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    return "\n".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in (head, ["---"] * len(head), *rows))
