"""Transports that the user made and handed in (`Network.transport`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import AiaasError, ConfigError
from aiaas_sdk.transport.answer import Answer
from aiaas_sdk.transport.foreign import Foreign, arequest, begin, cause, finish, names
from aiaas_sdk.transport.message import Message
from aiaas_sdk.transport.origin import Origin
from aiaas_sdk.transport.steps import Steps, awaited

__all__ = ["Handed", "check"]


def check(transport: Any) -> None:
    """ConfigError unless it is a transport of httpx's or httpx2's."""
    if not names(transport) & {"BaseTransport", "AsyncBaseTransport"}:
        raise ConfigError(
            f"network.transport is {kind_of(transport)}",
            hint="Give an httpx.BaseTransport, an httpx.AsyncBaseTransport, or one of httpx2's",
        )


class Handed(Foreign):
    """One request by such a transport, which keeps its own connections: this one isn't used again.

    From an event loop an async transport is used, in that loop; else a plain one, in a thread.
    """

    def __init__(self, transport: Any, origin: Origin) -> None:
        check(transport)
        super().__init__(transport, origin, " through network.transport")
        self._plain, self._async = (name in names(transport) for name in ("BaseTransport", "AsyncBaseTransport"))
        self._coming: AsyncIterator[bytes] | None = None

    def start(self, message: Message, answer: Answer, until: float | None) -> Steps[None]:
        self.sent = 1  # nobody tells how far it came
        yield from self._either(
            partial(self._exchange, message, answer, until), partial(self._aexchange, message, answer, until), until
        )

    def finish(self, answer: Answer, until: float | None) -> Steps[None]:
        if not answer.done:
            yield from self._pulled(answer, lambda: answer.done, until)

    def more(self, answer: Answer, until: float | None) -> Steps[None]:
        if not (answer.done or answer.pieces):
            yield from self._pulled(answer, lambda: bool(answer.pieces), until)

    def leave(self) -> Steps[None]:
        if self._coming is not None:
            yield from awaited(self._aend, None, None)
        self.close()

    def _pulled(self, answer: Answer, enough: Callable[[], bool], until: float | None) -> Steps[None]:
        yield from self._either(partial(self._pull, answer, enough), partial(self._apull, answer, enough), until)

    def _either(
        self, work: Callable[[], None], awork: Callable[[], Coroutine[Any, Any, None]], until: float | None
    ) -> Steps[None]:
        if not self._async:
            yield from self._away(work, until)
        else:
            otherwise = partial(self._guarded, work) if self._plain else None
            yield from awaited(partial(self._aguarded, awork), otherwise, until)

    # ------------------------------------------------------------ in an event loop
    async def _aguarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
            return
        except BaseException as error:
            await self._aend()
            if isinstance(error, AiaasError) or not isinstance(error, Exception):
                raise
            failure, why = self._mapped(error), cause(error)
        try:
            raise failure from why  # out here it leaves the frames behind that hold the headers
        finally:
            del failure, why

    async def _aexchange(self, message: Message, answer: Answer, until: float | None) -> None:
        self._response = await self._transport.handle_async_request(arequest(self._httpx, message, until))
        self._coming = aiter(self._response.stream)
        begin(answer, self._response)
        if answer.done:
            await self._aend()

    async def _apull(self, answer: Answer, enough: Callable[[], bool]) -> None:
        assert self._coming is not None
        async for data in self._coming:
            answer.piece(data)
            if enough():
                break
        else:
            finish(answer)
        if answer.done:
            if answer.reusable:
                await anext(self._coming, None)  # httpx keeps a connection only where it has seen the end itself
            await self._aend()

    async def _aend(self) -> None:
        response, self._response, self._coming = self._response, None, None
        if response is not None:
            await response.aclose()
