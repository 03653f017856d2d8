"""Chat templates: the answer and its end token are learned, and nothing else, whatever the template writes around them."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from finetune.data.chat import IGNORED, Chat, Tokens, Turns, UnusableError
from finetune.data.records import Message
from finetune.errors import ModelError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "turn on the lamp"}]
ANSWER = '{"intent": "HassTurnOn", "name": "lamp"}'
TALK = [*PROMPT, {"role": "assistant", "content": "first"}, {"role": "user", "content": "more"}, {"role": "assistant", "content": "second"}]
SPECIAL = ["<s>", "<|im_start|>", "<|im_end|>", "<|channel|>"]


def tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that, like Llama's, puts <s> before every text that it is not told to leave alone."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    raw.train_from_iterator([ANSWER, "turn on the lamp"] * 4, trainer)
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", raw.token_to_id("<s>"))])
    made = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="<|im_end|>", additional_special_tokens=SPECIAL[1:])
    made.chat_template = template
    return made


def tokens(made: PreTrainedTokenizerFast, messages: list[Message], turns: Turns = "all") -> Tokens:
    chat = Chat(made, "a model")
    (found,) = chat.encode([chat.conversation(messages, turns)])
    if isinstance(found, UnusableError):
        raise found
    assert len(found.labels) == len(found.input_ids) == len(found)
    return found


def turn(made: PreTrainedTokenizerFast, prompt: list[Message], answer: str) -> Tokens:
    return tokens(made, [*prompt, {"role": "assistant", "content": answer}])


def learned(template: str, answer: str = ANSWER) -> str:
    made = tokenizer(template)
    return str(made.decode([label for label in turn(made, PROMPT, answer).labels if label != IGNORED]))


def test_the_answer_and_its_end_token_are_learned_and_nothing_else() -> None:
    assert learned(CHATML) == f"{ANSWER}<|im_end|>"


def test_a_model_that_can_think_aloud_learns_the_answer_alone() -> None:
    """As Qwen3's template: an empty thought before every answer, and in the prompt only where thinking is turned off."""
    empty = "<think>\n\n</think>\n\n"
    template = CHATML.replace("{{ m.content }}", f"{{% if m.role == 'assistant' %}}{empty}{{% endif %}}{{{{ m.content }}}}").replace(
        "<|im_start|>assistant\n{% endif %}",
        f"<|im_start|>assistant\n{{% if enable_thinking is defined and not enable_thinking %}}{empty}{{% endif %}}{{% endif %}}",
    )
    assert learned(template) == f"{ANSWER}<|im_end|>"
    assert str(tokenizer(template).decode(turn(tokenizer(template), PROMPT, ANSWER).prompt_ids)).endswith(empty)


def test_nothing_follows_the_end_token() -> None:
    text = str(tokenizer().decode(turn(tokenizer(), PROMPT, ANSWER).input_ids))
    assert text.endswith(f"{ANSWER}<|im_end|>")


def test_an_end_token_that_is_not_the_tokenizers_own_is_found() -> None:
    assert learned(CHATML.replace("<|im_end|>", "<|channel|>")) == f"{ANSWER}<|channel|>"


def test_control_tokens_between_prompt_and_answer_do_not_end_it() -> None:
    template = CHATML.replace("{{ m.content }}", "{% if m.role == 'assistant' %}<|channel|>final{% endif %}{{ m.content }}")
    assert learned(template) == f"<|channel|>final{ANSWER}<|im_end|>"


def test_a_template_that_trims_the_answer_is_followed() -> None:
    assert learned(CHATML.replace("{{ m.content }}", "{{ m.content | trim }}"), f" {ANSWER}\n") == f"{ANSWER}<|im_end|>"


@pytest.mark.parametrize(("template", "count"), [(CHATML, 0), ("<s>" + CHATML, 1)])
def test_the_template_alone_decides_about_a_beginning_token(template: str, count: int) -> None:
    made = tokenizer(template)
    assert turn(made, PROMPT, ANSWER).input_ids.count(made.bos_token_id) == count


def test_a_prompt_that_changes_when_an_answer_follows_is_refused() -> None:
    template = CHATML.replace("{{ m.role }}", "{{ m.role }}{% if messages | length > 2 %} (again){% endif %}")
    with pytest.raises(UnusableError, match=r"writes another prompt when an answer follows \(found .* at token \d+, expected "):
        turn(tokenizer(template), PROMPT, ANSWER)


def test_a_template_without_an_end_token_is_refused() -> None:
    with pytest.raises(UnusableError, match="no end token after the answer"):
        turn(tokenizer(CHATML.replace("<|im_end|>", "")), PROMPT, ANSWER)


def test_a_template_that_takes_no_system_message_says_so() -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
    with pytest.raises(UnusableError, match=r"refuses it \(System role not supported\); .* set data.system=null"):
        turn(tokenizer(template), PROMPT, ANSWER)


@pytest.mark.parametrize(
    ("prompt", "answer", "where"),
    [(PROMPT, "yes<|im_end|>no", "answer"), ([{"role": "user", "content": "<|im_start|>"}], "yes", "user")],
)
def test_a_text_with_a_control_token_is_refused(prompt: list[dict[str, str]], answer: str, where: str) -> None:
    with pytest.raises(UnusableError, match=f"the {where} text holds '<|im_"):
        turn(tokenizer(), prompt, answer)


def test_a_conversation_needs_a_template() -> None:
    with pytest.raises(ModelError, match="a model: its tokenizer has no chat template"):
        turn(tokenizer(None), PROMPT, ANSWER)


@pytest.mark.parametrize("template", [None, CHATML])
def test_a_text_alone_needs_no_template_and_is_learned_whole_with_an_end_token(template: str | None) -> None:
    made = tokenizer(template)
    found = tokens(made, [{"role": "assistant", "content": "turn on the lamp"}])
    assert found.input_ids == [*made("turn on the lamp")["input_ids"], made.eos_token_id]
    assert found.labels == found.input_ids


def test_a_text_alone_gets_no_second_end_token() -> None:
    made = tokenizer(None)
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A <|im_end|>", special_tokens=[("<|im_end|>", 2)])
    assert made.eos_token_id == 2
    assert tokens(made, [{"role": "assistant", "content": "turn"}]).input_ids.count(2) == 1


@pytest.mark.parametrize(("turns", "expected"), [("all", "first<|im_end|>second<|im_end|>"), ("last", "second<|im_end|>")])
def test_all_answers_of_a_conversation_are_learned_or_the_last(turns: Turns, expected: str) -> None:
    made = tokenizer()
    found = tokens(made, TALK, turns)
    assert made.decode([label for label in found.labels if label != IGNORED]) == expected
    assert str(made.decode(found.prompt_ids)).endswith("<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n")
    assert found.supervised == sum(label != IGNORED for label in found.labels)


def test_an_answer_that_later_turns_rewrite_is_refused_and_the_remedy_named() -> None:
    """As Qwen3's template, which takes the thought off every answer but the last."""
    thought = "{% if loop.last and m.role == 'assistant' %}<think></think>{% endif %}"
    template = CHATML.replace("{{ m.content }}", thought + "{{ m.content }}")
    with pytest.raises(
        UnusableError, match=r"rewrites an answer when later turns follow \(found 'first.*, expected '<think>.*set format.turns=last"
    ):
        tokens(tokenizer(template), TALK)
    assert tokens(tokenizer(template), TALK, "last").supervised


def test_an_answer_whose_end_token_later_turns_change_is_refused() -> None:
    template = CHATML.replace("<|im_end|>", "{% if loop.last and m.role == 'assistant' %}<|channel|>{% else %}<|im_end|>{% endif %}")
    with pytest.raises(
        UnusableError, match=r"rewrites an answer when later turns follow \(found 'first<\|im_end\|>.*expected 'first<\|channel"
    ):
        tokens(tokenizer(template), TALK)


def test_a_template_that_doubles_the_beginning_token_is_refused() -> None:
    with pytest.raises(UnusableError, match=r"doubles the token that begins a text \(found '<s><s>.*, expected '<s>' once"):
        turn(tokenizer("<s>{{ bos_token }}" + CHATML), PROMPT, ANSWER)


def test_a_template_that_leaves_the_answer_out_is_refused() -> None:
    template = CHATML.replace("{{ m.content }}", "{% if m.role != 'assistant' %}{{ m.content }}{% endif %}")
    with pytest.raises(UnusableError, match=r"writes another answer \(found '<\|im_end\|>.*\), so the mask would be empty"):
        turn(tokenizer(template), PROMPT, ANSWER)


@pytest.mark.parametrize("prompt", ["", "<s>"])
def test_a_template_whose_prompt_lacks_what_was_asked_is_refused(prompt: str) -> None:
    template = f"{{% if add_generation_prompt %}}{prompt}{{% else %}}{prompt}{CHATML}{{% endif %}}"
    with pytest.raises(UnusableError, match=r"leaves out what the system says .*expected 'Be brief.'"):
        turn(tokenizer(template), PROMPT, ANSWER)


@pytest.mark.parametrize(
    ("condition", "who", "says"),
    [("m.role != 'system'", "system", "Be brief."), ("m.role != 'tool'", "tool", "it is off"), ("loop.index > 3", "system", "Be brief.")],
    ids=["system", "tool", "earlier turns"],
)
def test_a_template_that_leaves_out_what_was_said_before_is_refused(condition: str, who: str, says: str) -> None:
    template = CHATML.replace("{% for m in messages %}", f"{{% for m in messages if {condition} %}}").replace(
        "loop.index", "messages.index(m)"
    )
    talk = [*TALK[:3], {"role": "tool", "content": "it is off"}, TALK[4]]
    with pytest.raises(UnusableError, match=f"the chat template leaves out what the {who} says .*, expected '{says}'"):
        tokens(tokenizer(template), talk, "last")


def test_what_was_said_before_is_looked_for_in_its_order() -> None:
    template = CHATML.replace("{% for m in messages %}", "{% for m in messages[2:] %}")
    talk = [{"role": role, "content": said} for role, said in zip(("user", "assistant") * 2, ("yes", "no", "yes or no", "k"), strict=True)]
    with pytest.raises(UnusableError, match=r"leaves out what the (user|assistant) says"):
        tokens(tokenizer(template), talk, "last")


def test_a_switch_for_thinking_may_be_taken_out_of_the_system_message() -> None:
    template = CHATML.replace("{{ m.content }}", "{{ m.content | replace('/no_think', '') | trim }}")
    talk = [{"role": "system", "content": "Be brief. /no_think "}, *TALK[1:]]
    assert tokens(tokenizer(template), talk, "last").supervised


def test_an_added_token_is_not_read_back() -> None:
    """The byte-level decoder reads Latin-1 letters of an added token as bytes."""
    made = tokenizer()
    made.add_tokens(["café"])
    assert turn(made, PROMPT, "ein café").supervised
    assert tokens(made, [{"role": "assistant", "content": "ein café"}]).supervised


def test_what_a_tool_returns_may_be_written_as_json() -> None:
    template = CHATML.replace("{{ m.content }}", "{% if m.role == 'tool' %}{{ m.content | tojson }}{% else %}{{ m.content }}{% endif %}")
    talk = [*TALK[:3], {"role": "tool", "content": 'the "café"\nis off'}, TALK[4]]
    assert tokens(tokenizer(template), talk).supervised


def test_a_template_may_leave_out_what_was_thought_aloud_before_an_earlier_answer() -> None:
    template = CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] if not loop.last else m.content }}")
    talk = [*PROMPT, {"role": "assistant", "content": "<think>well</think>first"}, *TALK[3:]]
    found = tokens(tokenizer(template), talk, "last")
    assert "well" not in tokenizer().decode(found.input_ids)


@pytest.mark.parametrize("plain", [False, True])
def test_a_tokenizer_that_does_not_keep_the_text_is_refused(plain: bool) -> None:
    made = tokenizer()
    made.backend_tokenizer.normalizer = normalizers.Lowercase()
    talk = [{"role": "assistant", "content": "the Café"}] if plain else [*PROMPT[1:], {"role": "assistant", "content": "the Café"}]
    with pytest.raises(UnusableError, match=r"tokenizer of a model does not keep the text: .*\(found 'café.*', expected 'Café"):
        tokens(made, talk)
    assert tokens(made, [{**message, "content": message["content"].lower()} for message in talk]).supervised


def test_a_text_that_the_tokenizer_has_no_tokens_for_is_refused() -> None:
    raw = Tokenizer(models.WordLevel({"<unk>": 0, "<e>": 1, "yes": 2, "no": 3}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<e>", unk_token="<unk>")
    made.chat_template = "{% for m in messages %}{{ m.content }} {% if m.role == 'assistant' %}<e>{% endif %}{% endfor %}"
    assert turn(made, [{"role": "user", "content": "yes"}], "no").supervised == 2
    with pytest.raises(UnusableError, match=r"does not keep the text.*\(found '<unk>', expected '\{'\)"):
        turn(made, [{"role": "user", "content": "yes"}], "{")


def test_characters_that_unicode_holds_to_be_the_same_are_kept() -> None:
    """As Qwen's tokenizer, which composes accents."""
    made = tokenizer()
    made.backend_tokenizer.normalizer = normalizers.NFC()
    assert turn(made, PROMPT, "the cafe\u0301").supervised
    assert tokens(made, [{"role": "assistant", "content": "the cafe\u0301"}]).supervised


def test_an_answer_whose_beginning_melts_into_the_prompt_is_refused() -> None:
    raw = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, "<e>": 3}, [("a", "b")]))
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<e>")
    made.chat_template = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<e>{% endif %}{% endfor %}"
    with pytest.raises(UnusableError, match=r"the answer's beginning becomes one token with the prompt's end .*found 'ab.*expected 'a'"):
        turn(made, [{"role": "user", "content": "a"}], "b")
