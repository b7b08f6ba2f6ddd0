"""The sender of the awaited face: asyncio streams, one connection a request."""

from __future__ import annotations

import asyncio
import time

from aiaas_sdk.errors import ConnectionLostError, DeadlineExceededError, UnsupportedOperationError
from aiaas_sdk.flow import Buffer, Reply, Request
from aiaas_sdk.transport.exchange import Exchange, Origin, origin_of, tls, unreachable
from aiaas_sdk.transport.plain import CONNECT_LIMIT, PIECE

__all__ = ["AsyncHttpSender"]


class AsyncHttpSender:
    """Sends over HTTP/1.1. Holds nothing between requests, so it works in any event loop."""

    async def send(self, request: Request, until: float | None) -> Reply:
        try:
            async with asyncio.timeout(None if until is None else until - time.monotonic()):
                return await self._send(request, origin_of(request.url))
        except TimeoutError as error:
            if isinstance(error, DeadlineExceededError):
                raise
            raise DeadlineExceededError("no whole answer came in time") from None

    async def _send(self, request: Request, origin: Origin) -> Reply:
        exchange = Exchange(request)
        reader, writer = await self._connect(origin)
        try:
            for part in (exchange.head, *request.body):
                writer.write(part)
            await writer.drain()
            while exchange.reply is None:
                exchange.feed(await reader.read(PIECE))
        except OSError as error:
            if isinstance(error, ConnectionLostError | TimeoutError):
                raise
            raise ConnectionLostError(f"the connection was lost: {error.strerror}") from None
        finally:
            writer.transport.abort()
        return exchange.reply

    async def _connect(self, origin: Origin) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        scheme, host, port = origin
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                return await asyncio.open_connection(host, port, ssl=tls() if scheme == "https" else None)
        except TimeoutError:
            raise DeadlineExceededError(f"no connection to {host}:{port} within {CONNECT_LIMIT} s") from None
        except OSError as error:
            raise unreachable(origin, error) from None

    async def open(self, request: Request, until: float | None) -> Reply:
        raise UnsupportedOperationError("streamed answers aren't available in this version")

    async def read(self, reply: Reply, until: float | None) -> Buffer:
        raise UnsupportedOperationError("streamed answers aren't available in this version")

    async def release(self, reply: Reply) -> None:
        """Nothing is held: replies are whole."""
