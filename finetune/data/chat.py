"""Conversations → token ids, through the model's own chat template; and which of them are learned: the answers and their end tokens.

The boundary is found by difference: the prompt, up to the place where the model would speak, must be the beginning of the whole, as text
and as token ids. Searching for a marker in the text instead fails on the first template that writes it otherwise.

Text becomes ids in pieces, each an added token with what follows it: a fast tokenizer cuts these tokens out first, and turns what is
between them into ids one by one, so the ids of a text are those of its pieces. What repeats, as a system message, is encoded once.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
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
THOUGHT = "</think>"  # ends what a model thinks aloud
SWITCH = re.compile(r"/(?:no_)?think\b")  # in a system message, whether it does

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
        """What stands before the last answer."""
        return self.input_ids[: self.learned[-1][0]]

    @property
    def answer_ids(self) -> list[int]:
        """The last answer with its end token."""
        return self.input_ids[self.learned[-1][0] :]


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
        self._added = {number: token.content for number, token in added.items()}
        self._control = _any_of(token.content for token in added.values() if token.special)
        self._pieces: dict[str, list[int]] = {}
        self._lost: dict[str, str] = {}  # of those that tokens don't keep: what they read back as

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
        """Return the token ids of each draft, or why it has none that keep the promises.

        They read back as the text, but for white space and for what Unicode holds to be the same (NFKC); those of a prompt begin those of
        the whole.
        """
        cut = [self._cut(draft) for draft in drafts if not draft.plain]
        plain = iter(self._plain([draft.text for draft in drafts if draft.plain]))
        known = self._encoded(piece for texts in cut for pieces in texts for piece in pieces)
        conversations = iter(cut)
        return [next(plain) if draft.plain else self._masked(draft, next(conversations), known) for draft in drafts]

    def _turn(self, messages: Sequence[Message], place: int, whole: str) -> tuple[str, int]:
        """The prompt of the answer at a place of the conversation, and where in the whole its end token ends."""
        before, answer = messages[:place], messages[place]["content"]
        prompt = self.render(before, generation=True)
        with_it = whole if place == len(messages) - 1 else self.render(messages[: place + 1], generation=False)
        if not with_it.startswith(prompt):
            raise UnusableError(self._drift(prompt, with_it))
        if place == len(messages) - 1:  # the prompts of earlier answers begin this one
            _refuse_left_out(prompt, before)
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

    def _masked(self, draft: Draft, cut: Sequence[list[str]], known: dict[str, list[int]]) -> Tokens | UnusableError:
        """The ids of a draft's texts, in the order of `_cut`, as tokens with their mask."""
        if self._lost and (lost := next((piece for piece in cut[0] if piece in self._lost), None)):
            return self._unread(lost, self._lost[lost])
        whole, *parts = (_join(text, known) for text in cut)
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
            self._lost.clear()
        known = self._pieces
        if new := [piece for piece in dict.fromkeys(pieces) if piece not in known]:
            ids = self._ids(new, special=False)
            known.update(zip(new, ids, strict=True))
            read = self._texts(ids, special=True)
            self._lost.update((piece, text) for piece, some, text in zip(new, ids, read, strict=True) if not self._keeps(some, text, piece))
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
        return [
            Tokens(found, ((0, len(found)),)) if self._keeps(found, read, text, special=False) else self._unread(text, read)
            for text, found, read in zip(texts, ids, self._texts(ids, special=False), strict=True)
        ]

    def _ids(self, texts: list[str], special: bool) -> list[list[int]]:
        if self._backend is None:
            return cast("list[list[int]]", self._tokenizer(texts, add_special_tokens=special)["input_ids"])
        return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=special)]

    def _texts(self, ids: list[list[int]], special: bool) -> list[str]:
        if self._backend is None:
            return [str(self._tokenizer.decode(some, skip_special_tokens=not special)) for some in ids]
        return list(self._backend.decode_batch(ids, skip_special_tokens=not special))

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

    def _keeps(self, ids: list[int], read: str, text: str, special: bool = True) -> bool:
        """Whether ids that read back as one text are those of another; an added token is what it says, because some decoders garble it."""
        if _reads_as(read, text):
            return True
        runs = [(added, list(run)) for added, run in groupby(ids, key=self._added.__contains__)]
        spelled = (
            "".join(self._added[one] for one in run if special or one not in self._tokenizer.all_special_ids)
            if added
            else self._texts([run], special)[0]
            for added, run in runs
        )
        return _reads_as("".join(spelled), text)

    def _unread(self, text: str, read: str) -> UnusableError:
        """Why the ids of a text are not that text: by its first characters that they don't read back as."""
        wanted, got = _close(text), _close(read)
        parted = _parted(wanted, got)
        found = f"found {got[parted : parted + SHOWN // 4]!r}, expected {wanted[parted : parted + SHOWN // 4]!r}"
        return UnusableError(
            f"the tokenizer of {self._name} does not keep the text: its tokens read back as another ({found}); take another model, or "
            "take what it does not know out of the text"
        )

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


def _refuse_left_out(prompt: str, messages: Sequence[Message]) -> None:
    """Refuse a prompt that leaves out what is said before, but for white space."""
    if _left_out(prompt, messages, lambda text: text) and (message := _left_out(_close(prompt), messages, _close)):
        found = f"found {_end(prompt)!r} at its end, expected {message['content'][:SHOWN]!r}"
        raise UnusableError(f"the chat template leaves out what the {message['role']} says ({found}); take another model or template")


def _left_out(prompt: str, messages: Sequence[Message], change: Callable[[str], str]) -> Message | None:
    """The first message that a prompt has not after those before it; a system message may stand anywhere. change: of each text sought."""
    at = 0
    for message in messages:
        start = 0 if message["role"] == "system" else at
        ends = (place + len(text) for text in map(change, _ways(message)) if (place := prompt.find(text, start)) >= 0)
        end = next(ends, None)
        if end is None:
            return message
        at = at if message["role"] == "system" else end
    return None


def _ways(message: Message) -> Iterator[str]:
    """How templates write what is said: as it is, without what was thought aloud before it, without a switch for that, or as JSON."""
    said = message["content"]
    yield said
    if message["role"] == "assistant":
        yield said.rpartition(THOUGHT)[2]
    if message["role"] == "system":
        yield SWITCH.sub("", said)
    yield json.dumps(said)[1:-1]
    yield json.dumps(said, ensure_ascii=False)[1:-1]


def _reads_as(read: str, text: str) -> bool:
    """Whether what ids read back as is the text."""
    return read == text or _plainer(read) == _plainer(text)


def _plainer(text: str) -> str:
    """A text without white space, and with one way to write what Unicode has several for, as tokenizers do."""
    return _close(unicodedata.normalize("NFKC", text))


def _holds(text: str, wanted: str) -> bool:
    """Whether a text is in another, but for white space."""
    return wanted in text or _close(wanted) in _close(text)


def _close(text: str) -> str:
    """A text without white space."""
    return "".join(text.split())


def _parted(one: Sequence[object], other: Sequence[object]) -> int:
    """The first place at which two sequences differ; the end of the shorter one if that begins the other."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _end(text: str) -> str:
    return text[-SHOWN:]
