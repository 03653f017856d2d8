"""The scores as a table for the terminal."""

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

WIDTH = 100
ABREAST = 3  # metrics, with their intervals


def text(report: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """A row for each slice and model: records, each metric in per cent with its interval; then a row a model of likelihoods."""
    scores = [_scores(report, metrics[place : place + ABREAST]) for place in range(0, len(metrics), ABREAST)]
    likelihoods = _table("model", "validation loss", "perplexity", "chosen more likely", "reward margin")
    for model, scored in report.items():
        validation, pairs = scored["validation"], scored["preference"]
        margin = f"{pairs['margin']:+.3f} ({pairs['margin_low']:+.3f} to {pairs['margin_high']:+.3f})"
        likelihoods.add_row(model, f"{validation['loss']:.4f}", f"{validation['perplexity']:,.2f}", _percent(pairs, "accuracy"), margin)
    written = StringIO()
    console = Console(file=written, width=WIDTH, force_terminal=False)
    console.print(*scores, likelihoods)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()).strip("\n")


def _scores(report: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> Table:
    scores = _table("slice", "model", "prompts", *(metric.replace("_", " ") for metric in metrics))
    slices = [name for name, scored in next(iter(report.values())).items() if isinstance(scored, Mapping) and "exact_match" in scored]
    for name in slices:
        for model, scored in report.items():
            cells = [_percent(scored[name], metric) for metric in metrics]
            scores.add_row(name.replace("_", " "), model, f"{scored[name]['records']:,}", *cells, end_section=model == list(report)[-1])
    return scores


def _table(*columns: str) -> Table:
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for place, column in enumerate(table.columns):
        column.justify = "left" if place == 0 or column.header == "model" else "right"
        column.no_wrap = True
    return table


def _percent(scores: Mapping[str, Any], metric: str) -> str:
    if metric not in scores:
        return ""
    return f"{100 * scores[metric]:.1f} % ({100 * scores[f'{metric}_low']:.0f} to {100 * scores[f'{metric}_high']:.0f})"
