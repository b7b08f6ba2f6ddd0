"""Streamed answers as objects: what `Model.stream` and `AsyncModel.stream` give."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiaas_sdk import flow
from aiaas_sdk.errors import AiaasError, ClosedError, OutputError, StreamInterruptedError, UnsupportedOperationError
from aiaas_sdk.exits import end_at_exit
from aiaas_sdk.records.language import Delta, Generation

__all__ = ["AsyncTextStream", "TextStream"]


class _Heard:
    """What both kinds keep: the texts so far, and how it ended."""

    _running: Any = None

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._begun = False
        self._result: Generation | None = None
        self._failure: BaseException | None = None
        self._closed = False

    @property
    def text(self) -> str:
        """What has come so far."""
        return "".join(self._texts)

    def _failed(self, error: BaseException) -> BaseException:
        """What ended it, as it is raised: after the first content it says what had come, whatever has failed."""
        # the last: all of it has come, and something that was asked for isn't there
        known = isinstance(error, StreamInterruptedError | OutputError | UnsupportedOperationError)
        if self._begun and isinstance(error, AiaasError) and not known:
            cut = StreamInterruptedError(
                f"the stream was cut after its first content: {error.message}",
                partial=self.text,
                status=error.status,
                request_id=error.request_id,
                hint="What had come is in .partial; a stream that has begun isn't asked for again",
            )
            place = {name: getattr(error, name) for name in ("address", "attempts", "allowed", "elapsed", "timeout")}
            error = cut.locate(**place)
        self._failure = error
        return error

    def _ended(self) -> Generation:
        if self._result is not None:
            return self._result
        if self._failure is not None:
            raise self._failure
        raise ClosedError("the stream was closed before its end", hint="What had come is in .text")

    def __del__(self) -> None:
        # dropped in the middle: the peer hears of it, and nobody else
        if self._running is not None and self._result is None:
            self._running.drop()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self.text)} characters{', ended' if self._result else ''}>"


class TextStream(_Heard):
    """Iterate it for deltas; `result()` reads the rest. The request goes out with the first of both, and not before.

    Leaving the `with` block, `close`, an exception or dropping it ends the request, and the peer stops.
    """

    def __init__(self, begin: Callable[[], flow.Stream[Delta]]) -> None:
        super().__init__()
        self._begin = begin

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delta:
        if self._closed or self._result is not None or self._failure is not None:
            raise StopIteration
        try:
            if self._running is None:
                self._running = self._begin()
                end_at_exit(self, _Heard.__del__)
            delta: Delta = next(self._running)
        except StopIteration:
            self._result = self._running.result
            raise
        except BaseException as error:
            failure = self._failed(error)
            if failure is error:
                raise
            raise failure from error
        self._begun = True
        self._texts.append(delta.text)
        return delta

    def result(self) -> Generation:
        """The whole answer, when the rest has been read. Raises what ended the stream early."""
        for _ in self:
            pass
        return self._ended()

    def close(self) -> None:
        """End it; harmless when it has ended."""
        self._closed = True
        if self._running is not None:
            self._running.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncTextStream(_Heard):
    """The awaited twin of `TextStream`."""

    def __init__(self, begin: Callable[[], Awaitable[flow.AsyncStream[Delta]]]) -> None:
        super().__init__()
        self._begin = begin

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        if self._closed or self._result is not None or self._failure is not None:
            raise StopAsyncIteration
        try:
            if self._running is None:
                self._running = await self._begin()
                end_at_exit(self, _Heard.__del__)
            delta: Delta = await anext(self._running)
        except StopAsyncIteration:
            self._result = self._running.result
            raise
        except BaseException as error:
            failure = self._failed(error)
            if failure is error:
                raise
            raise failure from error
        self._begun = True
        self._texts.append(delta.text)
        return delta

    async def result(self) -> Generation:
        """As `TextStream.result`."""
        async for _ in self:
            pass
        return self._ended()

    async def aclose(self) -> None:
        """As `TextStream.close`."""
        self._closed = True
        if self._running is not None:
            await self._running.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
