"""Your own records: forms and formats mixed, splits that adding records does not move, weights and caps, labels into pairs."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from finetune.config.data import Files
from finetune.config.schema import Config
from finetune.data import contract, files
from finetune.data.contract import Kept
from finetune.data.gathering import Gathering
from finetune.errors import DataError

Compose = Callable[..., Config]
Rows = Iterable[dict[str, Any]]
Splits = dict[str, list[dict[str, Any]]]


def write(name: str, rows: Rows) -> None:
    path = Path("data/raw", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def records(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"instruction": f"Say {number}.", "output": f"{number}."} for number in range(start, start + count)]


def pairs(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"Count to {number}.", "chosen": "Yes.", "rejected": "No."} for number in range(count)]


@contextmanager
def gathered(cfg: Config) -> Iterator[tuple[Gathering, Kept]]:
    assert isinstance(cfg.data, Files)
    with Gathering() as gathering:
        files.gather(gathering, cfg.data, cfg.prepare.processes)
        yield gathering, contract.settle(gathering, cfg.data, cfg.prepare)


def prepared(cfg: Config) -> Splits:
    """The rows of each file of data/prepared, and of rejected.jsonl."""
    with gathered(cfg) as (gathering, kept):
        contract.refuse_contaminated(gathering, kept, cfg.data.quality)
        contract.refuse_empty(gathering, kept)
        contract.write(gathering, kept, Path("prepared"))
        assert gathering.read.total() == kept.mask.sum() + gathering.refused.total() + gathering.merged
    return {
        path.relative_to("prepared").with_suffix("").as_posix(): [
            json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()
        ]
        for path in sorted(Path("prepared").rglob("*.jsonl"))
    }


def by_id(splits: Splits) -> dict[str, str]:
    return {row["id"]: split for split, rows in splits.items() for row in rows if split != "rejected"}


def sources(*given: str) -> str:
    return f"data.sources=[{', '.join(f'{{{source}}}' for source in given)}]"


@pytest.fixture
def cfg(compose: Compose, workspace: Path) -> Config:
    return compose("data=files")


def test_adding_records_moves_none_of_the_old_ones(cfg: Config) -> None:
    write("records.jsonl", records(200))
    write("preferences.jsonl", pairs(60))
    before = by_id(prepared(cfg))
    write("records.jsonl", records(300, start=200) + records(200))
    write("preferences.jsonl", pairs(90))
    after = by_id(prepared(cfg))
    assert len(before) == 260
    assert before.items() <= after.items()
    assert len(after) == 590


def test_shares_are_about_what_was_asked_for(cfg: Config) -> None:
    write("records.jsonl", records(2000))
    write("preferences.jsonl", pairs(500))
    splits = prepared(cfg)
    assert sum(len(splits[f"sft/{split}"]) for split in ("train", "validation", "test")) == 2000
    assert 150 < len(splits["sft/test"]) < 250
    assert 150 < len(splits["sft/validation"]) < 250
    assert 30 < len(splits["preference/test"]) < 70


def test_answers_to_one_prompt_are_in_one_split_and_counted_as_conflicts(cfg: Config) -> None:
    write("records.jsonl", records(100) + [{**record, "output": record["output"] + "!"} for record in records(100)])
    write("preferences.jsonl", pairs(60))
    with gathered(cfg) as (_, kept):
        assert kept.conflicts == 100
    where: dict[str, set[str]] = {}
    for split, rows in prepared(cfg).items():
        for row in rows:
            if split.startswith("sft"):
                where.setdefault(row["messages"][0]["content"], set()).add(split)
    assert len(where) == 100
    assert all(len(splits) == 1 for splits in where.values())


def test_a_group_never_straddles_splits(compose: Compose, cfg: Config) -> None:
    rows = [{**record, "user": f"user {number % 40}"} for number, record in enumerate(records(400))]
    write("records.jsonl", rows)
    write("preferences.jsonl", pairs(60))
    splits = prepared(compose("data=files", sources("path: records.jsonl, group: user", "path: preferences.jsonl")))
    number = {row["instruction"]: row["user"] for row in rows}
    where: dict[str, set[str]] = {}
    for split in ("train", "validation", "test"):
        for row in splits[f"sft/{split}"]:
            where.setdefault(number[row["messages"][0]["content"]], set()).add(split)
    assert len(where) == 40
    assert all(len(found) == 1 for found in where.values())


def test_the_system_message_is_put_before_records_that_have_none(compose: Compose, cfg: Config) -> None:
    write("records.jsonl", [*records(60), {"instruction": "Translate.", "input": "Yes.", "output": "Oui.", "system": "Parle!"}])
    write("preferences.jsonl", pairs(60))
    splits = prepared(compose("data=files", "data.system='Be brief.'"))
    rows = [row["messages"] for split in ("train", "validation", "test") for row in splits[f"sft/{split}"]]
    (french,) = [messages for messages in rows if messages[-1]["content"] == "Oui."]
    assert french[0] == {"role": "system", "content": "Parle!"}
    assert french[1] == {"role": "user", "content": "Translate.\n\nYes."}
    assert all(messages[0] == {"role": "system", "content": "Be brief."} for messages in rows if messages is not french)


def test_every_form_and_format_come_together(compose: Compose, cfg: Config) -> None:
    write("alpaca.jsonl", records(60))
    Path("data/raw/table.csv").write_text("prompt,completion\n" + "".join(f"Add {n} and 1.,{n + 1}\n" for n in range(60)), encoding="utf-8")
    chat = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    write(
        "chats.json",
        [{"messages": [*chat, {"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}]} for n in range(60)],
    )
    write("preferences.jsonl", pairs(60))
    given = ("path: alpaca.jsonl", "path: table.csv", "path: chats.json", "path: preferences.jsonl")
    splits = prepared(compose("data=files", sources(*given)))
    kept = [row for split in ("train", "validation", "test") for row in splits[f"sft/{split}"]]
    assert {row["source"] for row in kept} == {"data/raw/alpaca.jsonl", "data/raw/table.csv", "data/raw/chats.json"}
    assert len(kept) == 180
    assert {len(row["messages"]) for row in kept} == {2, 4}


def test_labels_become_pairs_where_a_prompt_has_both(compose: Compose, cfg: Config) -> None:
    write("records.jsonl", records(60))
    labels = [{"prompt": f"Rate {n}.", "completion": f"{word} {n}", "label": word == "good"} for n in range(60) for word in ("good", "bad")]
    write("labels.jsonl", [*labels, {"prompt": "Alone.", "completion": "x", "label": True}])
    splits = prepared(compose("data=files", sources("path: records.jsonl", "path: labels.jsonl")))
    made = splits["preference/train"] + splits["preference/test"]
    assert len(made) == 60
    assert {row["rule"] for row in made} == {"liked and disliked"}
    assert all(row["chosen"][0]["content"] == row["rejected"][0]["content"].replace("bad", "good") for row in made)
    assert [(row["line"], row["rule"]) for row in splits["rejected"]] == [(121, "label without its opposite")]


def test_labels_of_two_groups_in_two_splits_are_no_pair(compose: Compose, cfg: Config) -> None:
    write("records.jsonl", records(60))
    labels = [
        {"prompt": f"Rate {n}.", "completion": f"{word} {n}", "label": word == "good", "user": f"{word} {n}"}
        for n in range(60)
        for word in ("good", "bad")
    ]
    write("labels.jsonl", labels)
    splits = prepared(compose("data=files", "data.test=0.5", sources("path: records.jsonl", "path: labels.jsonl, group: user")))
    made = splits["preference/train"] + splits["preference/test"]
    alone = [row["line"] for row in splits["rejected"] if row["rule"] == "label without its opposite"]
    assert 10 < len(made) < 50
    assert len(alone) == 2 * (60 - len(made))


def test_plain_texts_have_no_prompt_that_could_be_in_conflict(compose: Compose, cfg: Config) -> None:
    write("texts.jsonl", [{"text": f"The text number {n} says {n * n} and no more."} for n in range(60)])
    write("preferences.jsonl", pairs(60))
    with gathered(compose("data=files", sources("path: texts.jsonl", "path: preferences.jsonl"))) as (_, kept):
        assert kept.conflicts == 0


def test_a_weight_counts_what_the_cap_leaves(compose: Compose, cfg: Config) -> None:
    write("a.jsonl", records(400))
    write("b.jsonl", records(400, start=1000))
    write("preferences.jsonl", pairs(60))
    given = ("path: a.jsonl, weight: 1, max_records: 20", "path: b.jsonl, weight: 1", "path: preferences.jsonl")
    splits = prepared(compose("data=files", sources(*given)))
    assert [sum(row["source"] == f"data/raw/{name}.jsonl" for row in splits["sft/train"]) for name in "ab"] == [20, 20]


@pytest.mark.parametrize(
    "row",
    [
        '{"instruction": "a", "input": "call\\t415-555-2672\\nsk-abcdefghijklmnopqrstuvwxyz012345", "output": ""}',
        '{"instruction": "a", "input": "write to bob\\u0040example.com or\\n415-555-2672", "output": ',
    ],
    ids=["a field is empty", "no JSON"],
)
def test_personal_data_of_a_row_that_is_no_record_is_masked_too(compose: Compose, cfg: Config, row: str) -> None:
    write("records.jsonl", records(60))
    write("preferences.jsonl", pairs(60))
    with Path("data/raw/records.jsonl").open("a", encoding="utf-8") as file:
        file.write(row + "\n")
    splits = prepared(compose("data=files", "data.quality.malformed=drop", sources("path: records.jsonl", "path: preferences.jsonl")))
    (found,) = splits["rejected"]
    assert "[telephone number]" in found["text"]
    for secret in ("415", "sk-abc", "bob"):
        assert secret not in found["text"]


def test_weights_bring_sources_to_their_shares_and_caps_hold(compose: Compose, cfg: Config) -> None:
    write("a.jsonl", records(400))
    write("b.jsonl", records(400, start=1000))
    write("c.jsonl", records(400, start=5000))
    write("preferences.jsonl", pairs(60))
    given = ("path: a.jsonl, weight: 3", "path: b.jsonl, weight: 1", "path: c.jsonl, max_records: 50", "path: preferences.jsonl")
    splits = prepared(compose("data=files", sources(*given)))
    counts = {name: sum(row["source"] == f"data/raw/{name}.jsonl" for row in splits["sft/train"]) for name in "abc"}
    assert counts["c"] == 50
    assert counts["a"] > 250
    assert counts["b"] == counts["a"] // 3
    assert {row["rule"] for row in splits["rejected"]} == {"beyond data.sources.weight", "beyond data.sources.max_records"}


def test_duplicates_go_wherever_they_are_and_the_test_set_keeps_its_own(cfg: Config) -> None:
    long = "a rather long answer with many words so that one more or less of them makes it nearly the same, and not another, text"
    near = [{"instruction": f"Explain number {n} to me in full.", "output": f"{long} {n}."} for n in range(100)]
    write("records.jsonl", [*records(100), *records(100), *near, *({**row, "output": row["output"] + " Yes."} for row in near)])
    write("preferences.jsonl", [*pairs(60), *pairs(2)])
    splits = prepared(cfg)
    rules = [row["rule"] for row in splits["rejected"]]
    assert rules.count("duplicate") == 102
    assert rules.count("near duplicate") >= 100  # and those whose numbers differ by one digit
    kept = {row["messages"][0]["content"] for split in ("train", "validation", "test") for row in splits[f"sft/{split}"]}
    assert len(kept) == 200 - (rules.count("near duplicate") - 100)


def test_preference_prompts_are_none_of_the_records(cfg: Config) -> None:
    write("records.jsonl", records(60))
    write("preferences.jsonl", [*pairs(60), {"prompt": "Say 1.", "chosen": "1.", "rejected": "2."}])
    assert [(row["line"], row["rule"]) for row in prepared(cfg)["rejected"]] == [(61, "its prompt is also in the records")]


def test_opposite_verdicts_both_go(cfg: Config) -> None:
    write("records.jsonl", records(60))
    write("preferences.jsonl", [*pairs(60), {"prompt": "Count to 3.", "chosen": "No.", "rejected": "Yes."}])
    assert [(row["line"], row["rule"]) for row in prepared(cfg)["rejected"]] == [(4, "opposite verdicts"), (61, "opposite verdicts")]


def test_training_records_that_hold_test_records_go_or_stop_the_run(compose: Compose, cfg: Config) -> None:
    answers = [
        f"the answer that {'so ' * (n % 7)}many people give when they are asked about {n} and about nothing else today" for n in range(200)
    ]
    rows = [
        {"instruction": f"Tell me all that you know of number {n} please and thank you.", "output": answer}
        for n, answer in enumerate(answers)
    ]
    longer = [
        {"instruction": f"Hello! {row['instruction']}", "output": f"Well, {row['output']}, as far as I can tell you now."} for row in rows
    ]
    write("records.jsonl", [*rows, *longer])
    write("preferences.jsonl", pairs(60))
    plain = "data.quality.near_duplicates=null"
    splits = prepared(compose("data=files", plain))
    held_out = {row["messages"][0]["content"] for split in ("test", "validation") for row in splits[f"sft/{split}"]}
    trained = {row["messages"][0]["content"] for row in splits["sft/train"]}
    held = [text for text in held_out if not text.startswith("Hello")]
    assert held
    assert not any(f"Hello! {text}" in trained for text in held)
    assert {row["rule"] for row in splits["rejected"]} == {"holds a held-out record"}
    with pytest.raises(DataError, match=r"records.jsonl:\d+: holds \d+% of data/raw/records.jsonl:\d+, which is held out"):
        prepared(compose("data=files", plain, "data.quality.contaminated=refuse"))


def test_a_pair_that_holds_a_held_out_record_goes(compose: Compose, cfg: Config) -> None:
    asked = [f"Tell me in one sentence what the number {n} is made of when it is taken apart" for n in range(60)]
    answers = [f"The number {n} is made of {n} ones that stand beside each other and of nothing else" for n in range(60)]
    write("records.jsonl", [{"instruction": one, "output": other} for one, other in zip(asked, answers, strict=True)])
    told = [{"prompt": f"{one}.", "chosen": other, "rejected": "No."} for one, other in zip(asked, answers, strict=True)]
    write("preferences.jsonl", [*told, *pairs(60)])
    splits = prepared(compose("data=files", "data.quality.near_duplicates=null", "data.test=0.3"))
    held_out = {row["messages"][0]["content"] for split in ("validation", "test") for row in splits[f"sft/{split}"]}
    assert held_out
    assert not held_out & {row["prompt"][0]["content"].removesuffix(".") for row in splits["preference/train"]}


def test_malformed_rows_of_all_sources_stop_the_run_together(cfg: Config) -> None:
    write("records.jsonl", [*records(60), {"instruction": "x"}])
    write("preferences.jsonl", [*pairs(60), {"prompt": "", "chosen": "a", "rejected": "b"}])
    with pytest.raises(DataError) as raised:
        prepared(cfg)
    assert [problem.split(": ")[0] for problem in raised.value.problems] == ["data/raw/records.jsonl:61", "data/raw/preferences.jsonl:61"]
    assert "2 in all; mend them, or leave them out with data.quality.malformed=drop" in str(raised.value)


def test_malformed_rows_are_left_out_on_demand_each_with_its_rule(compose: Compose, cfg: Config) -> None:
    write("records.jsonl", [*records(60), {"instruction": "x"}])
    with Path("data/raw/records.jsonl").open("ab") as out:
        out.write(b'\xff\xfe broken\n{"instruction": "write to ann@example.org"\n')
    write("preferences.jsonl", pairs(60))
    rejected = prepared(compose("data=files", "data.quality.malformed=drop"))["rejected"]
    assert [(row["line"], row["rule"]) for row in rejected] == [(61, "field missing"), (62, "not UTF-8"), (63, "not JSON")]
    assert "ann@" not in rejected[2]["text"]
    assert "[mail address]" in rejected[2]["text"]


def test_parts_that_would_be_empty_are_named_with_what_went(cfg: Config) -> None:
    write("records.jsonl", records(60))
    write("preferences.jsonl", [{"prompt": f"Say {n}.", "chosen": "a", "rejected": "b"} for n in range(60)])
    with pytest.raises(DataError, match=r"preference/train: found no record that stays") as raised:
        prepared(cfg)
    assert "60 its prompt is also in the records" in str(raised.value)


def test_a_missing_file_is_named(cfg: Config) -> None:
    write("records.jsonl", records(60))
    with pytest.raises(DataError, match=r"data/raw/preferences.jsonl: no such file"):
        prepared(cfg)


def test_the_form_and_ignored_fields_are_said(cfg: Config, caplog: pytest.LogCaptureFixture) -> None:
    write("records.jsonl", ({**record, "id": 1} for record in records(60)))
    write("preferences.jsonl", pairs(60))
    with caplog.at_level(logging.INFO):
        prepared(cfg)
    assert "data/raw/records.jsonl: alpaca, from its first 60 records (instruction, output; ignored: id)" in caplog.text


def test_the_number_of_processes_changes_no_byte(compose: Compose, cfg: Config) -> None:
    write(
        "records.jsonl",
        ({"instruction": f"Count from {n}.", "output": " ".join(map(str, range(50 * n, 50 * n + 50)))} for n in range(12_000)),
    )
    write("preferences.jsonl", pairs(60))
    plain = ("data=files", "data.quality.near_duplicates=null")
    assert prepared(compose(*plain, "prepare.processes=1")) == prepared(compose(*plain, "prepare.processes=2"))


def test_a_short_question_of_an_earlier_turn_is_found_in_training(compose: Compose, cfg: Config) -> None:
    rows = [{"instruction": f"What is {n} and {n + 1}?", "output": f"It is {2 * n + 1}."} for n in range(120)]
    talks = [
        {
            "messages": [
                {"role": "user", "content": f"Good morning to you, this is caller number {n}, and I am in quite a hurry today."},
                {"role": "assistant", "content": f"Good morning, caller {n}, what can I do for you?"},
                {"role": "user", "content": row["instruction"]},
                {"role": "assistant", "content": row["output"]},
                {"role": "user", "content": "Thank you."},
                {"role": "assistant", "content": f"Any time, and a good day to you, caller number {n}!"},
            ]
        }
        for n, row in enumerate(rows)
    ]
    write("records.jsonl", rows)
    write("preferences.jsonl", pairs(60))
    write("talks.jsonl", talks)
    sources = "data.sources=[{path: records.jsonl},{path: talks.jsonl},{path: preferences.jsonl}]"
    splits = prepared(compose("data=files", sources, "data.quality.near_duplicates=null"))
    held_out = {row["messages"][0]["content"] for split in ("test", "validation") for row in splits[f"sft/{split}"]}
    asked = {message["content"] for row in splits["sft/train"] for message in row["messages"]}
    assert sum(text.startswith("What") for text in held_out) > 10
    assert not held_out & asked
    assert {row["rule"] for row in splits["rejected"]} == {contract.CONTAMINATING}


def test_records_that_differ_in_their_system_message_alone_are_no_near_duplicates(compose: Compose, cfg: Config) -> None:
    systems = ["You speak like a pirate of the seven seas, loud and rude.", "You are a polite butler who never raises his voice."]
    write("records.jsonl", [*({"system": system, "instruction": "Say hello.", "output": "Hello."} for system in systems), *records(60)])
    write("preferences.jsonl", pairs(60))
    with gathered(compose("data=files")) as (gathering, kept):
        assert kept.mask[:2].all()
        assert gathering.refused["near duplicate"] == 0


def test_a_record_that_goes_late_is_written_down_as_one_that_goes_early(compose: Compose, cfg: Config) -> None:
    row = {"system": "Be brief.", "instruction": "Say 7.", "output": "7."}
    write("records.jsonl", [row, row, {**row, "output": "cafÃ©"}, *records(60)])
    write("preferences.jsonl", pairs(60))
    texts = {line["rule"]: line["text"] for line in prepared(compose("data=files"))["rejected"]}
    assert texts == {"duplicate": "Be brief.\nSay 7.\n7.", "mojibake": "Be brief.\nSay 7.\ncafÃ©"}


def test_all_sources_that_can_not_be_used_are_named_at_once(compose: Compose, cfg: Config) -> None:
    write("records.jsonl", records(20))
    write("odd.jsonl", [{"this": 1, "that": 2}])
    sources = "data.sources=[{path: gone.jsonl},{path: records.jsonl},{path: odd.jsonl}]"
    with pytest.raises(DataError, match=r"2 of 3 sources can't be used:") as caught, gathered(compose("data=files", sources)):
        pass
    missing, unknown = caught.value.problems
    assert missing.startswith("data/raw/gone.jsonl: no such file")
    assert unknown.startswith("data/raw/odd.jsonl: ")
    assert "set data.sources[2].form" in str(caught.value)


def test_a_test_set_of_texts_that_ask_nothing_is_refused(compose: Compose, cfg: Config) -> None:
    write("texts.jsonl", [{"text": f"This is the story of number {n}, which nobody has told before."} for n in range(80)])
    write("preferences.jsonl", pairs(60))
    sources = "data.sources=[{path: texts.jsonl},{path: preferences.jsonl}]"
    with pytest.raises(DataError, match=r"(?s)the test set asks nothing:.*sft/test: found \d+ plain texts and no record with a prompt"):
        prepared(compose("data=files", sources, "data.quality.near_duplicates=null"))
