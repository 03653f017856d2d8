"""Conversations → token ids, through the model's own chat template; and which of them are learned: the answer and its end token.

The boundary is found by difference: the ids of the prompt, up to the place where the model would speak, must be the beginning of the
ids of the whole conversation. Searching for a marker in the text instead fails on the first template that writes it otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from finetune.data.records import Message
from finetune.errors import ModelError

IGNORED = -100  # label of a token that is not learned, as in torch's cross-entropy


class UnusableError(ValueError):
    """Why a record can't be brought into the model's form; its place is known to who reads the file."""


@dataclass(frozen=True)
class Turn:
    """A prompt with everything that the template puts before an answer, and the answer with its end token."""

    prompt_ids: list[int]
    answer_ids: list[int]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)

    @property
    def input_ids(self) -> list[int]:
        """What the model reads."""
        return self.prompt_ids + self.answer_ids

    @property
    def labels(self) -> list[int]:
        """What it learns: as long as input_ids, with IGNORED for the prompt."""
        return [IGNORED] * len(self.prompt_ids) + self.answer_ids


class Chat:
    """A tokenizer with its chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        """Raises ModelError if the tokenizer has no chat template."""
        if not tokenizer.chat_template:
            raise ModelError(f"{name}: its tokenizer has no chat template, expected an instruct model; set another model")
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._special = {number: token.content for number, token in added.items() if token.special}

    def turn(self, prompt: Sequence[Message], answer: str) -> Turn:
        """Return the ids of a prompt and its answer. What a template writes after the end token, often a line end, is left out.

        Raises:
            UnusableError: a text holds one of the model's control tokens, or the template does not allow it.
        """
        for message in [*prompt, {"role": "answer", "content": answer}]:
            if held := [token for token in self._special.values() if token in message["content"]]:
                raise UnusableError(f"the {message['role']} text holds {held[0]!r}, a control token of the model; take it out of the text")
        prompt_ids = self._ids(prompt, generation=True)
        ids = self._ids([*prompt, {"role": "assistant", "content": answer}], generation=False)
        if ids[: len(prompt_ids)] != prompt_ids:
            parted = next((place for place, (one, other) in enumerate(zip(prompt_ids, ids, strict=False)) if one != other), len(ids))
            wanted, got = (self._text(some[parted : parted + 8]) for some in (prompt_ids, ids))
            found = f"found {got!r} at token {parted + 1}, expected {wanted!r}"
            raise UnusableError(f"the chat template writes another prompt when an answer follows ({found}); take another model or template")
        return Turn(prompt_ids, self._ended(ids[len(prompt_ids) :], answer))

    def _ids(self, messages: Sequence[Message], generation: bool) -> list[int]:
        try:
            # the template writes the beginning-of-text token where the model wants one, and the tokenizer adds none to it; a model that
            # can think aloud first is told not to, so that the place for it belongs to the prompt
            ids = self._tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=generation, return_dict=False, enable_thinking=False
            )
        except TemplateError as error:
            raise UnusableError(f"the chat template refuses it ({error}); if it takes no system message, set data.system=null") from error
        return cast("list[int]", ids)

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids))

    def _ended(self, ids: list[int], answer: str) -> list[int]:
        """The ids up to the first control token after the whole answer."""
        wanted = "".join(answer.split())
        for place, number in enumerate(ids):
            if number in self._special and wanted in "".join(self._text(ids[:place]).split()):
                return ids[: place + 1]
        raise UnusableError("the chat template puts no end token after the answer, so a model could not learn to stop")
