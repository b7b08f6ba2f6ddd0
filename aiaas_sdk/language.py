"""The language verbs as flows: one answer, a stream of one, answers that fit a schema, tools that are run, vectors."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from aiaas_sdk.errors import AiaasError, InputError, ProtocolError
from aiaas_sdk.flow import Flow, run
from aiaas_sdk.observing import watched
from aiaas_sdk.outputs import Output, UnfitError
from aiaas_sdk.prompts import messages_of, sampling_of, texts_of
from aiaas_sdk.records.call import Call, Deadline
from aiaas_sdk.records.chat import Chat, Choice, Embedded, Spoken
from aiaas_sdk.records.language import Embeddings, Generation, Message, Tool
from aiaas_sdk.tools import Toolbox
from aiaas_sdk.verbs import Verbs

__all__ = ["Language"]

REPAIRS = 2
"""How often an answer that doesn't fit its schema is asked for again."""
GAP = 60.0
"""Seconds that a stream may go without content, unless `gap_timeout` says otherwise."""


class Language(Verbs):
    """What both faces share of `generate`, `stream` and `embed`."""

    # ------------------------------------------------------------ generate
    def _generated(
        self,
        prompt: Any,
        tools: Sequence[Tool],
        rounds: int,
        output: Any,
        sampling: Mapping[str, Any],
        deadline: Deadline | None,
    ) -> Flow[Any]:
        box = Toolbox(tools)
        if type(rounds) is not int or rounds < 0:
            raise InputError(
                f"rounds is {rounds!r}", hint="Give the number of times that tools may be run, 0 for never"
            )
        if rounds:
            box.check_runnable()
        wanted = None if output is None else Output(output)
        chat = self._chat(prompt, sampling, box, wanted)
        if wanted is not None:
            return (yield from self._fitting(chat, wanted, box, rounds, deadline))
        return (yield from self._talk(chat, box, rounds, deadline))[1]

    def _chat(self, prompt: Any, sampling: Mapping[str, Any], box: Toolbox, wanted: Output | None) -> Chat:
        return Chat(
            messages_of(prompt),
            prompt if isinstance(prompt, str) else None,
            sampling_of(sampling),
            box.specs,
            None if wanted is None else (wanted.name, wanted.schema),
            self._options.get("gap_timeout", GAP),
        )

    def _talk(self, chat: Chat, box: Toolbox, rounds: int, deadline: Deadline | None) -> Flow[tuple[Chat, Generation]]:
        """An answer, and what it answers; tools that it asks for are run, and it is asked again, so often at most."""
        for _ in range(rounds):
            answer = yield from self._answer_of(chat, deadline)
            if not answer.tool_calls:
                return chat, answer
            said = [answer.message]
            for wanted in answer.tool_calls:
                said.append((yield from run(partial(box.run, wanted))))
            chat = _continued(chat, *said)
        return chat, (yield from self._answer_of(chat, deadline))

    def _fitting(self, chat: Chat, wanted: Output, box: Toolbox, rounds: int, deadline: Deadline | None) -> Flow[Any]:
        """An answer that is what is wanted; one that isn't is shown its fault and asked for again."""
        tries = 0
        while True:
            chat, answer = yield from self._talk(chat, box, rounds, deadline)
            tries += 1
            try:
                return wanted.read(answer)
            except UnfitError as error:
                unfit = error
            if unfit.final or tries > REPAIRS:
                raise wanted.failed(unfit, tries)
            fault = f"This doesn't fit the schema: {unfit.told}. Answer again, with the JSON document alone."
            chat = _continued(chat, unfit.answer.message, Message("user", fault))

    def _answer_of(self, chat: Chat, deadline: Deadline | None) -> Flow[Generation]:
        call = self._call("generate", deadline)
        spoken: Spoken = yield from self._asking(call, chat)
        return self._generation(call, spoken)

    # ------------------------------------------------------------ stream
    def _streamed(
        self,
        prompt: Any,
        tools: Sequence[Tool],
        output: Any,
        sampling: Mapping[str, Any],
        deadline: Deadline | None,
    ) -> Flow[Generation]:
        """Emits deltas; its result is the whole."""
        call = self._call("stream", deadline)
        wanted = None if output is None else Output(output)
        chat = self._chat(prompt, sampling, Toolbox(tools), wanted)
        if chat.sampling.get("n", 1) != 1:
            raise InputError("a stream has one answer", hint="Use generate for n of them")
        spoken: Spoken = yield from self._asking(call, chat)
        answer = self._generation(call, spoken)
        if wanted is not None:
            wanted.check(answer)
        return answer

    # ------------------------------------------------------------ embed
    def _embedded(self, texts: Any, dimensions: int | None, deadline: Deadline | None) -> Flow[Embeddings]:
        asked = texts_of(texts)
        if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
            raise InputError(f"dimensions is {dimensions!r}", hint="Give a whole number from 1 on")
        call = self._call("embed", deadline)
        found: Embedded = yield from self._asking(call, asked, dimensions)
        self._check_vectors(found.array, len(asked))
        self._noted(call, len(asked), found.input_tokens, None)
        return Embeddings(call, found.array)

    def _check_vectors(self, array: Any, texts: int) -> None:
        where = self._engine.backend.address
        if array.ndim != 2 or len(array) != texts:
            raise ProtocolError(f"{where} embedded {texts} texts as an array of shape {list(array.shape)}")
        if str(array.dtype) != "float32":
            raise ProtocolError(f"{where} embedded texts as {array.dtype}; vectors are float32")

    # ------------------------------------------------------------ parts
    def _asking(self, call: Call, *arguments: Any) -> Flow[Any]:
        """The backend's answer."""
        return self._timed(call, self._engine.backend.start(call, *arguments))

    def _timed(self, call: Call, flow: Flow[Any]) -> Flow[Any]:
        """A verb's answer; what it fails with says where and when; both are counted, and told to observers."""
        begun, failed = time.perf_counter(), True
        try:
            found = yield from watched(call, self._engine.backend, self._engine.info, flow)
            failed = False
            return found
        except AiaasError as error:
            raise self._located(error, call, begun) from error.__cause__
        except GeneratorExit:  # the caller had enough: he closed the stream, dropped it, or was cancelled
            failed = False
            raise
        finally:
            call.total = time.perf_counter() - begun
            self._engine.count(call, failed, begun)

    def _generation(self, call: Call, spoken: Spoken) -> Generation:
        if not spoken.choices:
            raise ProtocolError("the answer holds no choice")
        self._noted(call, None, spoken.input_tokens, spoken.output_tokens)
        first, *others = (_one(call, choice) for choice in spoken.choices)
        return _one(call, spoken.choices[0], tuple(others)) if others else first

    def _noted(self, call: Call, rows: int | None, input_tokens: int | None, output_tokens: int | None) -> None:
        info = self._engine.info
        assert info is not None
        call.model, call.rows = call.model or info.name, rows
        call.version = call.version or info.version
        call.backend = call.backend or self._engine.backend.scheme
        call.input_tokens, call.output_tokens = input_tokens, output_tokens


def _one(call: Call, choice: Choice, others: tuple[Generation, ...] = ()) -> Generation:
    return Generation(
        call,
        choice.text,
        finish_reason=choice.finish_reason,
        reasoning=choice.reasoning,
        tool_calls=choice.tool_calls,
        logprobs=choice.logprobs,
        others=others,
    )


def _continued(chat: Chat, *messages: Message) -> Chat:
    return replace(chat, messages=(*chat.messages, *messages), text=None)
