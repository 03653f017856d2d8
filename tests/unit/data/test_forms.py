"""The eight forms: what a row says, which rules it can break, and how a file's form is recognised."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.forms import FORMS, Dialogue, Label, Pair, Unusable, convert, recognise
from finetune.errors import DataError

USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}
SYSTEM = {"role": "system", "content": "Be kind."}
ASKED = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Who?\n\nAssistant:"
EARLIER = [USER, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Who?"}]


def dialogue(form: str, row: Any, **fields: str) -> list[dict[str, str]]:
    said = convert(form, row, fields)
    assert isinstance(said, Dialogue)
    return said.messages


def unusable(form: str, row: Any, **fields: str) -> tuple[str, str]:
    with pytest.raises(Unusable) as raised:
        convert(form, row, fields)
    return raised.value.rule, raised.value.message


def test_alpaca_puts_the_input_below_the_instruction() -> None:
    row = {"instruction": "Add.", "input": "1 and 2", "output": "3", "id": 7}
    assert dialogue("alpaca", row) == [{"role": "user", "content": "Add.\n\n1 and 2"}, {"role": "assistant", "content": "3"}]


@pytest.mark.parametrize("nothing", [{}, {"input": None, "system": None, "history": None}, {"input": " ", "system": "", "history": []}])
def test_alpaca_does_without_what_is_optional(nothing: dict[str, Any]) -> None:
    assert dialogue("alpaca", {"instruction": "Hi", "output": "Hello."} | nothing) == [USER, ASSISTANT]


def test_alpaca_begins_with_system_and_history() -> None:
    row = {"instruction": "Who?", "output": "Me.", "system": "Be kind.", "history": [["Hi", "Yes?"]]}
    assert dialogue("alpaca", row) == [SYSTEM, *EARLIER, {"role": "assistant", "content": "Me."}]


def test_sharegpt_has_the_turns_of_tools() -> None:
    turns = [("human", "Rain?"), ("function_call", "weather()"), ("observation", "dry"), ("observation", "warm"), ("gpt", "No.")]
    row = {"system": "Be kind.", "conversations": [{"from": who, "value": said} for who, said in turns]}
    messages = dialogue("sharegpt", row)
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert [message["content"] for message in messages] == ["Be kind.", "Rain?", "weather()", "dry", "warm", "No."]


def test_messages_have_texts_or_parts_that_are_text() -> None:
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i", "image": None}]
    row = {"messages": [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}, ASSISTANT]}
    assert dialogue("messages", row) == [SYSTEM, USER, ASSISTANT]


@pytest.mark.parametrize(("prompt", "completion"), [("Hi", "Hello."), ([USER], [ASSISTANT]), ("Hi", [ASSISTANT]), ([USER], "Hello.")])
def test_prompt_and_completion_are_texts_or_turns(prompt: Any, completion: Any) -> None:
    assert dialogue("prompt_completion", {"prompt": prompt, "completion": completion}) == [USER, ASSISTANT]


def test_a_text_is_an_answer_without_a_prompt() -> None:
    assert dialogue("text", {"text": "Once.\n"}) == [{"role": "assistant", "content": "Once.\n"}]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("prompt", ["Hi", [USER]])
def test_a_preference_may_repeat_its_prompt(prompt: Any, whole: bool) -> None:
    chosen, rejected = ([*([USER] if whole else []), {"role": "assistant", "content": answer}] for answer in ("Hello.", "Go."))
    said = convert("preference", {"prompt": prompt, "chosen": chosen, "rejected": rejected})
    assert said == Pair([USER], "Hello.", "Go.")


def test_a_preference_of_texts_is_a_pair() -> None:
    assert convert("preference", {"prompt": "Hi", "chosen": "Hello.", "rejected": "Go."}) == Pair([USER], "Hello.", "Go.")


def test_what_stands_before_a_text_prompt_in_both_answers_belongs_to_the_prompt() -> None:
    chosen, rejected = ([SYSTEM, USER, {"role": "assistant", "content": answer}] for answer in ("Hello.", "Go."))
    assert convert("preference", {"prompt": "Hi", "chosen": chosen, "rejected": rejected}) == Pair([SYSTEM, USER], "Hello.", "Go.")
    assert unusable("preference", {"prompt": "Hi", "chosen": chosen, "rejected": rejected[1:]})[0] == "transcripts part early"


def test_transcripts_share_all_but_the_last_answer() -> None:
    said = convert("transcripts", {"chosen": ASKED + " Me.", "rejected": ASKED + " You.\n"})
    assert said == Pair(EARLIER, "Me.", "You.")
    turns = {"chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "Go."}]}
    assert convert("transcripts", turns) == Pair([USER], "Hello.", "Go.")


@pytest.mark.parametrize(
    ("label", "liked"),
    [(True, True), (False, False), ("true", True), ("False", False), ("1", True), (0, False), ("Yes", True), (0.0, False)],
)
def test_a_label_is_true_or_false_as_csv_has_it_too(label: Any, liked: bool) -> None:
    assert convert("kto", {"prompt": "Hi", "completion": [ASSISTANT], "label": label}) == Label([USER], "Hello.", liked)


def turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": "x"} for role in roles]}


@pytest.mark.parametrize(
    ("form", "row", "rule", "message"),
    [
        ("alpaca", [1], "wrong type", "found a list, expected an object {instruction, output, input?, system?, history?}; mend the record"),
        ("text", {"texts": "x"}, "field missing", 'no "text", found "texts", expected {text}; mend the record'),
        ("text", {}, "field missing", 'no "text", found no field, expected {text}; mend the record'),
        ("text", {"text": b"x"}, "wrong type", '"text" is of type bytes, expected text; mend the record'),
        ("text", {"text": None}, "wrong type", '"text" is null, expected text; mend the record'),
        ("text", {"text": " \n"}, "field empty", '"text" is empty, expected text; mend the record'),
        ("alpaca", {"instruction": "x", "output": "y", "input": ["z"]}, "wrong type", '"input" is a list, expected text; mend the record'),
        (
            "alpaca",
            {"instruction": "x", "output": "y", "history": [["z"]]},
            "wrong type",
            '1 of "history" is a list of 1, expected [user, assistant], two texts; mend the record',
        ),
        (
            "alpaca",
            {"instruction": "x", "output": "y", "history": [["z", " "]]},
            "field empty",
            '1 of "history" has an empty text, expected two texts; mend the record',
        ),
        ("messages", {"messages": "x"}, "wrong type", '"messages" is text, expected a list of turns; mend the record'),
        ("messages", {"messages": []}, "field empty", '"messages" is an empty list, expected turns; drop the record'),
        ("messages", {"messages": ["x"]}, "wrong type", 'turn 1 of "messages" is text, expected {"role", "content"}; mend the record'),
        (
            "messages",
            {"messages": [{"from": "user", "content": "x"}]},
            "field missing",
            'turn 1 of "messages" has no "role", found "from", "content"; mend the record, or map the names in fields',
        ),
        (
            "messages",
            {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": []}]},
            "content is not text",
            'the content of turn 2 of "messages" is null, expected text; mend or drop the record',
        ),
        (
            "messages",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, ASSISTANT]},
            "content is not text",
            'turn 1 of "messages" has a part of type "image_url", expected {"type": "text", "text": …} alone; drop the part or the record',
        ),
        (
            "messages",
            {"messages": [USER | {"content": ""}]},
            "field empty",
            'turn 1 of "messages" (user) is empty, expected text; mend the record',
        ),
        (
            "messages",
            turns("user"),
            "does not end with the assistant",
            "the last turn is user, expected assistant: there is no answer; drop the turn",
        ),
        (
            "messages",
            turns("assistant"),
            "roles do not alternate",
            "turn 1 is assistant first, expected system or user; mend or drop the record",
        ),
        (
            "messages",
            turns("user", "user"),
            "roles do not alternate",
            "turn 2 is user after user, expected assistant; mend or drop the record",
        ),
        (
            "messages",
            turns("user", "assistant", "system"),
            "roles do not alternate",
            "turn 3 is system after assistant, expected user or tool; mend or drop the record",
        ),
        (
            "sharegpt",
            {"conversations": [{"from": "system", "value": "x"}, {"from": "user", "value": "y"}], "system": "z"},
            "roles do not alternate",
            'a system turn besides "system", expected one of them; drop the other',
        ),
        (
            "preference",
            {"prompt": "x", "chosen": "y", "rejected": " y\n"},
            "same answers",
            "chosen and rejected are the same text, expected a better and a worse answer; drop the record",
        ),
        (
            "preference",
            {"prompt": "x", "chosen": [USER, ASSISTANT], "rejected": "y"},
            "more than one answer",
            '"chosen" has 2 turns, those before the last not the prompt, expected the answer, or prompt and answer; mend the record',
        ),
        (
            "transcripts",
            {"chosen": ASKED + " Me.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."},
            "transcripts part early",
            "chosen and rejected part at turn 2, of 4 and 2, expected the same turns up to the last answer; drop the record",
        ),
        (
            "transcripts",
            {"chosen": "Me.", "rejected": "You."},
            "not a transcript",
            '"chosen" begins with "Me.", expected turns that begin with "\\n\\nHuman:" and "\\n\\nAssistant:"; mend the record',
        ),
        (
            "transcripts",
            {"chosen": ASKED, "rejected": ASKED + " You."},
            "field empty",
            'turn 4 of "chosen" (assistant) is empty, expected text; mend the record',
        ),
        (
            "kto",
            {"prompt": "x", "completion": "y"},
            "field missing",
            'no "label", found "prompt", "completion", expected {prompt, completion, label}; mend the record',
        ),
        (
            "kto",
            {"prompt": "x", "completion": "y", "label": "good"},
            "wrong type",
            '"label" is "good", expected true or false; mend the record',
        ),
        (
            "kto",
            {"prompt": "x", "completion": [ASSISTANT, USER], "label": True},
            "more than one answer",
            '"completion" has 2 turns, expected the assistant\'s answer alone; mend the record',
        ),
    ],
)
def test_a_bad_row_is_named_by_its_rule(form: str, row: Any, rule: str, message: str) -> None:
    assert unusable(form, row) == (rule, message)


def test_an_unknown_role_is_named_with_those_that_are_known() -> None:
    rule, message = unusable("messages", turns("narrator"))
    assert rule == "unknown role"
    assert message.startswith('turn 1 of "messages" is by "narrator", expected one of system, developer, user, human, assistant')


def test_other_names_are_mapped_inside_of_turns_too() -> None:
    assert dialogue("alpaca", {"q": "Hi", "instruction": "ignored", "a": "Hello."}, instruction="q", output="a") == [USER, ASSISTANT]
    row = {"dialog": [{"speaker": "human", "text": "Hi"}, {"speaker": "bot", "text": "Hello."}]}
    mapped = {"messages": "dialog", "role": "speaker", "content": "text"}
    assert unusable("messages", row, **mapped)[0] == "unknown role"
    row["dialog"][1]["speaker"] = "model"
    assert dialogue("messages", row, **mapped) == [USER, ASSISTANT]


def test_a_mapping_may_exchange_two_names() -> None:
    said = convert("preference", {"prompt": "Hi", "chosen": "Go.", "rejected": "Hello."}, {"chosen": "rejected", "rejected": "chosen"})
    assert said == Pair([USER], "Hello.", "Go.")


def test_a_message_about_a_mapped_field_has_the_files_name() -> None:
    assert unusable("text", {"body": " "}, text="body") == (
        "field empty",
        '"text" is empty, expected text; mend the record; "text" is read from "body"',
    )


def test_the_group_is_a_text_or_a_number() -> None:
    row = {"text": "x", "user": 7, "none": None}
    assert convert("text", row, group="user") == Dialogue([{"role": "assistant", "content": "x"}], "7")
    with pytest.raises(Unusable, match='found "none" that is null, expected the text or number of a group'):
        convert("text", row, group="none")
    with pytest.raises(Unusable, match='found no "users"'):
        convert("text", row, group="users")


def known(*rows: Any, form: str | None = None, **fields: str) -> str:
    return str(recognise(rows, fields, place="records.jsonl", setting="data.sources[0]", form=form))


EXAMPLES: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "x", "input": "", "output": "y"},
    "sharegpt": {"conversations": [{"from": "human", "value": "x"}]},
    "messages": {"messages": [USER]},
    "prompt_completion": {"prompt": "x", "completion": "y"},
    "text": {"text": "x"},
    "preference": {"prompt": "x", "chosen": "y", "rejected": "z"},
    "transcripts": {"chosen": ASKED, "rejected": ASKED},
    "kto": {"prompt": "x", "completion": "y", "label": "true"},
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_recognised(form: str) -> None:
    assert known(EXAMPLES[form] | {"id": 1}).startswith(f"{form}, from its first record (")


def test_a_log_line_says_by_what_a_form_was_known() -> None:
    rows = [EXAMPLES["alpaca"] | {"id": 1, "text": "rendered"}] * 100
    assert known(*rows) == "alpaca, from its first 100 records (instruction, output, input; ignored: id, text)"


def test_a_mapped_form_is_known_by_the_files_names() -> None:
    line = known({"question": "x", "reply": "y", "id": 1}, instruction="question", output="reply")
    assert line == "alpaca, from its first record (question, reply; ignored: id)"


def test_a_few_broken_rows_have_no_say() -> None:
    assert known(EXAMPLES["alpaca"], EXAMPLES["alpaca"], {"instruction": "x"}, 7, EXAMPLES["alpaca"]).startswith("alpaca")


@pytest.mark.parametrize(
    ("rows", "doubt"),
    [
        ([{"question": "x", "reply": "y"}], 'no form fits, expected records of one form; the first is {"question": "x", "reply": "y"}'),
        ([7], "no form fits, expected records of one form; the first is 7"),
        ([], "no form fits, expected records of one form; the first is null"),
        ([EXAMPLES["messages"] | EXAMPLES["alpaca"]], "it can be alpaca or messages, expected"),
        ([EXAMPLES["kto"], EXAMPLES["kto"] | {"label": "good"}], "kto fits 1 of its first 2 records, which is not most of them"),
        (
            [EXAMPLES["alpaca"], 7],
            "alpaca fits 1 of its first 2 records, which is not most of them, expected records of one form; one that it does not fit is 7",
        ),
        ([{"text": 7, "more": "x" * 600}], 'the first is {"text": 7, "more": "' + "x" * 479 + "…"),
    ],
)
def test_doubt_shows_the_record_and_names_the_choices(rows: list[Any], doubt: str) -> None:
    with pytest.raises(DataError) as raised:
        known(*rows)
    assert "records.jsonl: " in str(raised.value)
    assert doubt in str(raised.value)
    assert "set data.sources[0].form: one of alpaca, sharegpt, messages, prompt_completion, text, " in str(raised.value)


def test_a_given_form_is_not_doubted() -> None:
    assert known({"question": "x"}, form="text") == "text, from its first record (ignored: question)"


def test_a_mapped_name_that_no_record_has_is_named() -> None:
    with pytest.raises(DataError, match=r'records.jsonl: no record has "questoin", found "question", "reply"; mend data.sources'):
        known({"question": "x", "reply": "y"}, instruction="questoin")


def test_a_mapping_of_a_name_that_the_form_lacks_is_named() -> None:
    with pytest.raises(DataError, match=r"data.sources\[0\].fields: found reply, expected those of text: text; mend"):
        known({"text": "x"}, form="text", reply="text")


NAMES = sorted({name for form in FORMS.values() for name in form.fields} | {"type", "x"})
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["user", "assistant", "human", "text", ASKED + "x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=5),
    max_leaves=8,
)


def outcome(form: str, value: Any) -> str | list[dict[str, str]]:
    try:
        said = convert(form, value, {"content": "x"} if form == "messages" else {})
    except Unusable as unusable:
        return f"{unusable.rule}: {unusable.message}"
    return said.messages if isinstance(said, Dialogue) else said.prompt


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FORMS)), JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, JSON)))
def test_no_json_value_is_anything_but_said_or_unusable(form: str, value: Any) -> None:
    found = outcome(form, value)
    assert found.encode() if isinstance(found, str) else all(message["content"].strip() for message in found)


def test_a_value_that_is_too_deep_to_be_shown_is_named() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert unusable("messages", {"messages": [USER | {"content": [{"type": deep}]}]}) == (
        "content is not text",
        'turn 1 of "messages" has a part of type a list, expected {"type": "text", "text": …} alone; drop the part or the record',
    )
    with pytest.raises(DataError, match="the first is an object"):
        known({"x": deep})


def recognised(rows: list[Any]) -> str:
    try:
        return recognise(rows, place="x", setting="data.sources[0]").form
    except DataError as error:
        return str(error)


@settings(max_examples=100, deadline=None)
@given(st.lists(JSON, max_size=4))
def test_no_rows_make_recognition_fail_with_anything_but_doubt(rows: list[Any]) -> None:
    found = recognised(rows)
    assert found in FORMS or found.startswith("the form of the records can't be told:")
