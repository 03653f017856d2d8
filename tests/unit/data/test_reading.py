"""Files of any format: every row comes out once, in order, and what is wrong is named with its place."""

import codecs
import gzip
import json
import pickle
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather, ipc, parquet

from finetune.data import json_document, rows
from finetune.data.reading import Fault, Row, chunks, decode, hub, package
from finetune.errors import DataError

GOOD = [{"instruction": "Say hello.", "output": "Hello\u2028there, “you”."}, {"instruction": "x", "output": "1\n2"}]
LINES = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in GOOD).encode()
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path()


def read(path: Path) -> list[Row | Fault]:
    """All rows of a file, as workers get its chunks; each chunk is numbered on from the one before."""
    found: list[Row | Fault] = []
    cut = [pickle.loads(pickle.dumps(chunk)) for chunk in chunks(path)]
    assert [chunk.last for chunk in cut] == [False] * (len(cut) - 1) + [True]
    for chunk in cut:
        assert chunk.place == path.as_posix()
        found += decode(chunk)
    return found


def values(path: Path) -> list[Any]:
    found = read(path)
    assert [row.number for row in found] == list(range(1, len(found) + 1))
    assert all(isinstance(row, Row) for row in found), found
    return [row.value for row in found if isinstance(row, Row)]


def faults(path: Path, content: bytes) -> list[tuple[int, str, str]]:
    path.write_bytes(content)
    return [(row.number, row.rule, row.message) for row in read(path) if isinstance(row, Fault)]


def refusal(path: Path, content: bytes | None = None) -> str:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        read(path)
    (problem,) = raised.value.problems
    return problem


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    compressed: bytes = sink.getvalue().to_pybytes()
    return compressed


CSV = b'instruction,output\r\nSay hello.,"Hello\xe2\x80\xa8there, \xe2\x80\x9cyou\xe2\x80\x9d."\r\n\r\nx,"1\n2"\r\n'
WRAPPED = json.dumps({"version": 1, "data": GOOD, "more": {"a": 1}}).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.JSONL", codecs.BOM_UTF8 + LINES.replace(b"\n", b"\r\n")),
        ("a.ndjson", LINES.removesuffix(b"\n")),
        ("a.b.jsonl.gz", gzip.compress(LINES)),
        ("a.jsonl.gz", gzip.compress(LINES[:40]) + gzip.compress(LINES[40:])),
        ("a.jsonl.zst", zstd(LINES)),
        ("a.json", LINES),
        ("a.json", b"\n" + LINES),
        ("a.json", json.dumps(GOOD).encode()),
        ("a.json", codecs.BOM_UTF8 + json.dumps(GOOD, indent=4, ensure_ascii=False).encode() + b"\r\n"),
        ("a.json", WRAPPED),
        ("a.json.gz", gzip.compress(json.dumps(json.loads(WRAPPED), indent=1).encode())),
        ("a.csv", CSV),
        ("a.csv", codecs.BOM_UTF8 + CSV.removesuffix(b"\r\n")),
        ("a.csv.zst", zstd(CSV)),
        ("a.tsv", CSV.replace(b"n,o", b"n\to").replace(b".,", b".\t").replace(b"x,", b"x\t")),
    ],
)
@pytest.mark.parametrize("size", [5, rows.SIZE])
def test_every_format_of_text_gives_the_same_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, size: int
) -> None:
    for module in (rows, json_document):
        monkeypatch.setattr(module, "SIZE", size if name != "a.json" else max(size, len(content) if content.lstrip()[:1] == b"{" else 5))
    path = folder / name
    path.write_bytes(content)
    found = values(path) if "jsonl" in name.lower() or "ndjson" in name else [row.value for row in read(path) if isinstance(row, Row)]
    assert found == GOOD


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather", "stream.arrow"])
def test_tables_give_the_same_rows_in_chunks_of_2_000(folder: Path, name: str) -> None:
    records = [
        {"text": f"é {number}", "turns": [{"role": "user", "content": None}], "at": datetime(2026, 1, 1), "raw": b"x"}
        for number in range(4_500)
    ]
    table = pa.Table.from_pylist(records)
    path = folder / name
    if name == "a.parquet":
        parquet.write_table(table, path)
    elif name == "a.feather":
        feather.write_feather(table, path)
    else:
        with (ipc.new_stream if name.startswith("stream") else ipc.new_file)(path, table.schema) as writer:
            writer.write_table(table)
    assert values(path) == records
    assert [chunk.first for chunk in chunks(path)] == [1, 2_001, 4_001]


def test_chunks_are_small_and_numbered_by_line(folder: Path) -> None:
    path = folder / "a.jsonl"
    line = json.dumps({"text": "x" * 1_000}) + "\n"
    path.write_text("\n" + line * 5_000)
    cut = list(chunks(path))
    assert max(len(pickle.dumps(chunk)) for chunk in cut) < 2 * rows.SIZE
    assert len(cut) == 5
    assert [row.number for chunk in cut for row in decode(chunk)] == list(range(2, 5_002))


def test_wide_rows_of_a_table_make_small_chunks_too(folder: Path) -> None:
    path = folder / "a.parquet"
    parquet.write_table(pa.table({"text": ["x" * 100_000] * 50}), path)
    assert len(values(path)) == 50
    assert max(len(pickle.dumps(chunk)) for chunk in chunks(path)) < 2 * rows.SIZE


@pytest.mark.parametrize("name", ["a.json", "a.csv"])
def test_documents_and_csv_come_in_chunks_of_2_000(folder: Path, name: str) -> None:
    path = folder / name
    path.write_text(json.dumps([{"a": "x"}] * 4_001) if name == "a.json" else "a\n" + "x\n" * 4_001)
    assert [chunk.first for chunk in chunks(path)] == [1, 2_001, 4_001]
    assert values(path) == [{"a": "x"}] * 4_001


def test_a_place_stands_for_the_path_in_chunks_and_messages(folder: Path) -> None:
    path = folder / "a.jsonl"
    path.write_bytes(LINES)
    assert [chunk.place for chunk in chunks(path, "package:a/b.jsonl")] == ["package:a/b.jsonl"]
    path.unlink()
    with pytest.raises(DataError, match=r"package:a/b.jsonl: no such file"):
        list(chunks(path, "package:a/b.jsonl"))


DOCUMENT = "expected an array of objects, an object with one list of them, or one object a line"
DEEP = b"[" * 100_000
MEND = "expected one JSON object a line; mend the record"


@pytest.mark.parametrize(
    ("line", "rule", "message"),
    [
        (b'{"a": "h\xe9"}', "not UTF-8", "byte 9 is 0xe9, expected UTF-8; convert the file to UTF-8"),
        (b"{'a': 1}", "not JSON", f"not JSON (expecting property name enclosed in double quotes at character 2), {MEND}"),
        (b"{} {}", "not JSON", f"not JSON (extra data at character 4), {MEND}"),
        (b'{"a": NaN}', "not JSON", "NaN is no JSON, expected a number or null; mend the record"),
        (b'{"a": [-Infinity]}', "not JSON", "-Infinity is no JSON, expected a number or null; mend the record"),
        (DEEP, "nested too deeply", f"nested too deeply, {MEND}"),
        (
            b'{"a": ' + b"1" * 5000 + b"}",
            "number too long",
            "a number has more than 4,300 digits, expected a shorter one or text; mend the record",
        ),
        (
            b'{"a": ["\\uD800"]}',
            "half a surrogate pair",
            "holds half of a surrogate pair (\\ud800 to \\udfff), expected both halves; mend the record",
        ),
        (b'{"a": 1, "b": 2, "a": 3}', "field twice", '"a" comes twice in one object, expected each field once; drop one of them'),
    ],
)
def test_a_bad_line_is_named_and_those_after_it_are_read(folder: Path, line: bytes, rule: str, message: str) -> None:
    path = folder / "a.jsonl"
    path.write_bytes(LINES + line + b"\n\n" + LINES)
    found = read(path)
    assert [row.number for row in found] == [1, 2, 3, 5, 6]
    assert found[2] == Fault(3, rule, message, line)


def test_a_pair_of_surrogates_is_a_character(folder: Path) -> None:
    path = folder / "a.jsonl"
    path.write_text('{"a": "\\ud83d\\ude00"}\n')
    assert values(path) == [{"a": "😀"}]


def test_a_last_line_that_is_cut_off_is_told_from_a_bad_one(folder: Path) -> None:
    cut = (3, "cut off", "the last line is cut off, expected one JSON object a line; copy the file again")
    assert faults(folder / "a.jsonl", LINES + LINES[:20]) == [cut]
    assert faults(folder / "a.jsonl", LINES + LINES[:20] + b"\n")[0][1] == "not JSON"


@pytest.mark.parametrize("line", [b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"a": 1, "a": 2}', b'{"a": ' + b"1" * 5000 + b"}"])
def test_a_bad_record_of_a_document_is_named_by_its_number(folder: Path, line: bytes) -> None:
    path = folder / "a.json"
    path.write_bytes(b"[" + LINES.splitlines()[0] + b",\n" + line + b", 7]")
    first, second, third = read(path)
    assert isinstance(second, Fault)
    assert (first, second.number, second.raw, third) == (Row(1, GOOD[0]), 2, line, Row(3, 7))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'[{"a": 1},\n {"a": 2', "a.json:2: the file is cut off; copy it again"),
        (b'[{"a": 1},\n {"a": "2', "a.json:2: the file is cut off; copy it again"),
        (b'[{"a": 1}', "a.json:1: the file is cut off; copy it again"),
        (b'[{"a": "\xc3', "a.json: the file is cut off inside a character; copy it again"),
        (b'[{"a": "h\xe9llo"}]', "a.json: byte 10 is 0xe9, expected UTF-8; convert the file to UTF-8"),
        (b'[\n{"a": 1}\n{"a": 2}]', "a.json:3: found '{', expected ','; mend the file"),
        (b'[\n{"a": 1},\n]', "a.json:3: found a comma before the end of the list, expected a record; drop the comma"),
        (b"7", f"a.json:1: begins with '7', {DOCUMENT}; mend the file"),
        (b'{"a":\n[1], "b": [2]}', f'a.json:2: "a" and "b" are lists, {DOCUMENT}; keep the records\' list alone'),
        (b'{"a":\n1}', f"a.json:2: found an object without a list, {DOCUMENT}; mend the file"),
        (b"{\n7: 1}", "a.json:2: found '7', expected the name of a field; mend the file"),
        (b"[1]\n[2]", "a.json:2: goes on after its end; drop what follows, or write one object a line and call the file .jsonl"),
        (b"[" + DEEP, f"a.json:1: nested too deeply, {DOCUMENT}; mend the file"),
        (b"[]", "a.json: found no record, expected one at least; put records there, or drop it from data.sources"),
    ],
)
def test_a_broken_document_is_named_with_its_line(folder: Path, content: bytes, problem: str) -> None:
    assert refusal(folder / "a.json", content) == problem


def test_what_is_wrong_early_in_a_document_is_said_before_the_rest_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rows, json_document):
        monkeypatch.setattr(module, "SIZE", 64)
    given = json_document.Document(rows.File(folder / "a.json", "a.json"))
    (folder / "a.json").write_bytes(b"[{'a': 1}, " + b'{"a": 1}, ' * 1_000 + b"1]")
    with pytest.raises(DataError, match=r"a.json:1: not JSON \(expecting property name enclosed in double quotes\)"):
        list(given.records())
    assert given.read == 64


@pytest.mark.parametrize(("name", "begin"), [("a.jsonl", b'{"a": "'), ("a.json", b'[{"a": "'), ("a.csv", b'a\n"')])
def test_a_row_without_end_does_not_fill_the_memory(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, begin: bytes) -> None:
    for module in (rows, json_document):
        monkeypatch.setattr(module, "SIZE", 1 << 10)
        monkeypatch.setattr(module, "LIMIT", 1 << 20)
    assert "is longer than 1 MB" in refusal(folder / name, begin + b"x" * (3 << 20))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"a,b\n1,2\n1\n", (2, "field count", "found 1 field, expected the header's 2 (a, b); mend the row")),
        (b"a,b\n1,2\n1,2,3\n", (2, "field count", "found 3 fields, expected the header's 2 (a, b); mend the row")),
        (b"a,b\n1,2\nh\xe9,2\n", (2, "not UTF-8", "byte 2 is 0xe9, expected UTF-8; convert the file to UTF-8")),
        (
            b'a,b\n1,2\n"1"2,3\n4,5\n',
            (
                2,
                "not CSV",
                "not CSV (',' expected after '\"'), expected fields of which those with a quotation mark are quoted; mend the row",
            ),
        ),
        (
            b'a,b\n1,2\n"3,4\n5,6\n',
            (
                2,
                "not CSV",
                "not CSV (unexpected end of data), expected fields of which those with a quotation mark are quoted; mend the row",
            ),
        ),
    ],
)
def test_a_bad_row_of_csv_is_named_by_its_number(folder: Path, content: bytes, fault: tuple[int, str, str]) -> None:
    assert faults(folder / "a.csv", content) == [fault]
    assert next(iter(read(folder / "a.csv"))) == Row(1, {"a": "1", "b": "2"})


def test_long_fields_and_nul_are_text(folder: Path) -> None:
    path = folder / "a.csv"
    path.write_text("a\n" + "x" * 200_000 + "\n\0y\n")
    assert values(path) == [{"a": "x" * 200_000}, {"a": "\0y"}]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a,,c\n1,2,3\n", "a.csv: field 2 of the header has no name, expected a name for each; name it"),
        (b"a,b,a\n1,2,3\n", 'a.csv: the header names "a" twice, expected each name once; rename one of them'),
        (b'"a\n1', "a.csv: the header is not CSV (unexpected end of data), expected the names of the fields; mend the first line"),
        (b"a,h\xe9\n1,2\n", "a.csv: the header is not UTF-8, expected UTF-8; convert the file to UTF-8"),
        (b"a,b\n", "a.csv: found no record, expected one at least; put records there, or drop it from data.sources"),
    ],
)
def test_a_header_names_each_field_once(folder: Path, content: bytes, problem: str) -> None:
    assert refusal(folder / "a.csv", content) == problem


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz", "a.parquet", "a.arrow"])
def test_a_file_that_is_not_there_or_no_file_is_named(folder: Path, name: str) -> None:
    assert refusal(folder / name) == f"{name}: no such file, expected records; put it there, or name another in data.sources"
    (folder / name).mkdir()
    assert refusal(folder / name) == f"{name}: is a folder, expected a file; name its files in data.sources"


def test_a_file_that_may_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert refusal(folder / "a.jsonl") == "a.jsonl: can't be read (permission denied), expected a file of yours; see who may read it"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.zst"])
def test_an_empty_file_is_named(folder: Path, name: str) -> None:
    assert refusal(folder / name, b"") == f"{name}: is empty, expected records; copy the file again, or drop it from data.sources"


@pytest.mark.parametrize("content", [b"\n \r\n\t\n", codecs.BOM_UTF8])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_file_without_a_record_is_named(folder: Path, name: str, content: bytes) -> None:
    problem = refusal(folder / name, content)
    assert "found no record, expected one at least" in problem or "no name" in problem


def test_utf_16_is_named_once(folder: Path) -> None:
    assert refusal(folder / "a.csv", "a,b\n1,2\n".encode("utf-16")) == "a.csv: is UTF-16, expected UTF-8; convert the file to UTF-8"


@pytest.mark.parametrize("name", ["a.txt", "a", "a.xlsx.gz", "a.parquet.gz"])
def test_an_unknown_suffix_is_named_with_those_that_are_known(folder: Path, name: str) -> None:
    found = refusal(folder / name, LINES)
    expected = ".jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow, .feather, or one of the first 5 with .gz or .zst behind it"
    assert found.endswith(f", expected one of {expected}; rename the file, or write it as one of these")


@pytest.mark.parametrize(("name", "content"), [("a.jsonl.gz", gzip.compress(LINES)), ("a.jsonl.zst", zstd(LINES))])
def test_a_compressed_file_that_is_cut_off_or_none_is_named(folder: Path, name: str, content: bytes) -> None:
    cut = f"{name}: is damaged or cut off (truncated compressed stream), expected a whole file; copy it again"
    assert refusal(folder / name, content[:-3]) == cut
    assert refusal(folder / name, LINES).startswith(f"{name}: is damaged or cut off (")


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
def test_a_table_that_is_none_or_cut_off_is_named(folder: Path, name: str) -> None:
    assert refusal(folder / name, LINES).startswith(f"{name}: is not what its suffix says (")
    write = parquet.write_table if name == "a.parquet" else feather.write_feather
    write(pa.table({"a": ["x" * 100]}), folder / name)
    assert refusal(folder / name, (folder / name).read_bytes()[:-30]).startswith(f"{name}: is ")


def test_two_columns_of_one_name_are_refused(folder: Path) -> None:
    table = pa.table([pa.array(["x"]), pa.array(["y"])], names=["a", "a"])
    feather.write_feather(table, folder / "a.feather")
    assert refusal(folder / "a.feather") == 'a.feather: two columns are called "a", expected each name once; rename one of them'


def test_a_row_of_a_table_that_cannot_be_read_is_named_by_its_number(folder: Path) -> None:
    text = pa.StringArray.from_buffers(3, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xe9b"))
    feather.write_feather(pa.table({"a": text}), folder / "a.feather")
    first, second, third = read(folder / "a.feather")
    assert isinstance(second, Fault)
    assert (first, second.number, second.rule, third) == (Row(1, {"a": "a"}), 2, "not UTF-8", Row(3, {"a": "b"}))
    assert second.raw


def test_a_file_of_a_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shipped" / "data").mkdir(parents=True)
    (tmp_path / "shipped" / "__init__.py").write_text("raise SystemExit")
    (tmp_path / "shipped" / "data" / "a.jsonl").write_bytes(LINES)
    monkeypatch.syspath_prepend(tmp_path)
    assert package("shipped", "data/a.jsonl") == package("shipped.data", "a.jsonl") == tmp_path / "shipped" / "data" / "a.jsonl"
    assert "shipped" not in sys.modules


@pytest.mark.parametrize(
    ("module", "file", "problem"),
    [
        ("nowhere_at_all", "a.jsonl", "package:nowhere_at_all/a.jsonl: found no installed package 'nowhere_at_all', expected one"),
        ("", "a.jsonl", "package:/a.jsonl: found no installed package '', expected one"),
        ("this", "a.jsonl", "package:this/a.jsonl: found no installed package 'this', expected one"),
        ("json", "a.jsonl", "package:json/a.jsonl: found no file a.jsonl in the installed json, expected one"),
        ("json", "../this.py", "package:json/../this.py: ../this.py lies outside of the package, expected a file inside of it"),
    ],
)
def test_a_package_or_file_that_is_absent_is_named(module: str, file: str, problem: str) -> None:
    with pytest.raises(DataError) as raised:
        package(module, file)
    assert raised.value.problems[0].startswith(problem)


def test_a_data_set_of_the_hub_is_streamed_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.jsonl").write_text("".join(f'{{"text": "{number}"}}\n' for number in range(4_000)))
    load, asked = datasets.load_dataset, []

    def local(path: str, **arguments: Any) -> Any:
        asked.append((path, arguments.pop("revision")))
        return load(tmp_path.as_posix(), **arguments)

    monkeypatch.setattr(datasets, "load_dataset", local)
    cut = list(hub("owner/name", REVISION, "train"))
    assert asked == [("owner/name", REVISION)]
    assert [(chunk.place, chunk.first, chunk.last) for chunk in cut] == [("hub:owner/name", 1, False), ("hub:owner/name", 2_001, True)]
    found = [row for chunk in cut for row in decode(chunk)]
    assert found == [Row(number + 1, {"text": str(number)}) for number in range(4_000)]


def test_a_hub_that_cannot_be_asked_is_an_error_that_says_how_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub\nat all")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError) as raised:
        list(hub("owner/name", REVISION, "train"))
    opened = f"hub:owner/name: split train at revision {REVISION} could not be opened (Couldn't reach 'owner/name' on the Hub)"
    download = f"hf download owner/name --repo-type dataset --revision {REVISION} --local-dir data/raw/name"
    elsewhere = f"where there is a network, run `{download}`, bring that folder, and name its files in data.sources"
    assert raised.value.problems == [f"{opened}; {elsewhere}"]


def test_a_hub_that_falls_silent_is_named_with_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Iterator[dict[str, str]]:
        yield from [{"text": "x"}] * 2_500
        raise TimeoutError("timed out")

    monkeypatch.setattr(datasets, "load_dataset", broken)
    with pytest.raises(DataError, match=r"hub:owner/name: could not be read beyond row 2,000 \(timed out\); run it again, or, where"):
        list(hub("owner/name", REVISION, "train"))


def test_an_empty_split_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [])
    with pytest.raises(DataError, match="hub:owner/name: found no record in split test"):
        list(hub("owner/name", REVISION, "test"))


NAMES = st.sampled_from(["a", "b", "data", "\ud800", "é"])
VALUES = st.recursive(
    st.none() | st.integers() | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
PIECES = st.binary(max_size=20) | st.sampled_from(
    [b"\n", b"{", b"}", b"[", b"]", b'"', b",", b"\\ud800", b"\r", b"\xef\xbb\xbf", b'{"a": 1}']
)
BYTES = st.lists(PIECES | VALUES.map(lambda value: json.dumps(value).encode()), max_size=12).map(b"".join)
SUFFIXES = [".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".json.zst", ".parquet", ".arrow"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from(SUFFIXES), content=BYTES, wrapped=st.booleans())
def test_no_bytes_are_anything_but_rows_faults_or_a_data_error(tmp_path: Path, suffix: str, content: bytes, wrapped: bool) -> None:
    path = tmp_path / f"a{suffix}"
    if wrapped:
        content = gzip.compress(content) if suffix.endswith(".gz") else zstd(content) if suffix.endswith(".zst") else b"[" + content + b"]"
    path.write_bytes(content)
    found = outcome(path)
    assert found.encode() if isinstance(found, str) else all(isinstance(row, Row) or row.message.encode() for row in found)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=BYTES)
def test_every_line_that_is_not_empty_is_a_row_or_a_fault(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    found = outcome(path)
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    expected = [number for number, line in enumerate(lines, 1) if line.decode(errors="replace").strip()]
    if isinstance(found, str):
        assert not expected or content.startswith(rows.UTF_16)
    else:
        assert [row.number for row in found] == expected


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".parquet", ".arrow", ".jsonl.gz"]), place=st.integers(0, 10_000), byte=st.integers(1, 255), cut=st.booleans()
)
def test_a_damaged_table_is_rows_faults_or_a_data_error(tmp_path: Path, suffix: str, place: int, byte: int, cut: bool) -> None:
    path = tmp_path / f"a{suffix}"
    table = pa.table({"text": ["é" * number for number in range(20)], "turns": [[{"role": "user"}] * (number % 3) for number in range(20)]})
    match suffix:
        case ".parquet":
            parquet.write_table(table, path)
        case ".arrow":
            with ipc.new_file(path, table.schema) as writer:
                writer.write_table(table)
        case _:
            path.write_bytes(gzip.compress(LINES))
    content = bytearray(path.read_bytes())
    place %= len(content)
    content[place] ^= byte
    path.write_bytes(content[:place] if cut else content)
    found = outcome(path)
    assert found.encode() if isinstance(found, str) else len(found) <= 20


def outcome(path: Path) -> str | list[Row | Fault]:
    """The rows of a file, or the data error that it comes to."""
    try:
        return [row for chunk in chunks(path) for row in decode(chunk)]
    except DataError as error:
        return str(error)
