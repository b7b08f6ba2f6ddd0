"""A call of ModelStreamInfer with one request: its responses one after the other, each a message as bytes.

The client says with its one request that no further one comes, so a server ends the call after the last response. That
is one stream for each call of a verb: whoever leaves it cancels it, and no other call waits behind it.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiaas_grpc.channels import Channel, Channels
from aiaas_grpc.failures import failed
from aiaas_grpc.forking import grpc
from aiaas_grpc.rpc import left, metadata_of, path_of
from aiaas_sdk.errors import AiaasError
from aiaas_sdk.flow import AsyncSender, Compound, Reply, Request, Sender, nearest
from aiaas_sdk.transport.failures import late
from aiaas_sdk.transport.origin import origin_of
from aiaas_sdk.workers import Workers

__all__ = ["Heard", "Opened", "Piece"]

Piece: TypeAlias = "bytes | Reply | AiaasError | None"
"""A response; or how the call ended: None well, a reply that says no, an error where there was no answer."""


class Heard:
    """The responses of a call that runs. Who holds it ends it.

    A thread of its own waits for them, one at a time as they are asked for: gRPC's plain channels have no other way to
    wait for one no longer than so long. What isn't asked for stays with the peer, which gRPC tells to pause.
    """

    def __init__(self, channels: Channels, channel: Channel, request: Request, until: float | None) -> None:
        self._channels, self._channel = channels, channel
        self._origin, self._until = origin_of(request.url), until
        self._call: Any = channel.stream(path_of(request.url))(
            b"".join(request.body), timeout=left(until), metadata=metadata_of(request.headers)
        )
        self._workers = Workers(1, "aiaas-grpc-stream")
        self._first: Future[Piece] | None = self._workers.submit(self._next)
        self._ended, self._guard = False, threading.Lock()

    @property
    def first(self) -> Future[Piece]:
        """The first response, which `next` will give once more."""
        assert self._first is not None
        return self._first

    def next(self) -> Future[Piece]:
        """The response after those that were given; the one before must have come."""
        first, self._first = self._first, None
        return first if first is not None else self._workers.submit(self._next)

    def _next(self) -> Piece:
        try:
            body: bytes = next(self._call)
            return body
        except StopIteration:
            return None
        except grpc.RpcError as error:
            return self._failed(error.with_traceback(None))

    def _failed(self, error: Any) -> Reply | AiaasError:
        try:
            return failed(error, self._origin, self._channels.through, self._until)
        except AiaasError as told:  # the peer didn't answer
            self._channels.retire(self._channel)
            return told.with_traceback(None)

    def late(self) -> AiaasError:
        """The error of a first response that didn't come in time."""
        self._channels.retire(self._channel)
        return late(self._origin, connecting=False)

    def end(self) -> None:
        """Cancel the call unless it is over. Harmless when done twice."""
        with self._guard:
            ended, self._ended = self._ended, True
        if not ended:
            self._call.cancel()
            self._workers.shutdown()
            self._channel.leave()


@dataclass(frozen=True, slots=True)
class Opened(Compound):
    """Call the method that the request's path names, and wait for its first response or its end.

    Gives a `Reply` whose handle is a `Heard`, or one without a handle that says no. `timeout` bounds the wait for the
    first response (s); the call itself may last as long as there is time.
    """

    channels: Channels
    request: Request
    timeout: float | None = None

    def perform(self, sender: Sender, deadline: float | None) -> Reply:
        until = nearest(deadline, self.timeout)
        heard = self._begun(deadline)
        try:
            return _reply(heard, heard.first.result(left(until)))
        except FutureTimeout:
            heard.end()
            raise heard.late() from None
        except BaseException:
            heard.end()
            raise

    async def aperform(self, sender: AsyncSender, deadline: float | None) -> Reply:
        until = nearest(deadline, self.timeout)
        heard = self._begun(deadline)
        try:
            waiting = asyncio.wrap_future(heard.first)
            # wait() and not wait_for(), which may lose a result that comes together with a cancellation
            if not (await asyncio.wait({waiting}, timeout=left(until)))[0]:
                raise heard.late()
            return _reply(heard, waiting.result())
        except BaseException:
            heard.end()
            raise

    def _begun(self, deadline: float | None) -> Heard:
        channel = self.channels.enter()
        try:
            return Heard(self.channels, channel, self.request, deadline)
        except BaseException:
            channel.leave()
            raise


def _reply(heard: Heard, first: Piece) -> Reply:
    if isinstance(first, AiaasError):
        raise first
    if not isinstance(first, Reply):
        return Reply(200, {}, handle=heard)
    heard.end()
    return first
