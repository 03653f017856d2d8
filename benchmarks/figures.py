"""The figures that issues ask for, measured and judged.

python -m benchmarks.figures              # judge all results against benchmarks/asked.yaml; exit status 0 only if all are OK
python -m benchmarks.figures pipeline     # measure one, and judge it
"""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import record
from benchmarks.judging import Figure, Line, State, Verdict, judge, read_asked
from finetune.errors import FinetuneError, SetupError

ASKED = Path("benchmarks/asked.yaml")
COLOURS: dict[State, str] = {"OK": "green", "SHORT": "red", "STALE": "yellow", "MISSING": "yellow"}
FILES_SHOWN = 10

log = logging.getLogger(__name__)


def main(name: Annotated[str | None, typer.Argument(help="The figure to measure; without it, all results are judged.")] = None) -> None:
    """Judge the figures, or measure one of them first."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    root = Path.cwd()
    try:
        asked = read_asked(root / ASKED)
        if name is not None:
            asked = measure(name, asked, root)
        verdicts = [judge(figure, wanted, root) for figure, wanted in asked.items()]
    except FinetuneError as error:
        sys.exit(str(error))
    show(verdicts)
    sys.exit(any(verdict.state != "OK" for verdict in verdicts))


def measure(name: str, asked: dict[str, Figure], root: Path) -> dict[str, Figure]:
    """Measure a figure, and return it with the others that its run serves."""
    if name not in asked:
        raise SetupError("no such figure:", [f"found {name}, expected one of {', '.join(asked)}"])
    source = asked[name].measured_by or name
    load = record.machine()["load_before"]
    if load > record.QUIET:
        log.warning("the machine is busy (load %.1f, expected at most %.1f): times will be longer than on quiet cores", load, record.QUIET)
    log.info("wrote %s", record.measure(source, root).relative_to(root))
    return {figure: wanted for figure, wanted in asked.items() if source in (figure, wanted.measured_by)}


def show(verdicts: list[Verdict]) -> None:
    """Print a table: a line a bound, and under a stale figure the files that changed."""
    table = Table("figure", "what is asked", "found", "asked", "verdict")
    table.columns[2].justify = table.columns[3].justify = "right"
    for verdict in verdicts:
        first = True
        for line in verdict.lines or [Line(verdict.asked.asks, "", None)]:
            state = verdict.state if verdict.state in ("STALE", "MISSING") else _state(line)
            table.add_row(verdict.name if first else "", line.what, _number(line.found, line.unit), _bound(line), state)
            first = False
        for path in verdict.changed[:FILES_SHOWN]:
            table.add_row("", f"  changed: {path}", "", "", "")
        if len(verdict.changed) > FILES_SHOWN:
            table.add_row("", f"  … and {len(verdict.changed) - FILES_SHOWN} more files", "", "", "")
        table.add_section()
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for verdict in verdicts:
        remedy = f"make figure-{verdict.name}" if verdict.state in ("STALE", "MISSING") else ""
        console.print(f"[{COLOURS[verdict.state]}]{verdict.state:8}[/] {verdict.name:14}{remedy}".rstrip(), highlight=False)


def _state(line: Line) -> str:
    """The mark of one line: nothing for what is only shown."""
    if not line.sign:
        return ""
    state: State = "OK" if line.holds else "SHORT"
    return f"[{COLOURS[state]}]{state}[/]"


def _bound(line: Line) -> str:
    return f"{line.sign} {_number(line.bound, line.unit)}" if line.bound is not None else ""


def _number(value: float | None, unit: str) -> str:
    """Up to three decimals, as many as are needed; nothing for a number that is not there."""
    if value is None:
        return ""
    number = f"{value:.2g}" if 0 < abs(value) < 0.001 else f"{value:,.3f}".rstrip("0").rstrip(".")
    return f"{number} {unit}" if unit else number


if __name__ == "__main__":
    typer.run(main)
