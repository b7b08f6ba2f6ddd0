"""What every protocol does around a call: take in the request, find the model, tell its errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pydantic_core import from_json
from starlette.types import Receive, Scope, Send

from aiaas_sdk.errors import AiaasError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.observing import pass_on
from aiaas_sdk.server.bodies import MAX_BODY, MAX_INFLATED, read_body
from aiaas_sdk.server.callers import allowed
from aiaas_sdk.server.errors import RefusedError, no_memory
from aiaas_sdk.server.heads import Head, head_in
from aiaas_sdk.server.held import Held
from aiaas_sdk.server.hosting import Hosted
from aiaas_sdk.wire.oip import Message
from aiaas_sdk.wire.status import clean

__all__ = ["Ears", "Endpoint", "aside", "asking", "document", "json_of", "told"]

T = TypeVar("T")
logger = logging.getLogger("aiaas_sdk.server")
SMALL = 64 * 1024
"""Bytes that may be read or written in the event loop."""


class Ears:
    """Takes in requests.

    Args:
        max_body: bytes of a request's body; max_inflated: bytes that a compressed one may become.
    """

    def __init__(self, *, max_body: int = MAX_BODY, max_inflated: int = MAX_INFLATED) -> None:
        self._max_body, self.max_inflated = max_body, max_inflated

    async def hear(self, scope: Scope, receive: Receive, hosted: Hosted) -> tuple[Head, Buffer]:
        """The head and the whole body; what the caller is traced by is passed on.

        Raises:
            RefusedError: the model that is asked has no room now, the body is too large, or can't be unpacked.
            LeftError: the client has gone.
        """
        head = head_in(scope)
        pass_on(head.headers)
        hosted.check_room(head)
        return head, await read_body(head, receive, limit=self._max_body, inflated=self.max_inflated)


class Endpoint:
    """An endpoint, below Starlette's records of requests and answers, as its router calls it."""

    def __init__(self, endpoint: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoint(scope, receive, send)


@asynccontextmanager
async def asking(hosted: Hosted, version: str | None, head: Head) -> AsyncIterator[Held]:
    """A version of a model, held open for this caller. The model's errors become answers.

    Raises:
        RefusedError: what the model says when it can't be opened, has no such version, or fails inside.
    """
    try:
        async with hosted.held(version, allowed(head, hosted.timeout), once=head.retries) as held:
            yield held
    except AiaasError as error:
        raise told(hosted, error) from error


def told(hosted: Hosted, error: AiaasError) -> RefusedError:
    """The answer for an error of a model; what isn't the client's own mistake is logged."""
    answer = hosted.told(error)
    if answer.status >= 500:
        logger.error("a request of model %r: %s", hosted.name, error, exc_info=error.__cause__)
    return answer


def json_of(body: bytes) -> Message:
    """An answer that is JSON."""
    return Message({"content-type": "application/json"}, (body,))


def document(body: Buffer) -> dict[str, Any]:
    """The body as the JSON object that it is.

    Raises:
        RefusedError: 400, it is none.
    """
    try:
        found = from_json(bytes(body), cache_strings="none")
    except ValueError as error:
        raise RefusedError(400, f"the body isn't JSON: {clean(str(error), 120)}") from None
    if not isinstance(found, dict):
        raise RefusedError(400, "the body isn't a JSON object")
    return found


async def aside(size: int, work: Callable[[], T]) -> T:
    """The work's result; with many bytes it is done in a thread, as the others mustn't wait."""
    try:
        return await asyncio.to_thread(work) if size > SMALL else work()
    except MemoryError:  # no model is to blame
        raise no_memory() from None
