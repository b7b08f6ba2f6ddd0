"""ModelStreamInfer: many requests on one stream, answered as they are done.

Sources: Triton's `docs/protocol/extension_*.md`, `docs/user_guide/decoupled_models.md` and
`protobuf/grpc_service.proto` (triton-inference-server/common). Each response carries its request's id, as they come in
the order in which they are done, and the parameter `triton_final_response`. What fails is told by `error_message` with
the id, and the stream goes on.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import grpc.aio

from aiaas_grpc.answering import Answering, headers_of
from aiaas_grpc.codec import encode_streamed, named_in
from aiaas_grpc.door import Door
from aiaas_grpc.forking import grpc
from aiaas_grpc.statuses import code_of
from aiaas_sdk.observing import pass_on
from aiaas_sdk.server.app import refused
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.wire.oip import InferResponse

__all__ = ["NO_ROOM", "Streams"]

IN_FLIGHT = 32
"""Requests of one stream that wait or run at once; the next one isn't read before one of them is done."""
STALLED = 60.0
"""Seconds for which a client may take nothing before it counts as gone."""
NO_ROOM = 8 * 1024
"""Characters of an error's message that are told: of a call it travels in a header."""


class _StalledError(Exception):
    """The client takes nothing."""


class Streams:
    """The streams of a server."""

    def __init__(self, answering: Answering, door: Door) -> None:
        self._answering, self._door = answering, door
        self._stopping = asyncio.Event()

    async def serve(self, requests: Any, context: Any) -> None:
        """One stream, to its end: the client sends no more and all is answered, or it goes away, or the server ends."""
        stream = _Stream(self._answering, self._door, context)
        pass_on(stream.headers)
        try:
            async with self._door.opened("", stream.headers):
                await stream.run(self._stopping)
        except* RefusedError as refusals:
            told = refused(refusals.exceptions[0])
            await context.abort(code_of(told.status), told.message[:NO_ROOM])
        except* _StalledError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"the client took nothing for {STALLED:g} s")
        if self._stopping.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    def stop(self) -> None:
        """Read no more requests: streams end when what was read is answered."""
        self._stopping.set()


class _Stream:
    def __init__(self, answering: Answering, door: Door, context: Any) -> None:
        self._answering, self._door, self._context = answering, door, context
        self._writing = asyncio.Lock()
        self.headers = headers_of(context)

    async def run(self, stopping: asyncio.Event) -> None:
        """Who goes away cancels this, and with it all that is still at work for him."""
        gate = asyncio.Semaphore(IN_FLIGHT)
        async with asyncio.TaskGroup() as group:
            stopped = group.create_task(stopping.wait())
            while True:
                await gate.acquire()
                body = await self._next(stopped)
                if body is None:
                    break
                group.create_task(self._answered(body)).add_done_callback(lambda _: gate.release())
            stopped.cancel()

    async def _next(self, stopped: asyncio.Task[Any]) -> bytes | None:
        """The next request; None where there is none any more."""
        reading = asyncio.ensure_future(self._context.read())
        try:
            await asyncio.wait({reading, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not reading.done():
                reading.cancel()
        if not reading.done():
            return None
        body = reading.result()
        return None if body is grpc.aio.EOF else body

    async def _answered(self, body: bytes) -> None:
        try:
            responses = self._answering.several(body, self.headers, self._context.time_remaining())
            with self._door.held("", len(body)), self._door.counted():
                async with aclosing(responses):
                    async for response in responses:
                        await self._write(response)
        except _StalledError:
            raise
        except Exception as error:
            told = refused(error)
            model, id = named_in(body)
            whose = InferResponse(model_name=model, id=id, outputs={})
            await self._write(encode_streamed(whose, told.message[:NO_ROOM], told.status))

    async def _write(self, response: bytes) -> None:
        """Write; where the client doesn't read this waits, and what makes responses with it."""
        try:
            async with self._writing, asyncio.timeout(STALLED):
                await self._context.write(response)
        except TimeoutError:
            raise _StalledError from None
