"""Every way in which a file of a user can be bad, with the sentence that says so."""

import codecs
from pathlib import Path

import pytest

from finetune.data.sources import PREFERENCES, RECORDS, lines
from finetune.errors import DataError

GOOD = '{"instruction": "Say hello.", "output": "Hello."}'
PAIR = '{"prompt": "Say hello.", "chosen": "Hello.", "rejected": "Go away."}'


def records(path: Path, content: str | bytes) -> list[dict[str, str]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [dict(line.fields) for line in lines(path, RECORDS)]


def problems(path: Path, content: str | bytes) -> list[str]:
    with pytest.raises(DataError) as raised:
        records(path, content)
    return [problem.removeprefix(f"{path}:") for problem in raised.value.problems]


@pytest.fixture
def path(workspace: Path) -> Path:
    return Path("data/raw/records.jsonl")


def test_a_good_file_gives_its_fields_with_optional_ones_empty(path: Path) -> None:
    assert records(path, GOOD + "\n") == [{"instruction": "Say hello.", "output": "Hello.", "input": ""}]


def test_a_missing_file_is_named_with_the_remedy(path: Path) -> None:
    with pytest.raises(
        DataError, match=r"data/raw/records.jsonl: no such file, expected JSONL; put it there, or name another in conf/data/jsonl.yaml"
    ):
        list(lines(path, RECORDS))


def test_a_folder_in_its_place_is_named(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(DataError, match=r"data/raw/records.jsonl: can't be read \(is a directory\)"):
        list(lines(path, RECORDS))


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_has_no_record(path: Path, content: str) -> None:
    assert problems(path, content) == [' found no record, expected one JSON object a line like {"instruction", "output", "input"?}']


def test_a_truncated_file_is_told_from_a_bad_line(path: Path) -> None:
    cut = f"{GOOD}\n{GOOD[:20]}"
    assert problems(path, cut) == ["2: the last line is cut off, expected one JSON object a line; copy the file again"]


def test_a_last_line_without_its_end_is_a_line(path: Path) -> None:
    assert len(records(path, f"{GOOD}\n{GOOD}")) == 2


def test_a_line_that_is_not_utf_8_is_named_with_the_byte(path: Path) -> None:
    content = GOOD.encode() + b"\n" + GOOD.replace("hello", "h\xe9").encode("latin-1") + b"\n"
    assert problems(path, content) == ["2: byte 23 is 0xe9, expected UTF-8; convert the file to UTF-8"]


def test_a_byte_order_mark_is_passed_over(path: Path) -> None:
    assert len(records(path, codecs.BOM_UTF8 + GOOD.encode() + b"\r\n")) == 1


def test_a_line_that_is_not_json_is_named_with_the_character(path: Path) -> None:
    found = "not JSON (expecting property name enclosed in double quotes at character 2)"
    assert problems(path, "{'instruction': 1}\n") == [f"1: {found}, expected one JSON object a line; mend the line"]


def test_a_number_without_end_is_named(path: Path) -> None:
    (problem,) = problems(path, f'{{"instruction": {"1" * 5000}, "output": "x"}}\n')
    assert problem.startswith("1: exceeds the limit (4300 digits) for integer string conversion")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[1]", 'found a list, expected an object {"instruction", "output", "input"?}'),
        ('{"instruction": "x"}', 'no "output", found "instruction", expected {"instruction", "output", "input"?}'),
        ('{"instruction": "x", "output": " "}', '"output" is empty, expected text'),
        ('{"instruction": "x", "output": 7}', '"output" is a number, expected text'),
        ('{"instruction": "x", "output": null}', '"output" is null, expected text'),
        ('{"instruction": "x", "output": "y", "input": ["z"]}', '"input" is a list, expected text'),
        (
            '{"instruction": "x", "output": "\\ud800"}',
            '"output" holds half of a surrogate pair (\\ud800 to \\udfff), which is no text; mend the line',
        ),
        ("[" * 100_000, 'nested too deeply, expected {"instruction", "output", "input"?}; mend the line'),
    ],
)
def test_a_bad_record_is_named_with_what_was_expected(path: Path, line: str, problem: str) -> None:
    assert problems(path, f"{GOOD}\n{line}\n") == [f"2: {problem}"]


def test_equal_answers_are_refused(workspace: Path) -> None:
    path = Path("data/raw/pairs.jsonl")
    path.write_text(PAIR + "\n" + PAIR.replace("Go away.", "Hello. ") + "\n")
    with pytest.raises(
        DataError, match=r"data/raw/pairs.jsonl:2: chosen and rejected are the same text, expected a better and a worse answer"
    ):
        list(lines(path, PREFERENCES))


def test_all_problems_are_counted_and_ten_are_shown(path: Path) -> None:
    path.write_text(f"{GOOD}\n" + "{}\n" * 15)
    with pytest.raises(DataError) as raised:
        list(lines(path, RECORDS))
    assert len(raised.value.problems) == 30
    assert "… and 20 more" in str(raised.value)
    assert "30 problems in all; nothing was prepared" in str(raised.value)


def test_other_fields_are_ignored_and_named(path: Path) -> None:
    path.write_text('{"id": 1, "instruction": "x", "output": "y", "inputs": "z"}\n')
    assert [line.ignored for line in lines(path, RECORDS)] == [("id", "inputs")]
