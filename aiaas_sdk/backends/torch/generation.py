"""A language model of a bundle: from a conversation to what its engine needs, and back to an answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch

from aiaas_sdk import bundle
from aiaas_sdk.backends.torch.batching import Engine, Speaker
from aiaas_sdk.backends.torch.jobs import Ask, Job
from aiaas_sdk.backends.torch.schemas import Constraints
from aiaas_sdk.backends.torch.templating import ChatTemplate, plain_text
from aiaas_sdk.backends.torch.tokenizing import ByteTokenizer, FileTokenizer, Tokenizer
from aiaas_sdk.errors import (
    AiaasError,
    BundleError,
    ContextLengthError,
    InputError,
    StreamInterruptedError,
    UnsupportedOperationError,
)
from aiaas_sdk.flow import Emit, Flow, wait
from aiaas_sdk.prompts import sampling_of
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.chat import Chat, Spoken

__all__ = ["LanguageModel", "tokenizer_of"]


def tokenizer_of(language: bundle.Language, beside: Mapping[str, bytes | bytearray], where: str) -> Tokenizer:
    """The bundle's tokenizer."""
    if language.tokenizer == bundle.BYTES:
        return ByteTokenizer()
    return FileTokenizer(beside[language.tokenizer], f"{where}: {language.tokenizer}")


class LanguageModel:
    """What generates for one opened bundle.

    Args:
        language, beside: of the bundle.
        module: generates; what `Transformer` offers as a decoder.
        where: the bundle, for messages.
        told: makes an error of ours out of one that the module raised.
    """

    def __init__(
        self,
        language: bundle.Language,
        beside: Mapping[str, bytes | bytearray],
        module: Speaker,
        device: torch.device,
        where: str,
        told: Callable[[Exception], AiaasError],
    ) -> None:
        self._tokenizer = tokenizer_of(language, beside, where)
        if max([self._tokenizer.size, *(token + 1 for token in language.end)]) > module.vocabulary:
            raise BundleError(
                f"{where}: the tokenizer, or its end of an answer, is beyond the model's {module.vocabulary} tokens"
            )
        self._context, self._end = language.context, tuple(language.end)
        self._template = _template(language, beside, where)
        try:
            self._usual = sampling_of(language.sampling)
        except InputError as error:
            raise BundleError(f"{where}: its own sampling options: {error.message}") from None
        self._engine = Engine(module, device, self._tokenizer, language.end, language.context, told)
        self._begin = "" if language.begin is None else self._name(language.begin)
        self._stop = self._name(self._end[0]) if self._end else ""

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def _name(self, token: int) -> str:
        spelling = self._tokenizer.spelling()
        return spelling[token].decode(errors="replace") if token < len(spelling) else ""

    def close(self) -> None:
        self._engine.close()

    # ------------------------------------------------------------ before any work
    def ask(self, chat: Chat, *, streaming: bool) -> Ask:
        """The tokens and options of a conversation.

        Raises:
            ContextLengthError: it doesn't fit into the context.
            InputError: the template or the schema refuses it.
            UnsupportedOperationError: this model has no use for something in it.
        """
        prompt = self._prompt(chat)
        if not prompt:
            raise InputError("the prompt is empty: it has no token to go on from")
        options = {**self._usual, **chat.sampling}
        limit = self._limit(len(prompt), options.get("max_tokens"))
        # a call of a tool is no document of the schema; with tools, the answer is looked at when it is whole
        schema = None if chat.schema is None or chat.tools else chat.schema[1]
        return Ask(
            prompt=prompt,
            limit=limit,
            options=options,
            constraints=() if schema is None else self._constraints.of(schema, limit, options.get("n", 1)),
            chat=self._template is not None and bool(chat.messages),
            tools=bool(chat.tools),
            streaming=streaming,
            gap=chat.gap,
        )

    @cached_property
    def _constraints(self) -> Constraints:
        return Constraints(self._tokenizer, self._engine.spelling, self._end)

    def _prompt(self, chat: Chat) -> list[int]:
        """Text alone is completed as it is by a model without chat, and where no messages are given."""
        if chat.tools and (self._template is None or not self._template.takes_tools):
            raise UnsupportedOperationError(
                "this model can't be offered tools: its chat template has no place for them", hint="Leave tools= out"
            )
        if self._template is None or not chat.messages:
            text = chat.text if chat.text is not None else plain_text(chat.messages)
            return self._tokenizer.encode(text, whole=True)
        text = self._template.render(chat.messages, chat.tools, begin=self._begin, end=self._stop)
        return self._tokenizer.encode(text, whole=False)

    def _limit(self, prompt: int, wanted: int | None) -> int:
        """The most tokens of an answer."""
        left = self._context - prompt
        if left < 1:
            raise ContextLengthError(
                f"the prompt has {prompt} tokens, and the model's context is {self._context} with the answer",
                hint="Shorten the conversation",
            )
        if wanted is not None and wanted > left:
            raise ContextLengthError(
                f"the prompt has {prompt} tokens and max_tokens is {wanted}; together that is more than the model's "
                f"context of {self._context}",
                hint=f"Shorten the conversation, or give max_tokens={left} at most",
            )
        return left if wanted is None else wanted

    # ------------------------------------------------------------ the work
    def speak(self, call: Call, ask: Ask) -> Flow[Spoken]:
        """The answer; with `ask.streaming` its deltas are emitted as they come.

        What fails after the first of them is a StreamInterruptedError with the text so far.
        """
        job = self._engine.submit(ask)
        texts: list[str] = []
        try:
            while True:
                limit = ask.gap if texts else call.attempt_timeout
                piece = yield from wait(job.next(), "the model", limit)
                if isinstance(piece, Spoken):
                    return piece
                texts.append(piece.text)
                yield Emit(piece)
        except Exception as error:
            if not texts:
                raise
            raise StreamInterruptedError(
                f"the answer ended early: {error}", partial="".join(texts), hint="What had come is in .partial"
            ) from error
        finally:
            job.leave()
            _note(call, job)


def _note(call: Call, job: Job) -> None:
    now = time.perf_counter()
    begun = job.begun or now
    call.queue, call.compute = begun - job.asked, now - begun


def _template(language: bundle.Language, beside: Mapping[str, Any], where: str) -> ChatTemplate | None:
    if language.template is None:
        return None
    try:
        source = bytes(beside[language.template]).decode()
    except UnicodeDecodeError:
        raise BundleError(f"{where}: {language.template} isn't UTF-8") from None
    return ChatTemplate(source, f"{where}: its chat template")
