"""The catalogue of broken inputs: what prepare says to each, to the letter, and which rows it leaves out."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune import paths
from finetune.config.data import Files
from finetune.config.schema import Prepare
from finetune.data import contract, files
from finetune.data.gathering import Gathering
from finetune.errors import DataError
from tests.conftest import ROOT, composed

BROKEN = ROOT / "tests/assets/broken"
CATALOGUE: list[dict[str, Any]] = yaml.safe_load((BROKEN / "catalogue.yaml").read_text(encoding="utf-8"))
MASKED = {"personal data", "personal data masked"}  # of whose rows only the hash tells the text


@dataclass(frozen=True)
class Outcome:
    """What the user sees: the message if prepare stops, and the file's rows of rejected.jsonl."""

    says: str | None
    rejected: list[dict[str, Any]]


@pytest.fixture(scope="module")
def whole() -> tuple[Files, Prepare]:
    """Settings as they stand in conf/, with shares that leave no split of the few sound records empty."""
    cfg = composed("data=files", "data.validation=0.3", "data.test=0.3", "prepare.min_records=8", "prepare.processes=1")
    assert isinstance(cfg.data, Files)
    return cfg.data, cfg.prepare


def read(entry: dict[str, Any], whole: tuple[Files, Prepare], malformed: str) -> Outcome:
    """Read an entry's file, beside sound records unless it is to be alone, the way that the stage does."""
    given, settings = whole
    if (BROKEN / entry["file"]).exists():
        shutil.copy(BROKEN / entry["file"], paths.RAW)
    records = [{"instruction": f"Say {number}.", "output": f"{number}."} for number in range(40)]
    pairs = [{"prompt": f"Count to {number}.", "chosen": "Yes.", "rejected": "No."} for number in range(40)]
    beside = {"records.jsonl": records, "preferences.jsonl": pairs}
    for name, rows in beside.items():
        (paths.RAW / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sources: list[dict[str, Any]] = [{"path": entry["file"], **entry.get("source", {})}]
    sources += [{"path": name} for name in beside if name in entry.get("beside", beside)]
    if "weight" in sources[0]:
        sources[1]["weight"] = 1 - sources[0]["weight"]
    quality = {**given.quality.model_dump(), "malformed": malformed, **entry.get("quality", {})}
    data = Files.model_validate({**given.model_dump(), "sources": sources, "quality": quality})
    prepare = Prepare.model_validate({**settings.model_dump(), **entry.get("prepare", {})})
    says = None
    with Gathering() as gathering:
        try:
            files.gather(gathering, data, prepare.processes)
            kept = contract.settle(gathering, data, prepare)
            contract.refuse_contaminated(gathering, kept, data.quality)
            contract.refuse_empty(gathering, kept)
            contract.refuse_few(kept.sizes(gathering)["sft"]["train"], prepare)
        except DataError as error:
            says = str(error)
        else:
            assert gathering.read.total() == kept.mask.sum() + gathering.refused.total() + gathering.merged
        rows = [json.loads(line) for line in gathering.rejected()]
    return Outcome(says, [row for row in rows if row["source"] == f"{paths.RAW.as_posix()}/{entry['file']}"])


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry["file"])
def test_what_a_broken_file_comes_to_is_what_the_catalogue_says(
    entry: dict[str, Any], whole: tuple[Files, Prepare], workspace: Path
) -> None:
    left_out = refused = read(entry, whole, "refuse")
    assert refused.says == entry.get("says")
    if refused.says is not None:
        left_out = read(entry, whole, "drop") if "rejected" in entry else Outcome(None, [])
    expected = entry.get("rejected", [])
    assert [{name: row[name] for name in one} for row, one in zip(left_out.rejected, expected, strict=True)] == expected
    assert left_out.says is None, "what is left out stops nothing"
    assert all(entry["breaks"] == row["rule"] for row in left_out.rejected) if left_out.rejected else entry["breaks"] in str(refused.says)
    for row in left_out.rejected:
        assert set(row) == {"source", "line", "rule", "sha256", "text"}
        same = row["sha256"] == hashlib.sha256(row["text"].encode()).hexdigest()
        assert same != (row["rule"] in MASKED) or "\ufffd" in row["text"], (
            "of a masked text, or of bytes that are no text, only the hash is whole"
        )


def test_the_catalogue_names_every_file_once_and_breaks_at_least_40_rules() -> None:
    named = [entry["file"] for entry in CATALOGUE]
    assert len(named) == len(set(named)) >= 60
    assert {path.name for path in BROKEN.iterdir()} - {"catalogue.yaml", "README.md"} == set(named) - {"missing.jsonl"}
    assert len({entry["breaks"] for entry in CATALOGUE}) >= 40
    assert max(path.stat().st_size for path in BROKEN.iterdir() if path.name != "catalogue.yaml") < 2_048


def test_every_message_says_where_and_what_to_do_in_words_of_the_user() -> None:
    messages = [entry["says"] for entry in CATALOGUE if "says" in entry]
    assert len(messages) >= 60
    for message in messages:
        assert "data/raw/" in message or "data.sources" in message or "prepare." in message
        assert message.count(";") or message.count("\n") > 1, "a remedy"
        assert not any(word in message for word in ("Traceback", "Error", "NoneType", "<class", "dict", "object at"))
