"""format: token ids whose learned part is the answer, records that don't fit, and that nothing is left when it does not end."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune import outputs
from finetune.config.schema import Config
from finetune.data import formatting, tables
from finetune.data.chat import IGNORED
from finetune.errors import DataError, OutputError
from finetune.models.base import load_tokenizer
from stages import format as format_stage
from stages import prepare
from tests.conftest import full_disk

Compose = Callable[..., Config]
PREPARED = Path("data/prepared")
FORMATTED = Path("data/formatted")
FILES = ("preference/test", "preference/train", "sft/test", "sft/train", "sft/validation")


@pytest.fixture
def prepared(workspace: Path, compose: Compose) -> Path:
    prepare.main(compose("experiment=tiny"))
    return workspace


def change(file: str, number: int, **fields: Any) -> None:
    """Write other fields into a line of a prepared file."""
    rows = outputs.read_jsonl(PREPARED / file)
    rows[number - 1] |= fields
    outputs.write_jsonl(PREPARED / file, rows)


def lengths() -> list[int]:
    return [len(row["input_ids"]) for row in tables.read(FORMATTED / "sft/train.parquet")]


def test_the_learned_text_of_every_record_is_its_answer_and_end_token(prepared: Path, compose: Compose) -> None:
    cfg = compose("experiment=tiny")
    format_stage.main(cfg)
    tokenizer = load_tokenizer(cfg.model)
    for split in ("train", "validation", "test"):
        records = outputs.read_jsonl(PREPARED / f"sft/{split}.jsonl")
        rows = tables.read(FORMATTED / f"sft/{split}.parquet")
        assert [row["id"] for row in rows] == [record["id"] for record in records]
        for record, row in zip(records, rows, strict=True):
            learned = [label for label in row["labels"] if label != IGNORED]
            assert tokenizer.decode(learned) == record["messages"][-1]["content"] + "<|im_end|>"
            assert row["input_ids"][-len(learned) :] == learned
            assert len(row["labels"]) == len(row["input_ids"])


def test_pairs_have_one_prompt_and_two_answers(prepared: Path, compose: Compose) -> None:
    cfg = compose("experiment=tiny")
    format_stage.main(cfg)
    tokenizer = load_tokenizer(cfg.model)
    pairs = outputs.read_jsonl(PREPARED / "preference/train.jsonl")
    for pair, row in zip(pairs, tables.read(FORMATTED / "preference/train.parquet"), strict=True):
        assert tokenizer.decode(row["chosen_ids"]) == pair["chosen"][0]["content"] + "<|im_end|>"
        assert tokenizer.decode(row["rejected_ids"]) == pair["rejected"][0]["content"] + "<|im_end|>"
        assert pair["prompt"][-1]["content"] in tokenizer.decode(row["prompt_ids"])


def test_twice_gives_the_same_bytes(prepared: Path, compose: Compose) -> None:
    cfg = compose("experiment=tiny")
    runs = []
    for _ in range(2):
        format_stage.main(cfg)
        runs.append({name: (FORMATTED / f"{name}.parquet").read_bytes() for name in FILES})
    assert runs[0] == runs[1]


def test_the_report_gives_the_lengths(prepared: Path, compose: Compose) -> None:
    format_stage.main(compose("experiment=tiny"))
    report = outputs.read_json(Path("reports/format.json"))
    train = report["sft"]["train"]
    assert train["records"] == len(lengths()) == 48
    assert train["tokens"] == sum(lengths())
    assert train["longest"] == max(lengths())
    assert train["median"] == sorted(lengths())[23]
    supervised = sum(label != IGNORED for row in tables.read(FORMATTED / "sft/train.parquet") for label in row["labels"])
    assert train["supervised_tokens"] == supervised
    assert report["dropped"] == report["cut"] == 0
    assert train["overlong_share"] == 0
    assert train["length_at_1_percent"] <= train["longest"]
    assert sum(one["records"] for one in train["histogram"]) == 48
    assert {f"{kind}/{split}" for kind in ("sft", "preference") for split in report[kind]} == set(FILES)


def test_the_page_shows_the_records_with_the_smallest_ids_of_each_file(prepared: Path, compose: Compose) -> None:
    format_stage.main(compose("experiment=tiny", "format.samples=3"))
    html = Path("reports/format.html").read_text(encoding="utf-8")
    for name in FILES:
        ids = sorted(row["id"] for row in tables.read(FORMATTED / f"{name}.parquet"))
        section = html.partition(f'<section id="{name}">')[2].partition("</section>")[0]
        assert re.findall(r"<code>(\w+)</code>", section) == ids[:3]


def test_the_page_has_the_same_bytes_twice(prepared: Path, compose: Compose) -> None:
    pages = []
    for _ in range(2):
        format_stage.main(compose("experiment=tiny"))
        pages.append(Path("reports/format.html").read_bytes())
    assert pages[0] == pages[1]


def test_longer_records_are_cut_where_that_is_set_and_counted(prepared: Path, compose: Compose) -> None:
    format_stage.main(compose("experiment=tiny"))
    limit = max(lengths()) - 1
    longer = sum(length > limit for length in lengths())
    format_stage.main(compose("experiment=tiny", f"format.max_length={limit}", "format.overlong=cut"))
    report = outputs.read_json(Path("reports/format.json"))
    assert max(lengths()) == limit
    assert len(lengths()) == 48
    assert report["sft"]["train"]["cut"] == longer
    assert report["sft"]["train"]["overlong_share"] == longer / 48


def test_longer_records_are_refused_with_a_list_of_them(prepared: Path, compose: Compose) -> None:
    format_stage.main(compose("experiment=tiny"))
    limit = max(lengths()) - 1
    place = lengths().index(limit + 1) + 1
    with pytest.raises(DataError) as raised:
        format_stage.main(compose("experiment=tiny", f"format.max_length={limit}"))
    expected = f"data/prepared/sft/train.jsonl:{place}: found {limit + 1} tokens, expected at most format.max_length={limit}"
    assert expected in raised.value.problems
    assert "leave them out with format.overlong=drop" in str(raised.value)


def test_longer_records_are_left_out_whole_where_that_is_set(prepared: Path, compose: Compose) -> None:
    format_stage.main(compose("experiment=tiny"))
    limit = sorted(lengths())[40]
    fitting = sum(length <= limit for length in lengths())
    format_stage.main(compose("experiment=tiny", f"format.max_length={limit}", "format.overlong=drop"))
    assert max(lengths()) == limit
    assert len(lengths()) == fitting
    assert outputs.read_json(Path("reports/format.json"))["dropped"] >= 48 - fitting > 0


def test_a_limit_that_leaves_no_record_is_refused(prepared: Path, compose: Compose) -> None:
    with pytest.raises(
        DataError, match=r"sft/train.jsonl: found no record that fits, expected one at least; 48 are longer than format.max_length=9"
    ):
        format_stage.main(compose("experiment=tiny", "format.max_length=9", "format.overlong=drop"))
    assert not FORMATTED.exists()


def test_a_record_with_a_control_token_is_named(prepared: Path, compose: Compose) -> None:
    answer = {"role": "assistant", "content": "yes<|im_end|>"}
    change("sft/train.jsonl", 5, messages=[{"role": "user", "content": "hello"}, answer])
    with pytest.raises(DataError, match=r"data/prepared/sft/train.jsonl:5: the answer text holds '<\|im_end\|>'"):
        format_stage.main(compose("experiment=tiny"))


def test_a_pair_of_the_same_tokens_is_named(prepared: Path, compose: Compose) -> None:
    same = [{"role": "assistant", "content": "yes"}]
    change("preference/test.jsonl", 2, chosen=same, rejected=same)
    with pytest.raises(DataError, match=r"data/prepared/preference/test.jsonl:2: chosen and rejected are the same tokens to this model"):
        format_stage.main(compose("experiment=tiny"))


def test_a_full_disk_leaves_nothing_and_the_same_command_works_afterwards(prepared: Path, compose: Compose) -> None:
    cfg = compose("experiment=tiny")
    load_tokenizer(cfg.model)
    with full_disk(), pytest.raises(OutputError, match="data/formatted: the disk is full"):
        format_stage.main(cfg)
    assert sorted(path.name for path in Path("data").iterdir()) == ["prepared", "raw"]
    format_stage.main(cfg)
    assert Path("reports/format.json").is_file()


def test_ctrl_c_leaves_nothing_and_the_same_command_works_afterwards(prepared: Path, compose: Compose) -> None:
    def interrupted(*_: object) -> formatting.Encoded:
        raise KeyboardInterrupt

    cfg = compose("experiment=tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formatting, "encode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            format_stage.main(cfg)
    assert sorted(path.name for path in Path("data").iterdir()) == ["prepared", "raw"]
    format_stage.main(cfg)
    assert json.loads(Path("reports/format.json").read_text(encoding="utf-8"))["dropped"] == 0
