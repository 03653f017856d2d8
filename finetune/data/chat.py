"""Conversations → token ids, through the model's own chat template; and which of them are learned: the answers and their end tokens.

The boundary is found by difference: the prompt, up to the place where the model would speak, must be the beginning of the whole, as text
and as token ids. Searching for a marker in the text instead fails on the first template that writes it otherwise.

Text becomes ids in pieces, each an added token with what follows it: a fast tokenizer cuts these tokens out first, and turns what is
between them into ids one by one, so the ids of a text are those of its pieces. What repeats, as a system message, is encoded once.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from finetune.data.records import Message
from finetune.errors import ModelError

IGNORED = -100  # label of a token that is not learned, as in torch's cross-entropy
REMEMBERED = 16_384  # pieces, of some hundred bytes each, before all are forgotten
# what templates that write the date take for today, else each night would give other bytes; Llama 3's own where it knows none
DAY = datetime(2024, 7, 26, tzinfo=UTC)
SHOWN = 80  # characters of a text in a message

Turns = Literal["all", "last"]


class UnusableError(ValueError):
    """Why a record can't be brought into the model's form; its place is known to who reads the file."""


@dataclass(frozen=True)
class Draft:
    """A record as the text that the model reads."""

    text: str
    """Up to the end token of the last answer; what a template writes after it, often a line end, is left out."""
    turns: tuple[tuple[str, int], ...] = ()
    """For each answer to learn: the prompt as it would be at inference, and where in the text the answer's end token ends."""
    plain: bool = False
    """A text without a conversation: the end token is not in it yet."""


@dataclass(frozen=True)
class Tokens:
    """What the model reads, and the stretches of it, in order, that are learned."""

    input_ids: list[int]
    learned: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def labels(self) -> list[int]:
        """As long as input_ids, with IGNORED for what is not learned."""
        labels: list[int] = []
        for start, end in self.learned:
            labels += [IGNORED] * (start - len(labels))
            labels += self.input_ids[start:end]
        return labels + [IGNORED] * (len(self.input_ids) - len(labels))

    @property
    def supervised(self) -> int:
        """The number of tokens that are learned."""
        return sum(end - start for start, end in self.learned)

    @property
    def prompt_ids(self) -> list[int]:
        """What stands before the last answer; everything where there is none."""
        return self.input_ids[: self.learned[-1][0]] if self.learned else self.input_ids

    @property
    def answer_ids(self) -> list[int]:
        """The last answer with its end token."""
        return self.input_ids[self.learned[-1][0] :] if self.learned else []


class Chat:
    """A tokenizer with its chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        """Raise no error for a tokenizer without a template before a conversation needs one: plain text needs none."""
        self._tokenizer = tokenizer
        self._name = name
        self.begin: int | None = tokenizer.bos_token_id  # asked of the tokenizer for each record they would take a twentieth of the time
        self._end: str | None = tokenizer.eos_token
        self._template = tokenizer.get_chat_template() if tokenizer.chat_template else None
        self._variables: dict[str, Any] = {**tokenizer.special_tokens_map, "enable_thinking": False, "strftime_now": DAY.strftime}
        added = {number: token for number, token in tokenizer.added_tokens_decoder.items() if token.content}
        self._control = _any_of(token.content for token in added.values() if token.special)
        self._pieces: dict[str, list[int]] = {}

        # transformers' own way from text to ids, without what it wraps round each text; a class that changes the way is left to it
        own = isinstance(tokenizer, PreTrainedTokenizerFast) and type(tokenizer)._encode_plus is PreTrainedTokenizerFast._encode_plus
        self._backend = tokenizer.backend_tokenizer if own else None
        self._cuts = None
        if self._backend is not None:
            self._backend.no_truncation()
            self._backend.no_padding()
            self._backend.encode_special_tokens = tokenizer.split_special_tokens
            cut_out = [token for token in added.values() if not token.normalized]
            # a token that takes in white space before it, or that must stand alone, looks at the piece before
            if not tokenizer.split_special_tokens and not any(token.lstrip or token.single_word for token in cut_out):
                self._cuts = _any_of(token.content for token in cut_out)

    def conversation(self, messages: Sequence[Message], turns: Turns) -> Draft:
        """Return a conversation that ends with the assistant, to learn all of its turns or the last; alone, its text is plain.

        Raises:
            UnusableError: a text holds one of the model's control tokens, or the template does not allow it.
            ModelError: the tokenizer has no chat template.
        """
        self._refuse_control_tokens(messages)
        if len(messages) == 1:
            return Draft(messages[0]["content"], plain=True)
        whole = self.render(messages, generation=False)
        last = len(messages) - 1
        places = [last] if turns == "last" else [place for place in range(1, last + 1) if messages[place]["role"] == "assistant"]
        spans = [self._turn(messages, place, whole) for place in places]
        return Draft(whole[: spans[-1][1]], tuple(spans))

    def prompt(self, messages: Sequence[Message]) -> Draft:
        """Return a conversation up to the place where the model would speak. Raises as above."""
        self._refuse_control_tokens(messages)
        return Draft(self.render(messages, generation=True))

    def render(self, messages: Sequence[Message], generation: bool) -> str:
        """Return what apply_chat_template makes of the messages, with the place for an answer where `generation`. Raises as above.

        The template writes the beginning-of-text token where the model wants one, and the tokenizer adds none to it; a model that can think
        aloud first is told not to, so that the place for it belongs to the prompt; and a template that writes the date writes DAY.
        """
        if self._template is None:
            raise ModelError(f"{self._name}: its tokenizer has no chat template, expected an instruct model; set another model")
        try:
            rendered = render_jinja_template(
                conversations=[list(messages)], chat_template=self._template, add_generation_prompt=generation, **self._variables
            )
        except (TemplateError, TypeError) as error:
            raise UnusableError(f"the chat template refuses it ({error}); if it takes no system message, set data.system=null") from error
        return cast("tuple[list[str], object]", rendered)[0][0]  # transformers says that it is a str

    def encode(self, drafts: Sequence[Draft]) -> list[Tokens | UnusableError]:
        """Return the token ids of each draft, or why it has none that keep the promise: those of the prompt begin those of the whole."""
        cut = [self._cut(draft) for draft in drafts if not draft.plain]
        plain = iter(self._plain([draft.text for draft in drafts if draft.plain]))
        known = self._encoded(piece for texts in cut for pieces in texts for piece in pieces)
        conversations = iter(cut)
        return [
            next(plain) if draft.plain else self._masked(draft, [_join(text, known) for text in next(conversations)]) for draft in drafts
        ]

    def _turn(self, messages: Sequence[Message], place: int, whole: str) -> tuple[str, int]:
        """The prompt of the answer at a place of the conversation, and where in the whole its end token ends."""
        before, answer = messages[:place], messages[place]["content"]
        prompt = self.render(before, generation=True)
        with_it = whole if place == len(messages) - 1 else self.render(messages[: place + 1], generation=False)
        if not with_it.startswith(prompt):
            raise UnusableError(self._drift(prompt, with_it))
        asked = messages[place - 1]
        if not prompt or (asked["role"] == "user" and not _holds(prompt, asked["content"])):
            found = f"found {_end(prompt)!r} where the model would speak, expected what the {asked['role']} says before it"
            raise UnusableError(f"the mask would cover the prompt ({found}); take another model or template")
        end = self._ended(with_it, len(prompt), answer)
        if not whole.startswith(with_it[:end]):
            at = min(_parted(whole, with_it), len(prompt))
            found = f"found {whole[at : at + SHOWN]!r} at character {at + 1}, expected {with_it[at:end][:SHOWN]!r}"
            raise UnusableError(
                f"the chat template rewrites an answer when later turns follow ({found}), so what is learned would not be what the model "
                "writes; set format.turns=last"
            )
        return prompt, end

    def _ended(self, text: str, start: int, answer: str) -> int:
        """Where the control token after the whole answer ends; a run of them, up to the tokenizer's own end token if that is in it."""
        if not (text.startswith(answer, start) and (mark := self._control.match(text, start + len(answer)))):
            marks = self._control.finditer(text, start)
            mark = next((mark for mark in marks if _holds(text[start : mark.start()], answer)), None)
        if mark:
            last: re.Match[str] | None = mark
            while last and last[0] != self._end:  # as Cohere's, which ends an answer, and then the turn
                last = self._control.match(text, last.end())
            return (last or mark).end()
        if _holds(text[start:], answer):
            found = f"found {_end(text)!r} at its end, expected one of the tokenizer's special tokens"
            raise UnusableError(f"the chat template puts no end token after the answer ({found}), so a model could not learn to stop")
        found = f"found {text[start : start + SHOWN]!r} where the model would speak, expected {answer[:SHOWN]!r}"
        raise UnusableError(
            f"the chat template writes another answer ({found}), so the mask would be empty; take another model or template"
        )

    def _masked(self, draft: Draft, ids: Sequence[list[int]]) -> Tokens | UnusableError:
        """The ids of a draft's texts, in the order of `_texts`, as tokens with their mask."""
        whole, *parts = ids
        learned = []
        for (prompt, _), prompt_ids, until_ids in zip(draft.turns, parts[::2], parts[1::2], strict=True):
            if whole[: len(prompt_ids)] != prompt_ids or whole[: len(until_ids)] != until_ids:
                return UnusableError(self._drift(prompt, draft.text))
            if not 0 < len(prompt_ids) < len(until_ids):
                found = f"found {len(prompt_ids)} tokens of prompt and {len(until_ids) - len(prompt_ids)} of answer"
                return UnusableError(f"the mask would cover the prompt or be empty ({found}, expected some of both); take another template")
            learned.append((len(prompt_ids), len(until_ids)))
        if self.begin is not None and whole[:2] == [self.begin, self.begin]:
            found = f"found {self._text(whole[:4])!r}, expected {self._tokenizer.bos_token!r} once"
            return UnusableError(f"the chat template doubles the token that begins a text ({found}); take another model or template")
        return Tokens(whole, tuple(learned))

    def _cut(self, draft: Draft) -> list[list[str]]:
        """The pieces of the whole text; and for each turn those of its prompt, and of everything up to its end."""
        whole = self._split(draft.text)
        texts = [whole]
        for prompt, end in draft.turns:
            texts += [self._split(prompt), whole if end == len(draft.text) else self._split(draft.text[:end])]
        return texts

    def _split(self, text: str) -> list[str]:
        """A text as pieces whose ids can be found one by one."""
        if self._cuts is None:
            return [text]
        starts = [mark.start() for mark in self._cuts.finditer(text)]
        if not starts or starts[0]:
            starts.insert(0, 0)  # what stands before the first added token; only there does a piece begin with none
        return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]

    def _encoded(self, pieces: Iterable[str]) -> dict[str, list[int]]:
        """The ids of each piece; the same dictionary is used again by the next batch."""
        if len(self._pieces) > REMEMBERED:
            self._pieces.clear()
        known = self._pieces
        if new := [piece for piece in dict.fromkeys(pieces) if piece not in known]:
            known.update(zip(new, self._ids(new, special=False), strict=True))
        return known

    def _plain(self, texts: list[str]) -> list[Tokens | UnusableError]:
        """Each text with what the tokenizer puts before and after one, and the end token once; all of it is learned."""
        if not texts:
            return []
        end = self._tokenizer.eos_token_id
        if end is None:
            problem = UnusableError(f"{self._name}: found no end token in its tokenizer, expected one to put after a plain text")
            return [problem] * len(texts)
        ids = [found if found[-1:] == [end] else [*found, end] for found in self._ids(texts, special=True)]
        return [Tokens(found, ((0, len(found)),)) for found in ids]

    def _ids(self, texts: list[str], special: bool) -> list[list[int]]:
        if self._backend is None:
            return cast("list[list[int]]", self._tokenizer(texts, add_special_tokens=special)["input_ids"])
        return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=special)]

    def _refuse_control_tokens(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if held := self._control.search(message["content"]):
                who = "answer" if message is messages[-1] and message["role"] == "assistant" else message["role"]
                raise UnusableError(f"the {who} text holds {held[0]!r}, a control token of the model; take it out of the text")

    def _drift(self, prompt: str, whole: str) -> str:
        """Why a prompt is not the beginning of a whole: by their first tokens that differ."""
        prompt_ids, ids = self._ids([prompt, whole], special=False)
        parted = _parted(prompt_ids, ids)
        wanted, got = (self._text(some[parted : parted + 8]) for some in (prompt_ids, ids))
        found = f"found {got!r} at token {parted + 1}, expected {wanted!r}"
        if whole.startswith(prompt):
            return f"the answer's beginning becomes one token with the prompt's end ({found}); take white space off the answer's beginning"
        return f"the chat template writes another prompt when an answer follows ({found}); take another model or template"

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids))


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """What matches any of the texts, the longest where several begin at one place, as tokenizers do; nothing where there is none."""
    wanted = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, wanted)) if wanted else r"(?!)")


def _join(pieces: Iterable[str], known: dict[str, list[int]]) -> list[int]:
    ids: list[int] = []
    for piece in pieces:
        ids += known[piece]
    return ids


def _holds(text: str, wanted: str) -> bool:
    """Whether a text is in another, but for white space."""
    return wanted in text or "".join(wanted.split()) in "".join(text.split())


def _parted(one: Sequence[object], other: Sequence[object]) -> int:
    """The first place at which two sequences differ; the end of the shorter one if that begins the other."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _end(text: str) -> str:
    return text[-SHOWN:]
