"""The data sets of data/raw/examples: enough of each, in the form that its experiment names, nothing twice and nothing personal."""

import json
import re
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from omegaconf import OmegaConf

from finetune.rehearsal import rehearse
from tests.conftest import Compose

RAW = Path(__file__).parents[3] / "data" / "raw"
EXPERIMENTS = Path(__file__).parents[3] / "conf" / "experiment"
NAMES = sorted(folder.name for folder in (RAW / "examples").iterdir() if folder.is_dir())
PERSONAL = {
    "a mail address": re.compile(r"\S@\S+\.\w"),
    "a phone or card number": re.compile(r"(?<![\w.])\+?\d(?:[ ()/-]?\d){8,}"),
}
BROKEN = ("{{", "}}", "[[", "]]", "Ã", "â€", "ðŸ", "\ufffd", "\x00")


def lines(name: str, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RAW / "examples" / name / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()]


def turns(name: str, record: dict[str, Any]) -> list[tuple[str, str]]:
    """Role and text of each turn, whatever the form of the data set."""
    if name == "business":
        return [(turn["role"], turn["content"]) for turn in record["messages"]]
    if name == "education":
        return [({"human": "user", "gpt": "assistant"}[turn["from"]], turn["value"]) for turn in record["conversations"]]
    task, given, answer = ("task", "abstract", "summary") if name == "research" else ("instruction", "input", "output")
    assert record.keys() <= {task, given, answer}
    return [("user", "\n\n".join(filter(None, (record[task], record.get(given))))), ("assistant", record[answer])]


def text(side: str | list[dict[str, str]]) -> str:
    return side if isinstance(side, str) else "\n".join(turn["content"] for turn in side if turn["role"] != "system")


def prompt(name: str, record: dict[str, Any]) -> str:
    return "\n".join(said for role, said in turns(name, record)[:-1] if role != "system")


def test_there_are_four() -> None:
    assert NAMES == ["business", "content", "education", "research"]


@pytest.mark.parametrize("name", NAMES)
def test_its_experiment_names_both_files_and_the_fields_they_have(name: str) -> None:
    experiment = OmegaConf.to_container(OmegaConf.load(EXPERIMENTS / f"{name}.yaml"))
    assert isinstance(experiment, dict)
    records, pairs = experiment["data"]["sources"]
    assert [records["path"], pairs["path"]] == [f"examples/{name}/{kind}.jsonl" for kind in ("records", "preferences")]
    assert pairs["form"] == "preference"
    key = {"alpaca": "instruction", "messages": "messages", "sharegpt": "conversations"}[records["form"]]
    assert all(records.get("fields", {}).get(key, key) in record for record in lines(name, "records"))


@pytest.mark.parametrize("name", NAMES)
def test_records_are_enough_alternate_and_end_with_an_answer_of_bounded_length(name: str) -> None:
    records = lines(name, "records")
    assert len(records) >= 40
    for record in records:
        said = [turn for turn in turns(name, record) if turn[0] != "system"]
        assert [role for role, _ in said] == ["user", "assistant"] * (len(said) // 2)
        assert all(value == value.strip() and value for _, value in said)
        assert 5 <= len(said[-1][1].split()) <= 140


@pytest.mark.parametrize("name", NAMES)
def test_pairs_are_enough_and_neither_side_is_known_by_its_length(name: str) -> None:
    pairs = lines(name, "preferences")
    assert len(pairs) >= 30
    assert all(pair.keys() == {"prompt", "chosen", "rejected"} for pair in pairs)
    lengths = [[len(text(pair[side]).split()) for side in ("chosen", "rejected")] for pair in pairs]
    assert all(3 <= length <= 140 for both in lengths for length in both)
    assert all(text(pair["chosen"]).strip() != text(pair["rejected"]).strip() for pair in pairs)
    chosen, rejected = (mean(side) for side in zip(*lengths, strict=True))
    assert abs(chosen - rejected) / rejected <= 0.1


@pytest.mark.parametrize("name", NAMES)
def test_no_prompt_and_no_answer_comes_twice(name: str) -> None:
    records, pairs = lines(name, "records"), lines(name, "preferences")
    prompts = [prompt(name, record) for record in records] + [text(pair["prompt"]) for pair in pairs]
    answers = [turns(name, record)[-1][1] for record in records] + [text(pair[side]) for pair in pairs for side in ("chosen", "rejected")]
    for texts in (prompts, answers):
        folded = [" ".join(one.casefold().split()) for one in texts]
        assert [one for one in folded if folded.count(one) > 1] == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["records", "preferences"])
def test_nothing_is_personal_a_placeholder_or_broken(name: str, kind: str) -> None:
    for place, record in enumerate(lines(name, kind), start=1):
        whole = "\n".join(_strings(record))
        assert {what: pattern.findall(whole) for what, pattern in PERSONAL.items() if pattern.search(whole)} == {}, f"line {place}"
        assert [mark for mark in BROKEN if mark in whole] == [], f"line {place}"


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [one for part in (value.values() if isinstance(value, dict) else value) for one in _strings(part)]


def test_every_answer_of_the_tutor_ends_with_a_question() -> None:
    answers = [value for record in lines("education", "records") for role, value in turns("education", record) if role == "assistant"]
    answers += [text(pair["chosen"]) for pair in lines("education", "preferences")]
    assert [answer for answer in answers if answer[-1] != "?"] == []


def test_every_summary_of_research_has_its_three_parts() -> None:
    answers = [turns("research", record)[-1][1] for record in lines("research", "records")]
    answers += [text(pair["chosen"]) for pair in lines("research", "preferences")]
    assert [answer for answer in answers if re.findall(r"^(\w+): ", answer, re.MULTILINE) != ["Claim", "Evidence", "Limits"]] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_full_run_would_refuse_nothing(name: str, compose: Compose) -> None:
    assert rehearse(compose(f"experiment={name}"), megabytes=1) == ([], True)
