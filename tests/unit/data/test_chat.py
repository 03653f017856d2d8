"""Chat templates: the answer and its end token are learned, and nothing else, whatever the template writes around them."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from finetune.data.chat import IGNORED, Chat, UnusableError
from finetune.errors import ModelError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "turn on the lamp"}]
ANSWER = '{"intent": "HassTurnOn", "name": "lamp"}'
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


def learned(template: str, answer: str = ANSWER) -> str:
    made = tokenizer(template)
    turn = Chat(made, "a model").turn(PROMPT, answer)
    assert len(turn.labels) == len(turn.input_ids) == len(turn)
    return str(made.decode([label for label in turn.labels if label != IGNORED]))


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
    assert str(tokenizer(template).decode(Chat(tokenizer(template), "a model").turn(PROMPT, ANSWER).prompt_ids)).endswith(empty)


def test_nothing_follows_the_end_token() -> None:
    text = str(tokenizer().decode(Chat(tokenizer(), "a model").turn(PROMPT, ANSWER).input_ids))
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
    assert Chat(made, "a model").turn(PROMPT, ANSWER).input_ids.count(made.bos_token_id) == count


def test_a_prompt_that_changes_when_an_answer_follows_is_refused() -> None:
    template = CHATML.replace("{{ m.role }}", "{{ m.role }}{% if messages | length > 2 %} (again){% endif %}")
    with pytest.raises(UnusableError, match=r"writes another prompt when an answer follows \(found .* at token \d+, expected "):
        Chat(tokenizer(template), "a model").turn(PROMPT, ANSWER)


def test_a_template_without_an_end_token_is_refused() -> None:
    with pytest.raises(UnusableError, match="no end token after the answer"):
        Chat(tokenizer(CHATML.replace("<|im_end|>", "")), "a model").turn(PROMPT, ANSWER)


def test_a_template_that_takes_no_system_message_says_so() -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
    with pytest.raises(UnusableError, match=r"refuses it \(System role not supported\); .* set data.system=null"):
        Chat(tokenizer(template), "a model").turn(PROMPT, ANSWER)


@pytest.mark.parametrize(
    ("prompt", "answer", "where"),
    [(PROMPT, "yes<|im_end|>no", "answer"), ([{"role": "user", "content": "<|im_start|>"}], "yes", "user")],
)
def test_a_text_with_a_control_token_is_refused(prompt: list[dict[str, str]], answer: str, where: str) -> None:
    with pytest.raises(UnusableError, match=f"the {where} text holds '<|im_"):
        Chat(tokenizer(), "a model").turn(prompt, answer)


def test_a_tokenizer_without_a_template_is_no_chat_model() -> None:
    with pytest.raises(ModelError, match="a model: its tokenizer has no chat template"):
        Chat(tokenizer(None), "a model")
