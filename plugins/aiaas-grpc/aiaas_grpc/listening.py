"""What a stream of responses becomes: pieces of text, or the one answer of `predict`."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiaas_grpc.codec import Streamed, decode_streamed
from aiaas_grpc.hearing import Heard
from aiaas_grpc.texts import Answer
from aiaas_sdk.errors import AiaasError, ProtocolError, StreamInterruptedError, UnsupportedOperationError
from aiaas_sdk.flow import Emit, Flow, Reply, wait
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.chat import Chat, Spoken
from aiaas_sdk.records.language import Delta
from aiaas_sdk.wire.oip import InferResponse
from aiaas_sdk.wire.status import status_error

__all__ = ["answered_once", "responses", "spoken"]

AFTER = 0.25
"""Seconds for which the end of a call is waited for after its last response."""
Refuse = Callable[[Call, Reply], AiaasError]


def responses(call: Call, reply: Reply, refuse: Refuse, gap: Callable[[], float | None]) -> Flow[Streamed | None]:
    """The next response of an opened reply; None at its end.

    Args:
        call: the call, with the id that was sent.
        reply: what it was answered.
        refuse: makes the error of a reply that says no.
        gap: seconds that the next response may take.

    Raises:
        AiaasError: the call failed, or the peer says that the request did.
    """
    heard: Heard = reply.handle
    found = yield from wait(heard.next(), "the next response", gap())
    if found is None:
        return None
    if isinstance(found, AiaasError):
        raise found
    if isinstance(found, Reply):
        raise refuse(call, found)
    streamed = decode_streamed(found, id=call.request_id or "")
    if streamed.error is not None:
        # words alone are all that Triton gives: they are then taken for the model's own
        raise status_error(streamed.status or 500, {}, streamed.error.encode(), verb=True)
    call.version = streamed.response.model_version or call.version
    return streamed


def _settled(reply: Reply) -> Flow[None]:
    """The end of the call after the last response: a cancelled one would look to the peer like a caller who left."""
    with suppress(AiaasError):
        yield from wait(reply.handle.next(), "the end of the call", AFTER)


# ---------------------------------------------------------------- text
def spoken(call: Call, chat: Chat, refuse: Refuse, *, emit: bool) -> Callable[[Reply], Flow[Spoken]]:
    """What reads an opened reply to its end, emits its pieces if they are wanted, and gives the whole.

    It raises StreamInterruptedError with what had come for a failure after the first piece that was emitted, and for an
    end without any response; what fails before fails as it is.
    """

    def consume(reply: Reply) -> Flow[Spoken]:
        answer = Answer()
        try:
            yield from _heard(call, chat, refuse, reply, answer, emit)
        except AiaasError as error:
            if not (emit and answer.text):
                raise
            raise _interrupted(answer, error.message, error.status) from error
        finally:
            reply.handle.end()
        return answer.spoken()

    return consume


def _heard(call: Call, chat: Chat, refuse: Refuse, reply: Reply, answer: Answer, emit: bool) -> Flow[None]:
    since, limit, some, over = time.monotonic(), call.attempt_timeout, False, False

    def gap() -> float | None:
        return None if limit is None else max(0.0, since + limit - time.monotonic())

    streamed: Streamed | None = None
    while not over:
        streamed = yield from responses(call, reply, refuse, gap)
        over = streamed is None or streamed.final
        some = some or bool(streamed is not None and streamed.response.outputs)
        shown = answer.take(streamed.response.outputs) if streamed is not None else ""
        shown += answer.rest() if over else ""
        if shown and emit:
            yield Emit(Delta(shown))
            since, limit = time.monotonic(), chat.gap
    if streamed is not None:
        yield from _settled(reply)
    if not some:
        raise _interrupted(answer, "it ended before its end")


def _interrupted(answer: Answer, why: str, status: int | None = None) -> StreamInterruptedError:
    what = "after its first content" if answer.text else "without any content"
    return StreamInterruptedError(
        f"the stream was cut {what}: {why}",
        partial=answer.text,
        status=status,
        hint="What had come is in .partial; a stream that has begun isn't asked for again",
    )


# ---------------------------------------------------------------- one answer
def answered_once(call: Call, refuse: Refuse) -> Callable[[Reply], Flow[InferResponse]]:
    """What reads an opened reply to its end and gives its one response.

    It raises UnsupportedOperationError where the model gives a second one, which ends the call, and ProtocolError where
    it gives none.
    """

    def consume(reply: Reply) -> Flow[InferResponse]:
        found: InferResponse | None = None
        try:
            while (streamed := (yield from responses(call, reply, refuse, lambda: call.attempt_timeout))) is not None:
                if streamed.response.outputs:
                    if found is not None:
                        raise _several(streamed.response)
                    found = streamed.response
                if streamed.final:
                    yield from _settled(reply)
                    break
        finally:
            reply.handle.end()
        if found is None:
            raise ProtocolError("the model answered with no response")
        return found

    return consume


def _several(response: Any) -> UnsupportedOperationError:
    return UnsupportedOperationError(
        f"the model {response.model_name!r} answers one request with several responses, and predict gives one",
        hint="It is decoupled. One with text_input and text_output has the verb stream; other streams of tensors none",
    )
