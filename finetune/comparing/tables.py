"""Differences as tables in a terminal."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from finetune.comparing import chance
from finetune.comparing.chance import Judgement
from finetune.comparing.differences import Differences, Module, Score
from finetune.comparing.versions import Version

WIDTH = 150  # of what is piped; a terminal has its own
HASH = 8  # digits
VERDICTS = {
    chance.WITHIN: Text("within it", "dim"),
    chance.BEYOND: Text("beyond it", "bold"),
    chance.UNKNOWN: Text("no seeds ran", "yellow"),
}
MANY = 8  # stages that are named one by one


def show(found: Differences, console: Console) -> None:
    """Print what differs, section by section; what is the same is left out."""
    if not console.is_terminal:
        console.width = WIDTH
    for part in _parts(found):
        console.print(part, soft_wrap=isinstance(part, Text))


def _parts(found: Differences) -> Iterator[RenderableType]:
    for letter, one in zip("AB", (found.a, found.b), strict=True):
        yield Text(f"{letter}  {one.name}  ({one.title}){_seed(one)}")
        yield from (Text(f"   {note}", style="yellow") for note in one.notes)
    if found.only_seed:
        yield Text("What went into their scores differs in the seed alone: the differences of scores are chance.")
    yield from _settings(found)
    yield from _data(found)
    yield from _code(found)
    yield from _environment(found)
    yield from _scores(found)


def _settings(found: Differences) -> Iterator[RenderableType]:
    if not found.params:
        yield Text("\nparams: the same")
        return
    rows = [(key, *(_value(one.params[key]) if key in one.params else "none" for one in (found.a, found.b))) for key in found.params]
    yield _table(("params", "A", "B"), rows)


def _data(found: Differences) -> Iterator[RenderableType]:
    if not found.data and not found.counts:
        yield Text("\ndata, models and reports: the same bytes")
        return
    rows = [
        (path, *(md5[:HASH] if md5 else "none" for md5 in pair), found.b.lock.writer(path) or found.a.lock.writer(path) or "given")
        for path, pair in found.data.items()
    ]
    rows += [(f"  {key}", _number(a), _number(b), "") for key, (a, b) in found.counts.items()]
    yield _table(("data, models, reports", "A", "B", "made by"), rows)


def _code(found: Differences) -> Iterator[RenderableType]:
    if not found.code:
        yield Text("\ncode: the same, of every stage")
        return
    total = len(found.b.lock.entries)
    yield _table(("code", "", "read by"), ((module.path, module.what, _stages(module, total)) for module in found.code))


def _environment(found: Differences) -> Iterator[RenderableType]:
    unknown = found.trouble or "MLflow has not heard of all stages"
    match found.same_environment:
        case True:
            yield Text(f"\nenvironment: the same, {next(iter(found.environments[0].values()))}")
        case False:
            yield Text("\nenvironment: not the same, so hashes can't be compared, scores can")
            yield from (Text(f"  {line}") for line in found.fingerprints)
        case None:
            yield Text(f"\nenvironment: processors and drivers are not known ({unknown}), so hashes may differ by them alone")
    for lock, pairs in found.packages.items():
        yield _table((lock, "A", "B"), ((package, a or "none", b or "none") for package, (a, b) in pairs.items()))
    if not found.packages:
        yield Text("  the locks of packages are the same")


def _scores(found: Differences) -> Iterator[RenderableType]:
    if not found.scores:
        yield Text(f"\nmetrics: all {found.equal} are the same" if found.equal else "\nmetrics: there are none to compare")
        return
    seeded = any(score.judgement and score.judgement.deviation is not None for score in found.scores)
    columns = ("metrics", "A", "B", "B - A", *(("sd (seeds of A, B)", "by their means") if seeded else ()), "the spread of seeds")
    yield _table(columns, (_row(score, seeded) for score in found.scores))
    if found.equal:
        yield Text(f"\n{found.equal} more are the same.")
    judged = {score.judgement.verdict for score in found.scores if score.judgement}
    if judged & {chance.WITHIN, chance.BEYOND}:
        yield Text(
            "within it: 95 of 100 pairs of runs that differ in their seeds alone differ by less; of 20 scores one is beyond it by chance."
        )
    if chance.UNKNOWN in judged:
        yield Text("no seeds ran: what chance alone makes of it is not known; docs/comparing.md says how to find out.")


def _row(score: Score, seeded: bool) -> tuple[str | Text, ...]:
    difference = f"{score.b - score.a:+.4g}" if score.a is not None and score.b is not None else ""
    values = (_measured(value, ends) for value, ends in ((score.a, score.interval_a), (score.b, score.interval_b)))
    judged = score.judgement
    return (
        score.name,
        *values,
        difference,
        *((_spread(score, judged), _means(judged)) if seeded else ()),
        VERDICTS[judged.verdict] if judged else "",
    )


def _spread(score: Score, judged: Judgement | None) -> str:
    """`0.021 (4, 3)`: standard deviation over seeds, and how many of them A and B have."""
    counts = (len(spread.values) if spread else 0 for spread in (score.spread_a, score.spread_b))
    return f"{judged.deviation:.2g} ({', '.join(map(str, counts))})" if judged and judged.deviation is not None else ""


def _means(judged: Judgement | None) -> str:
    """`+0.012 ± 0.041`: how far the means of the seeds are apart, and how far chance would have them."""
    return f"{judged.change:+.3g} ± {judged.allowed:.2g}" if judged and judged.change is not None and judged.allowed is not None else ""


def _measured(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "none"
    return _number(value) + (f" ({interval[0]:.3g} to {interval[1]:.3g})" if interval else "")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:,.0f}" if value == int(value) else f"{value:.4g}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "null" if value is None else str(value)


def _stages(module: Module, total: int) -> str:
    if len(module.stages) >= total:
        return "all stages"
    return f"all stages but {total - len(module.stages)}" if len(module.stages) > MANY else ", ".join(module.stages)


def _seed(one: Version) -> str:
    return f", seed {one.params['seed']}" if "seed" in one.params else ""


def _table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", title=" ", title_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    return table
