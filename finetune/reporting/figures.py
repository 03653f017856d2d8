"""The pictures of a run as PNG files, with the same bytes for the same numbers: no time or version is written into them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from finetune import outputs
from finetune.evaluation.slices import scored
from finetune.reporting.evidence import MODELS, Metrics

INK, QUIET, GRID = "#1f2933", "#7b8794", "#e4e7eb"
COLORS = {"base": "#a8b3bf", "train": "#2f6f9f", "dpo": "#d9822b", "chosen": "#3d8b5f", "rejected": "#b8433f"}
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "legend.frameon": False,
}
BARS = {"ecolor": INK, "elinewidth": 1, "capsize": 3}
DASHED = (0, (4, 3))
WINDOW = 25  # a curve is smoothed over this part of its steps: 1/25


def supervised(train: Metrics, path: Path) -> None:
    """The loss of supervised fine-tuning by step, and the validation loss at its end."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        axes = figure.subplots()
        steps = _steps(train, "step")
        _curve(axes, steps, _steps(train, "loss"), COLORS["train"], "training loss")
        validation = train["validation_loss"]
        axes.axhline(
            validation, color=COLORS["dpo"], linestyle=DASHED, linewidth=1.4, label=f"validation loss at the end: {validation:.3f}"
        )
        axes.set(title="Supervised fine-tuning", xlabel="optimizer step", ylabel="loss a supervised token", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper right")
        _save(figure, path)


def preference(dpo: Metrics, path: Path) -> None:
    """DPO: its own loss from ln 2 on, and the rewards of chosen and rejected answers, whose distance is the margin."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        steps = _steps(dpo, "step")
        _curve(left, steps, _steps(dpo, "dpo_loss"), COLORS["dpo"], "DPO's loss")
        left.axhline(np.log(2), color=QUIET, linestyle=DASHED, linewidth=1, label="ln 2, where it must begin")
        left.set(title="Direct preference optimisation", xlabel="optimizer step", ylabel="loss a pair", ylim=(0, None))
        left.legend(loc="best")
        chosen, rejected = _steps(dpo, "chosen"), _steps(dpo, "rejected")
        for name, values in (("chosen", chosen), ("rejected", rejected)):
            _curve(right, steps, values, COLORS[name], name)
        margin = f"margin, {_smooth(chosen - rejected)[-1]:+.2f} at the end"
        right.fill_between(steps, _smooth(chosen), _smooth(rejected), color=COLORS["dpo"], alpha=0.12, linewidth=0, label=margin)
        right.axhline(0, color=QUIET, linewidth=0.8)
        right.set(title="Rewards against the reference", xlabel="optimizer step", ylabel="reward (β × log-ratio)")
        right.legend(loc="best")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(axis="x", visible=False)
        _save(figure, path)


def lengths(tokens: Mapping[str, npt.NDArray[np.int64]], limit: int, path: Path) -> None:
    """How long the records are that were trained on, beside the limit."""
    titles = {"supervised": "conversations", "preference": "pairs (longer answer)"}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        for axes, (name, values), color in zip(figure.subplots(1, 2), tokens.items(), (COLORS["train"], COLORS["dpo"]), strict=True):
            low, high = int(values.min()), int(values.max())
            width = max(1, -(-(high - low + 1) // 40))
            axes.hist(values, bins=np.arange(low, high + width + 1, width) - 0.5, color=color, rwidth=0.9)
            median = float(np.median(values))
            axes.axvline(median, color=INK, linewidth=1.2, linestyle=DASHED)
            about = f"tokens: median {median:.0f}, longest {high:,} of {limit:,} allowed"
            axes.set(title=f"{len(values):,} {titles[name]}", xlabel=about, ylabel="records")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(axis="x", visible=False)
            axes.margins(y=0.1)
        _save(figure, path)


def before_after(evaluated: Mapping[str, Metrics], confidence: float, path: Path) -> None:
    """Exact match of base, train and dpo on each slice of the test set, with intervals."""
    names = scored(evaluated)
    models = [model for model in MODELS if model in evaluated]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.8), layout="constrained")
        axes = figure.subplots()
        width = 0.8 / len(models)
        for place, model in enumerate(models):
            scores = [evaluated[model][name] for name in names]
            values, low, high = (np.array([score[f"exact_match{end}"] for score in scores]) for end in ("", "_low", "_high"))
            at = np.arange(len(names)) + (place - (len(models) - 1) / 2) * width
            axes.bar(
                at, values, width * 0.92, yerr=np.maximum([values - low, high - values], 0), color=COLORS[model], error_kw=BARS, label=model
            )
            for x, value, top in zip(at, values, np.maximum(values, high), strict=True):
                axes.annotate(f"{value:.0%}", (x, top), (0, 3), textcoords="offset points", ha="center", fontsize=9)
        labels = [f"{name.replace('_', ' ')}\n{evaluated[models[-1]][name]['records']} prompts" for name in names]
        axes.set_xticks(range(len(names)), labels, color=INK)
        axes.set(title=f"Exact match before and after, with {confidence:.0%} intervals", ylim=(0, 1.12))
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(axis="x", visible=False)
        axes.tick_params(axis="x", length=0)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
        _save(figure, path)


def _steps(metrics: Metrics, key: str) -> npt.NDArray[np.float64]:
    return np.array([step[key] for step in metrics["steps"]], dtype=np.float64)


def _curve(axes: Axes, steps: npt.NDArray[np.float64], values: npt.NDArray[np.float64], color: str, label: str) -> None:
    """Every step thin, and their running mean thick; a single step as a dot."""
    axes.plot(steps, values, color=color, alpha=0.3, linewidth=1, marker="o" if len(steps) == 1 else None)
    axes.plot(steps, _smooth(values), color=color, linewidth=2, label=label)


def _smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over the steps around each, fewer at the ends, so that nothing is invented there."""
    reach = len(values) // WINDOW
    return np.array([values[max(0, at - reach) : at + reach + 1].mean() for at in range(len(values))])


def _save(figure: Figure, path: Path) -> None:
    with outputs.file(path) as part:
        figure.savefig(part, format="png", dpi=150, facecolor="white", metadata={"Software": None})
