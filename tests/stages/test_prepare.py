"""prepare: what it writes and reports, and that nothing of it is left when it does not end."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune import outputs
from finetune.config.data import SmartHome
from finetune.config.schema import Config
from finetune.data.records import Conversation
from finetune.errors import DataError, OutputError
from stages import prepare
from tests.conftest import full_disk

Compose = Callable[..., Config]
PREPARED = Path("data/prepared")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def write_files(count: int = 80) -> None:
    records = [{"instruction": f"Say {number}.", "output": f"{number}."} for number in range(count)]
    pairs = [{"prompt": f"Count to {number}.", "chosen": "Yes.", "rejected": "No."} for number in range(count)]
    for name, rows in (("records", records), ("preferences", pairs)):
        Path(f"data/raw/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_the_embedded_data_is_written_as_conversations_and_pairs(workspace: Path, compose: Compose) -> None:
    prepare.main(compose("experiment=tiny"))
    assert sorted(bytes_of(PREPARED)) == [
        "preference/test.jsonl",
        "preference/train.jsonl",
        "rejected.jsonl",
        "sft/test.jsonl",
        "sft/train.jsonl",
        "sft/validation.jsonl",
    ]
    record, *_ = outputs.read_jsonl(PREPARED / "sft/train.jsonl")
    assert list(record) == ["id", "slice", "source", "messages"]
    assert [message["role"] for message in record["messages"]] == ["system", "user", "assistant"]
    pair, *_ = outputs.read_jsonl(PREPARED / "preference/test.jsonl")
    assert list(pair) == ["id", "slice", "source", "rule", "prompt", "chosen", "rejected"]


def test_the_report_counts_what_was_written(workspace: Path, compose: Compose) -> None:
    cfg = compose("experiment=tiny")
    prepare.main(cfg)
    report = outputs.read_json(Path("reports/prepare.json"))
    for kind, splits in report["splits"].items():
        for split, count in splits.items():
            assert count == len(outputs.read_jsonl(PREPARED / kind / f"{split}.jsonl"))
    assert report["kept"] == sum(count for splits in report["splits"].values() for count in splits.values())
    assert report["read"] == report["kept"] + sum(report["rejected"].values())
    assert report["splits"]["sft"]["train"] == cfg.prepare.max_records
    assert report["splits"]["preference"]["train"] == cfg.prepare.max_pairs
    assert isinstance(cfg.data, SmartHome)
    assert report["slices"] == {"seen": cfg.data.test_seen, "new_home": cfg.data.test_new_home, "new_phrasing": cfg.data.test_new_phrasing}
    assert report["license"] == cfg.data.license


@pytest.mark.parametrize("data", ["smart_home", "files"])
def test_twice_gives_the_same_bytes(workspace: Path, compose: Compose, data: str) -> None:
    cfg = compose("experiment=tiny") if data == "smart_home" else compose("data=files")
    write_files()
    prepare.main(cfg)
    once = bytes_of(PREPARED)
    prepare.main(cfg)
    assert bytes_of(PREPARED) == once


def test_your_own_records_are_split_and_those_refused_are_listed(workspace: Path, compose: Compose) -> None:
    write_files()
    with Path("data/raw/records.jsonl").open("a", encoding="utf-8") as records:
        records.write('{"instruction": "Say 7.", "output": "7."}\n')
    prepare.main(compose("data=files"))
    report = outputs.read_json(Path("reports/prepare.json"))
    assert report["read"] == 161
    assert report["kept"] == 160
    assert report["rejected"] == {"duplicate": 1}
    (row,) = outputs.read_jsonl(PREPARED / "rejected.jsonl")
    text = "Say 7.\n7."
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    assert row == {"source": "data/raw/records.jsonl", "line": 81, "rule": "duplicate", "sha256": sha256, "text": text}
    assert report["slices"] == {"all": report["splits"]["sft"]["test"]}


def test_of_too_many_records_those_are_kept_that_teach_most_of_every_kind_of_prompt(workspace: Path, compose: Compose) -> None:
    write_files()
    kinds = {"Name a colour": "red", "Tell me more": "a long answer with many different words in it, about one thing and another"}
    rows = [{"instruction": f"{kind} {number}.", "output": f"{answer} {number}"} for number in range(40) for kind, answer in kinds.items()]
    Path("data/raw/records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    prepare.main(compose("data=files", "prepare.max_records=20", "data.quality.near_duplicates=null"))
    kept = [record["messages"][0]["content"] for record in outputs.read_jsonl(PREPARED / "sft/train.jsonl")]
    assert {kind: sum(text.startswith(kind) for text in kept) for kind in kinds} == dict.fromkeys(kinds, 10)
    report = outputs.read_json(Path("reports/prepare.json"))
    assert report["rejected"] == {
        "beyond prepare.max_records": 80 - report["kept"] + report["splits"]["preference"]["train"] + report["splits"]["preference"]["test"]
    }


def test_more_room_than_records_keeps_all(workspace: Path, compose: Compose) -> None:
    write_files()
    prepare.main(compose("data=files", "prepare.max_records=2000"))
    assert outputs.read_json(Path("reports/prepare.json"))["rejected"] == {}


def test_too_few_records_stop_with_both_numbers_and_write_nothing(workspace: Path, compose: Compose) -> None:
    with pytest.raises(DataError, match=r"found 48 training records, expected prepare.min_records=49 at least"):
        prepare.main(compose("experiment=tiny", "prepare.min_records=49"))
    assert not any(PREPARED.parent.glob(".*"))
    assert not PREPARED.exists()


def test_a_full_disk_leaves_nothing_and_the_same_command_works_afterwards(workspace: Path, compose: Compose) -> None:
    cfg = compose("experiment=tiny")
    with full_disk(), pytest.raises(OutputError, match="full, so nothing of it was kept; make room and run the same command again"):
        prepare.main(cfg)
    assert sorted(path.name for path in Path("data").iterdir()) == ["raw"]
    prepare.main(cfg)
    assert Path("reports/prepare.json").is_file()


def test_ctrl_c_leaves_nothing_and_the_same_command_works_afterwards(workspace: Path, compose: Compose) -> None:
    def interrupted(_: Conversation) -> dict[str, Any]:
        raise KeyboardInterrupt

    cfg = compose("experiment=tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Conversation, "row", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare.main(cfg)
    assert sorted(path.name for path in Path("data").iterdir()) == ["raw"]
    prepare.main(cfg)
    assert Path("reports/prepare.json").is_file()
