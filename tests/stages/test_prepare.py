"""prepare: what it writes and reports, and that nothing of it is left when it does not end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune import outputs
from finetune.config.schema import Config, SmartHome
from finetune.data.records import Conversation
from finetune.errors import DataError, OutputError
from stages import prepare
from tests.conftest import full_disk

Compose = Callable[..., Config]
PREPARED = Path("data/prepared")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def write_jsonl_data(count: int = 80) -> None:
    records = [{"instruction": f"Say {number}.", "output": f"{number}."} for number in range(count)]
    pairs = [{"prompt": f"Count to {number}.", "chosen": "Yes.", "rejected": "No."} for number in range(count)]
    for name, rows in (("records", records), ("preferences", pairs)):
        Path(f"data/raw/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_the_embedded_data_is_written_as_conversations_and_pairs(workspace: Path, compose: Compose) -> None:
    prepare.main(compose("experiment=tiny"))
    assert sorted(bytes_of(PREPARED)) == [
        "preference/test.jsonl",
        "preference/train.jsonl",
        "refused.jsonl",
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
    assert report["read"] == report["kept"] + sum(report["refused"].values())
    assert report["splits"]["sft"]["train"] == cfg.prepare.max_records
    assert report["splits"]["preference"]["train"] == cfg.prepare.max_pairs
    assert isinstance(cfg.data, SmartHome)
    assert report["slices"] == {"seen": cfg.data.test_seen, "new_home": cfg.data.test_new_home, "new_phrasing": cfg.data.test_new_phrasing}
    assert report["license"] == cfg.data.license


@pytest.mark.parametrize("data", ["smart_home", "jsonl"])
def test_twice_gives_the_same_bytes(workspace: Path, compose: Compose, data: str) -> None:
    cfg = compose("experiment=tiny") if data == "smart_home" else compose("data=jsonl")
    write_jsonl_data()
    prepare.main(cfg)
    once = bytes_of(PREPARED)
    prepare.main(cfg)
    assert bytes_of(PREPARED) == once


def test_your_own_records_are_split_and_those_refused_are_listed(workspace: Path, compose: Compose) -> None:
    write_jsonl_data()
    with Path("data/raw/records.jsonl").open("a", encoding="utf-8") as records:
        records.write('{"instruction": "Say 7.", "output": "7."}\n')
    prepare.main(compose("data=jsonl"))
    report = outputs.read_json(Path("reports/prepare.json"))
    assert report["read"] == 161
    assert report["kept"] == 160
    assert report["refused"] == {"duplicate": 1}
    assert outputs.read_jsonl(PREPARED / "refused.jsonl") == [{"place": "data/raw/records.jsonl:81", "rule": "duplicate"}]
    assert report["slices"] == {"all": report["splits"]["sft"]["test"]}


def test_the_first_records_by_hash_are_kept_of_too_many(workspace: Path, compose: Compose) -> None:
    write_jsonl_data()
    prepare.main(compose("data=jsonl"))
    all_ids = sorted(record["id"] for record in outputs.read_jsonl(PREPARED / "sft/train.jsonl"))
    prepare.main(compose("data=jsonl", "prepare.max_records=20"))
    assert [record["id"] for record in outputs.read_jsonl(PREPARED / "sft/train.jsonl")] == all_ids[:20]
    assert outputs.read_json(Path("reports/prepare.json"))["refused"] == {"beyond prepare.max_records": len(all_ids) - 20}


def test_more_room_than_records_keeps_all(workspace: Path, compose: Compose) -> None:
    write_jsonl_data()
    prepare.main(compose("data=jsonl", "prepare.max_records=2000"))
    assert outputs.read_json(Path("reports/prepare.json"))["refused"] == {}


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
