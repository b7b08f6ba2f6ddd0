"""The effect of one call of a method: what stands in gRPC for the `Send` of HTTP.

The request is what gRPC sends at heart, a POST to `/SERVICE/METHOD` with headers and a body; the reply has the status
that HTTP would have. So policies, credentials and observers see nothing new.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from aiaas_grpc.channels import Channel, Channels
from aiaas_grpc.failures import failed
from aiaas_grpc.forking import grpc
from aiaas_sdk.errors import AiaasError, ConfigError
from aiaas_sdk.flow import AsyncSender, Compound, Reply, Request, Sender, nearest
from aiaas_sdk.records.hidden import Hidden
from aiaas_sdk.transport.origin import origin_of

__all__ = ["Rpc", "left", "metadata_of", "path_of"]

LONGEST = 8 * 1024
"""Characters of a header: gRPC servers take 8 KiB of them all (`grpc.max_metadata_size`)."""
SHORT = 100
"""Characters up to which a header's value is looked up among those seen."""
_NAME = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[ -~]*")
_OURS = frozenset(("content-type", "te", "user-agent", "host"))
"""Headers that gRPC writes itself."""


@dataclass(frozen=True, slots=True)
class Rpc(Compound):
    """Call the method that the request's path names: gives a `Reply`. `timeout` bounds this one attempt (s).

    The time that is left is the deadline of the call, which travels to the peer. A wait that is cancelled cancels it.
    """

    channels: Channels
    request: Request
    timeout: float | None = None

    def perform(self, sender: Sender, deadline: float | None) -> Reply:
        until = nearest(deadline, self.timeout)
        channel = self.channels.enter()
        try:
            body, error = self._called(channel, until)
            return self._failed(channel, error, until) if body is None else Reply(200, {}, body)
        finally:
            channel.leave()

    def _called(self, channel: Channel, until: float | None) -> tuple[bytes | None, Any]:
        """The response, or what went wrong. The headers stay out of any frame of an error."""
        try:
            body: bytes = channel.method(path_of(self.request.url))(
                b"".join(self.request.body), timeout=left(until), metadata=metadata_of(self.request.headers)
            )
        except grpc.RpcError as error:
            return None, error.with_traceback(None)
        return body, None

    async def aperform(self, sender: AsyncSender, deadline: float | None) -> Reply:
        until = nearest(deadline, self.timeout)
        channel = self.channels.enter()
        try:
            call = channel.method(path_of(self.request.url)).future(
                b"".join(self.request.body), timeout=left(until), metadata=metadata_of(self.request.headers)
            )
            await _ended(call)
            if call.code() is not grpc.StatusCode.OK:
                return self._failed(channel, call, until)
            return Reply(200, {}, call.result())
        finally:
            channel.leave()

    def _failed(self, channel: Channel, error: Any, until: float | None) -> Reply:
        try:
            return failed(error, origin_of(self.request.url), self.channels.through, until)
        except AiaasError:  # the peer didn't answer
            self.channels.retire(channel)
            raise


async def _ended(call: Any) -> None:
    """Until the call is over; whoever is cancelled here cancels it."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not over.done():
            over.set_result(None)

    def tell(_: Any) -> None:  # in a thread of gRPC's
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle)

    call.add_done_callback(tell)
    try:
        await over
    except BaseException:
        call.cancel()
        raise


def left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


@lru_cache(256)
def path_of(url: str) -> str:
    return urlsplit(url).path


def metadata_of(headers: Mapping[str, str | Hidden]) -> list[tuple[str, str]]:
    found = []
    for name, value in headers.items():
        if type(value) is str and len(value) <= SHORT:
            found.append(_known(name, value))
        else:
            found.append(_checked(name, value.reveal() if isinstance(value, Hidden) else value))
    return [header for header in found if header[0] not in _OURS]


def _checked(name: str, value: str) -> tuple[str, str]:
    """gRPC itself would write a header that it can't carry to stderr, value and all."""
    name = name.lower()
    if not _NAME.fullmatch(name) or name.startswith("grpc-") or name.endswith("-bin"):
        raise ConfigError(f"{name[:80]!r} can't be the name of a header over gRPC")
    if len(value) > LONGEST or not _VALUE.fullmatch(value):
        raise ConfigError(
            f"the header {name!r} holds characters that gRPC can't carry, or more than {LONGEST} of them",
            hint="Use plain ASCII without line breaks",
        )
    return name, value


_known = lru_cache(512)(_checked)
"""Most headers are those of the call before. What is hidden isn't kept, nor what is long."""
