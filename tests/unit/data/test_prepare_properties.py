"""Whatever bytes and values the files hold, prepare ends with a DataError or with every row accounted for."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from finetune import paths
from finetune.config.data import Files
from finetune.config.schema import Config, Prepare
from finetune.data import contract, files
from finetune.data.forms import FORMS
from finetune.data.gathering import Gathering
from finetune.errors import DataError
from tests.conftest import ROOT

SUFFIXES = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".feather", ".jsonl.gz", ".jsonl.zst", ".csv.gz")
FIELDS = sorted({name for form in FORMS.values() for name in form.fields})
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.sampled_from(("user", "assistant", "system", "human", "gpt", "Hello.", "")) | VALUES for name in FORMS["messages"].turn
        },
    ),
    max_size=4,
)
SAID = st.sampled_from(("Hello.", "Hi.", "", " ", "\n\nHuman: Hello.\n\nAssistant: Hi.", "\n\nHuman: Hello.\n\nAssistant: Ho."))
FORMED = st.sampled_from(sorted(FORMS)).flatmap(
    lambda form: st.fixed_dictionaries(
        {name: SAID | TURNS | VALUES for name in FORMS[form].required if name != "label"}
        | {name: st.booleans() | VALUES for name in FORMS[form].required if name == "label"},
        optional=dict.fromkeys(FORMS[form].optional, SAID | VALUES),
    )
)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture
def given_settings(compose: Callable[..., Config], workspace: Path) -> tuple[Files, Prepare]:
    cfg = compose("data=files", "data.quality.malformed=drop", "prepare.processes=1")
    assert isinstance(cfg.data, Files)
    return cfg.data, cfg.prepare


def accounted_for(given_settings: tuple[Files, Prepare], name: str, content: bytes, form: str | None = None) -> None:
    """Read a file as the stage does: a DataError, or accepted + rejected + merged = read, and every line a record."""
    given, settings = given_settings
    (paths.RAW / name).write_bytes(content)
    data = Files.model_validate({**given.model_dump(), "sources": [{"path": name, "form": form}]})
    with Gathering() as gathering:
        try:
            files.gather(gathering, data, settings.processes)
            kept = contract.settle(gathering, data, settings)
        except DataError as error:
            assert_printable(error)
            return
        assert kept.mask.sum() + gathering.refused.total() + gathering.merged == gathering.read.total()
        for line in gathering.rejected():
            assert json.loads(line)["rule"]
        for stays, line in zip(kept.mask, gathering.lines(), strict=True):
            if stays:
                valid(json.loads(line))


def assert_printable(error: DataError) -> None:
    assert str(error).encode()


def valid(row: dict[str, Any]) -> None:
    """What format relies on: texts that are not empty, by known speakers, with an answer at the end."""
    conversations = [row["messages"]] if "messages" in row else [[*row["prompt"], *row[answer]] for answer in ("chosen", "rejected")]
    assert row["id"]
    assert "messages" in row or row["chosen"] != row["rejected"]
    for messages in conversations:
        assert messages[-1]["role"] == "assistant"
        assert all(set(message) == {"role", "content"} and message["content"].strip() for message in messages)
        assert all(message["role"] in ("system", "user", "assistant", "tool") for message in messages)


@quick
@given(content=st.binary(max_size=200), suffix=st.sampled_from(SUFFIXES), form=st.none() | st.sampled_from(sorted(FORMS)))
def test_no_bytes_stop_prepare_but_with_a_data_error(
    given_settings: tuple[Files, Prepare], content: bytes, suffix: str, form: str | None
) -> None:
    accounted_for(given_settings, f"a{suffix}", content, form)


@quick
@given(values=st.lists(VALUES, min_size=1, max_size=4), form=st.none() | st.sampled_from(sorted(FORMS)), document=st.booleans())
@example(values=[float("nan"), {"text": "\ud800"}], form="text", document=False)
def test_no_json_value_stops_prepare_but_with_a_data_error(
    given_settings: tuple[Files, Prepare], values: list[Any], form: str | None, document: bool
) -> None:
    text = json.dumps(values) if document else "".join(json.dumps(value) + "\n" for value in values)
    accounted_for(given_settings, "a.json" if document else "a.jsonl", text.encode(), form)


@quick
@given(rows=st.lists(FORMED, min_size=1, max_size=6), form=st.none() | st.sampled_from(sorted(FORMS)))
@example(rows=[{"prompt": "Hello.", "completion": f"{n % 2}", "label": n % 2 == 0} for n in range(4)], form=None)
def test_every_row_with_the_fields_of_a_form_is_accounted_for(
    given_settings: tuple[Files, Prepare], rows: list[dict[str, Any]], form: str | None
) -> None:
    accounted_for(given_settings, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode(), form)


@quick
@given(
    form=st.sampled_from(sorted(FORMS)),
    cells=st.lists(st.lists(st.text(max_size=6), max_size=4), max_size=5),
    delimiter=st.sampled_from(",\t"),
)
def test_no_csv_stops_prepare_but_with_a_data_error(
    given_settings: tuple[Files, Prepare], form: str, cells: list[list[str]], delimiter: str
) -> None:
    lines = [delimiter.join(FORMS[form].required), *(delimiter.join(row) for row in cells)]
    accounted_for(given_settings, "a.csv" if delimiter == "," else "a.tsv", "\n".join(lines).encode(errors="replace"), form)


@quick
@given(
    content=st.binary(max_size=200) | FORMED.map(lambda row: json.dumps(row).encode()), suffix=st.sampled_from((".jsonl", ".json", ".csv"))
)
def test_no_bytes_inside_of_a_compression_stop_prepare_but_with_a_data_error(
    given_settings: tuple[Files, Prepare], content: bytes, suffix: str
) -> None:
    accounted_for(given_settings, f"a{suffix}.gz", gzip.compress(content))
    accounted_for(given_settings, f"a{suffix}.zst", pa.Codec("zstd").compress(content, asbytes=True))


@quick
@given(name=st.sampled_from(("null.parquet", "latin-1.parquet", "year-30000.arrow")), place=st.integers(0, 2_000), byte=st.integers(0, 255))
def test_no_damaged_byte_of_a_table_stops_prepare_but_with_a_data_error(
    given_settings: tuple[Files, Prepare], name: str, place: int, byte: int
) -> None:
    content = bytearray((ROOT / "tests/assets/broken" / name).read_bytes())
    content[place % len(content)] = byte
    accounted_for(given_settings, name, bytes(content), "alpaca")
