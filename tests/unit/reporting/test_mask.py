"""reports/format.html: each token coloured by what is done with it, safe against any text, and one file that fetches nothing."""

import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from finetune.config.schema import Config
from finetune.data.chat import IGNORED
from finetune.models.base import load_tokenizer
from finetune.reporting import mask
from finetune.reporting.mask import Block
from finetune.reporting.style import STYLE

HOSTILE = "</span></style><script>alert(1)</script><img src=x onerror=y> \"&amp;' \u202egnp\x00\x1b[31m"
REPORT = {
    "records": 1,
    "tokens": 20,
    "supervised_tokens": 5,
    "longest": 20,
    "median": 20,
    "cut": 1,
    "dropped": 2,
    "overlong_share": 0.75,
    "length_at_1_percent": 30,
    "histogram": [{"length": 8 * (place + 1), "records": place % 3} for place in range(40)],
}


@pytest.fixture
def config(workspace: Path, compose: Callable[..., Config]) -> Config:
    return compose("experiment=tiny")


@pytest.fixture
def tokenizer(config: Config) -> PreTrainedTokenizerBase:
    return load_tokenizer(config.model)


def ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def conversation(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> dict[str, Any]:
    asked, said = ids(tokenizer, prompt), ids(tokenizer, answer)
    return {"id": "0" * 16, "slice": "new_home", "input_ids": asked + said, "labels": [IGNORED] * len(asked) + said}


def page(config: Config, tokenizer: PreTrainedTokenizerBase, *rows: dict[str, Any], split: str = "sft/train") -> str:
    return mask.page({split: rows}, {split: REPORT}, tokenizer, config)


def shown(html: str, kind: str) -> list[str]:
    """The text of each stretch of a kind, with the signs for white space taken back."""
    runs = re.findall(rf'<span class="{kind}">((?:<(span|b) title="[\d ]+">.*?</\2>)+)</span>', html, re.DOTALL)
    texts = [re.sub(r"<i>(↵|→)</i>", "", run) for run, _ in runs]
    return [unescape(re.sub(r"<[^>]+>", "", text.replace("<i>·</i>", " "))) for text in texts]


class Balanced(HTMLParser):
    """Raises AssertionError where a tag is closed that is not the last one open; keeps names of elements and of attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.links: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.update([tag, *(name for name, _ in attrs)])
        self.links += [value for name, value in attrs if name in ("href", "src")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.update([tag, *(name for name, _ in attrs)])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(html: str) -> Balanced:
    parser = Balanced()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def test_learned_and_read_tokens_are_told_apart(config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
    html = page(config, tokenizer, conversation(tokenizer, "<|im_start|>user\nhi  you<|im_end|>\n", "a\tb c<|im_end|>"))
    assert shown(html, "learned") == ["a\tb c<|im_end|>"]
    assert shown(html, "read") == ["<|im_start|>user\nhi  you<|im_end|>\n"]
    assert re.search(r'<b title="2">&lt;\|im_end\|&gt;</b></span></div>', html)


def test_several_answers_are_several_stretches(config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
    first, second = (conversation(tokenizer, f"ask{text}", text) for text in ("one", "two"))
    row = {**first, "input_ids": first["input_ids"] + second["input_ids"], "labels": first["labels"] + second["labels"]}
    assert shown(page(config, tokenizer, row), "learned") == ["one", "two"]


def test_pairs_show_both_answers(config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
    row = {"id": "0", "slice": "seen", "prompt_ids": ids(tokenizer, "which"), "chosen_ids": ids(tokenizer, "this")}
    row["rejected_ids"] = ids(tokenizer, " that")
    html = page(config, tokenizer, row, split="preference/train")
    assert [shown(html, kind) for kind in ("read", "chosen", "rejected")] == [["which"], ["this"], [" that"]]


@pytest.mark.parametrize("text", ["grüß dich", "日本語", "🙂 👩‍👩‍👧", "e\u0301"])
def test_a_character_of_several_tokens_is_shown_whole(config: Config, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    found = ids(tokenizer, text)
    assert len(found) >= len(text)
    tokens = list(mask.spelled(Block(found, ["learned"] * len(found), []), tokenizer))
    assert "".join(token for _, _, token in tokens) == text
    assert [number for _, numbers, _ in tokens for number in numbers] == found


def test_half_a_character_is_shown_as_such(tokenizer: PreTrainedTokenizerBase) -> None:
    found = ids(tokenizer, "a🙂")[:-1]
    tokens = list(mask.spelled(Block(found, ["learned"] * len(found), []), tokenizer))
    assert [number for _, numbers, _ in tokens for number in numbers] == found


def test_hostile_text_is_text(config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
    row = {**conversation(tokenizer, HOSTILE, HOSTILE), "id": HOSTILE, "slice": HOSTILE}
    html = page(config, tokenizer, row)
    seen = parsed(html)
    assert not {"script", "img", "onerror", "iframe", "object", "link"} & seen.seen
    assert "\u202e" not in shown(html, "learned")[0]
    assert "<i>U+202E</i>" in html
    assert "<i>U+0000</i>" in html
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", shown(html, "learned")[0])


def test_nothing_is_fetched_and_nothing_runs(config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
    html = page(config, tokenizer, conversation(tokenizer, "see https://example.org", "http://example.org"))
    assert parsed(html).links == ["#sft/train"]
    assert "default-src 'none'" in html
    assert "url(" not in html
    assert "@import" not in html


def test_a_long_record_shows_its_two_ends(config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
    row = conversation(tokenizer, "ab " * 2000, "the end<|im_end|>")
    html = page(config, tokenizer, row)
    assert f"… {len(row['input_ids']) - 800:,} tokens …" in html
    assert shown(html, "learned") == ["the end<|im_end|>"]
    assert len(html) < 100_000


def test_the_counts_and_the_histogram_are_there(config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
    html = page(config, tokenizer, conversation(tokenizer, "a", "b"))
    assert "75.0% of the records are longer than format.max_length=" in html
    assert html.count("<rect") == sum(one["records"] > 0 for one in REPORT["histogram"])  # type: ignore[attr-defined]
    assert "<title>9 to 16 tokens: 1 records</title>" in html
    parsed(html)


def test_the_same_rows_give_the_same_bytes(config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
    row = conversation(tokenizer, "a", "b")
    assert page(config, tokenizer, row) == page(config, load_tokenizer(config.model), row)


def test_a_style_with_white_paper_in_the_dark_is_never_mixed() -> None:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    names = [set(re.findall(r"--[a-z-]+(?=:)", part)) for part in (light, dark)]
    assert names[0] == names[1]
    assert set(re.findall(r"var\((--[a-z-]+)\)", STYLE)) <= names[0]
