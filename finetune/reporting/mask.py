"""reports/format.html: what is learned of a sample of the records, token by token, and how long records are; for a person.

One file without script, and nothing in it is fetched. Every text of the data and of the tokenizer is escaped, and white space and what
can't be printed have signs of their own. Nothing but rows, counts, tokenizer and settings decides its bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

from transformers import PreTrainedTokenizerBase

from finetune.config.schema import Config
from finetune.data.chat import IGNORED
from finetune.reporting.style import STYLE

ENDS = 400  # tokens shown of a record's beginning, and as many of its end
WINDOW = 8  # tokens before one that are decoded with it, because they decide how it is written
CHARACTER = 4  # tokens that one character may be divided over: its bytes
SIGNS = {" ": "<i>·</i>", "\n": "<i>↵</i>\n", "\t": "<i>→</i>\t", "\r": "<i>␍</i>"}
OVERLONG = {"refuse": "a longer one stops the stage", "drop": "longer ones are left out", "cut": "longer ones lose the {}"}
SIDES = {"left": "beginning of their prompt", "right": "end of their answer"}
TURNS = {"all": "Every answer of a conversation is learned", "last": "Only the last answer of a conversation is learned"}
LEGEND = {
    "learned": "learned: counts in the loss",
    "read": "read, not learned",
    "chosen": "the chosen answer",
    "rejected": "the rejected answer",
}
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
WIDE, HIGH, LEFT, UNDER = 960, 120, 8, 22  # of the histogram, in units of its own

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Block:
    """A sequence of tokens to show, with what is done with each."""

    ids: list[int]
    kinds: list[str]
    before: list[int]
    """What the model reads before them; it is not shown."""

    @property
    def told(self) -> str:
        """How many tokens there are of each kind."""
        return ", ".join(f"{self.kinds.count(kind):,} {kind}" for kind in LEGEND if kind in self.kinds)


def page(
    samples: Mapping[str, Sequence[Row]], reports: Mapping[str, Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, cfg: Config
) -> str:
    """Return the page; `samples` and `reports` are by the name of the split."""
    settings, name = cfg.format, escape(cfg.model.name)
    told = OVERLONG[settings.overlong].format(SIDES[settings.truncation_side])
    shown = f"Of each file, the {settings.samples} records with the smallest ids"
    links = "".join(
        f'<a href="#{escape(split)}">{escape(split)} <small>{report["records"]:,}</small></a>' for split, report in reports.items()
    )
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        f"<title>What {name} learns</title>\n<style>\n{STYLE}</style>\n</head>\n<body>",
        f"<header>\n<h1>What {name} learns, token by token</h1>",
        f"<p>{TURNS[settings.turns]}. Records have at most {settings.max_length:,} tokens: {told}. {shown}.</p>",
        f"{_legend()}\n<nav>{links}</nav>\n</header>\n<main>",
        *(_section(split, samples[split], report, tokenizer, settings.max_length) for split, report in reports.items()),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def spelled(block: Block, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[str, list[int], str]]:
    """Yield kind, ids and text of each token of a block; tokens that are parts of one character come together."""
    ids, start = [*block.before[-WINDOW:], *block.ids], len(block.before[-WINDOW:])
    first = start
    for place in range(start, len(ids)):
        kind = block.kinds[start - first]
        known, whole = (str(tokenizer.decode(ids[max(0, start - WINDOW) : end])) for end in (start, place + 1))
        text = whole[len(known) :] if whole.startswith(known) else str(tokenizer.decode(ids[start : place + 1]))
        more = place + 1 < len(ids) and block.kinds[place + 1 - first] == kind and place + 1 - start < CHARACTER
        if text.endswith("\ufffd") and more:
            continue
        yield kind, ids[start : place + 1], text
        start = place + 1


def visible(text: str) -> str:
    """A text as markup, with signs for white space and for what can't be printed: marks of direction can't reorder the page."""
    return "".join(SIGNS.get(char) or (escape(char) if char.isprintable() else f"<i>U+{ord(char):04X}</i>") for char in text)


def _legend() -> str:
    kinds = "".join(f'<li><span class="{kind}"><span>token</span></span> {text}</li>' for kind, text in LEGEND.items())
    signs = "".join(f"<li><i>{sign}</i> {text}</li>" for sign, text in (("·", "space"), ("↵", "line end"), ("→", "tab")))
    return f'<ul class="legend">{kinds}<li><span class="read"><b>&lt;token&gt;</b></span> special token</li>{signs}</ul>'


def _section(split: str, rows: Sequence[Row], report: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, limit: int) -> str:
    told = {
        "records": report["records"],
        "tokens": report["tokens"],
        "compared" if split.startswith("preference") else "learned": report["supervised_tokens"],
        "median length": report["median"],
        "longest": report["longest"],
        "length that would cut 1 %": report["length_at_1_percent"],
        "cut": report["cut"],
        "left out": report["dropped"],
    }
    counts = "".join(f"<div><dt>{what}</dt><dd>{number:,}</dd></div>" for what, number in told.items())
    records = "\n".join(_record(row, tokenizer) for row in rows)
    share = f"{report['overlong_share']:.1%} of the records are longer than format.max_length={limit:,}"
    chart = f"<figure>\n{_chart(report['histogram'], limit)}\n<figcaption>Records by their tokens; {share}.</figcaption>\n</figure>"
    return f'<section id="{escape(split)}">\n<h2>{escape(split)}</h2>\n<dl>{counts}</dl>\n{chart}\n{records}\n</section>'


def _record(row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
    blocks = _blocks(row)
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    shown = "\n".join(f'<div class="tokens">{_tokens(block, tokenizer, special)}</div>' for block in blocks)
    head = f"<code>{escape(row['id'])}</code> {escape(row['slice'].replace('_', ' '))}"
    return f"<article>\n<h3>{head} <small>{'; '.join(block.told for block in blocks)}</small></h3>\n{shown}\n</article>"


def _blocks(row: Row) -> list[Block]:
    if "input_ids" in row:
        return [Block(row["input_ids"], ["read" if label == IGNORED else "learned" for label in row["labels"]], [])]
    prompt = row["prompt_ids"]
    answers = [(kind, row[f"{kind}_ids"]) for kind in ("chosen", "rejected") if f"{kind}_ids" in row]
    return [Block(prompt, ["read"] * len(prompt), []), *(Block(ids, [kind] * len(ids), prompt) for kind, ids in answers)]


def _tokens(block: Block, tokenizer: PreTrainedTokenizerBase, special: set[int]) -> str:
    """A block as markup; of a long one its two ends."""
    total = len(block.ids)
    if total <= 2 * ENDS:
        return _runs(block, tokenizer, special)
    first = Block(block.ids[:ENDS], block.kinds[:ENDS], block.before)
    last = Block(block.ids[-ENDS:], block.kinds[-ENDS:], block.ids[:-ENDS])
    gap = f'<span class="gap">… {total - 2 * ENDS:,} tokens …</span>'
    return f"{_runs(first, tokenizer, special)}\n{gap}\n{_runs(last, tokenizer, special)}"


def _runs(block: Block, tokenizer: PreTrainedTokenizerBase, special: set[int]) -> str:
    runs = []
    for kind, tokens in groupby(spelled(block, tokenizer), key=lambda token: token[0]):
        runs.append(f'<span class="{kind}">{"".join(_token(ids, text, special) for _, ids, text in tokens)}</span>')
    return "".join(runs)


def _token(ids: list[int], text: str, special: set[int]) -> str:
    tag = "b" if ids[0] in special else "span"
    return f'<{tag} title="{" ".join(map(str, ids))}">{visible(text)}</{tag}>'


def _chart(bins: Sequence[Mapping[str, int]], limit: int) -> str:
    """The histogram as SVG: a bar a bin, those beyond the limit in another colour."""
    most = max(1, *(one["records"] for one in bins))
    step = (WIDE - 2 * LEFT) / len(bins)
    width = bins[0]["length"]
    parts = [f'<svg viewBox="0 0 {WIDE} {HIGH + UNDER}" role="img" aria-label="Records by their number of tokens">']
    for place, one in enumerate(bins):
        if one["records"]:
            high = max(HIGH * 0.88 * one["records"] / most, 1.5)
            lower = one["length"] - width + 1
            name = f"{lower:,} or more" if place == len(bins) - 1 else f"{lower:,} to {one['length']:,}"
            over = ' class="over"' if lower > limit else ""
            parts.append(
                f'<rect{over} x="{LEFT + place * step + 1:.1f}" y="{HIGH - high:.1f}" width="{step - 2:.1f}" height="{high:.1f}">'
                f"<title>{name} tokens: {one['records']:,} records</title></rect>"
            )
    parts.append(f'<line x1="{LEFT}" y1="{HIGH}" x2="{WIDE - LEFT}" y2="{HIGH}"/>')
    for place in range(0, len(bins), 8):
        anchor = "start" if place == 0 else "middle"
        parts.append(f'<text x="{LEFT + place * step:.1f}" y="{HIGH + 16}" text-anchor="{anchor}">{place * width:,}</text>')
    edge = LEFT + limit / width * step
    parts.append(f'<line class="limit" x1="{edge:.1f}" y1="0" x2="{edge:.1f}" y2="{HIGH}"/>')
    parts.append(f'<text x="{edge + 6:.1f}" y="12">max_length</text>\n</svg>')
    return "\n".join(parts)
