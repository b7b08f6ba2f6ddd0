"""The ASGI application: routes, and the one shape of every answer that says no.

Each error is JSON, of the form that its path's clients read, with `Content-Type: application/json` and nothing behind
it: kserve's client compares the whole header. Exceptions end here, because a server that sees one closes the
connection, and the next request on it is lost.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection, Iterator
from typing import Any, Unpack

from starlette.exceptions import HTTPException
from starlette.routing import Router
from starlette.types import Message, Receive, Scope, Send

from aiaas_sdk.errors import AiaasError, ConfigError
from aiaas_sdk.records.options import Options
from aiaas_sdk.server import oip, openai
from aiaas_sdk.server.bodies import MAX_BODY, MAX_INFLATED, LeftError, drain
from aiaas_sdk.server.callers import request_id
from aiaas_sdk.server.errors import RefusedError, error_body, in_openai_form, phrase, refusal
from aiaas_sdk.server.hosting import QUEUE, Hosting, Targets

__all__ = ["App", "create_app", "refused"]

logger = logging.getLogger("aiaas_sdk.server")
_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")


class App:
    """The application of a hosting.

    Attributes:
        hosting: the models.
        draining: set where the server is about to end: it isn't ready, and answers close their connections.
    """

    def __init__(
        self,
        hosting: Hosting,
        *,
        max_body: int = MAX_BODY,
        max_inflated: int = MAX_INFLATED,
        hosts: Collection[str] | None = None,
    ) -> None:
        self.hosting = hosting
        self.draining = False
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        limits = {"max_body": max_body, "max_inflated": max_inflated}
        self._oip = oip.Endpoints(hosting, **limits, draining=lambda: self.draining)
        routes = [*self._oip.routes(), *openai.Endpoints(hosting, **limits).routes()]
        self._router = Router(routes, redirect_slashes=False, lifespan=lambda _: self.hosting.running())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._router(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = _Sending(self, scope, send)
        try:
            await self._performed(scope, receive, sending)
        except LeftError:
            return
        except Exception as error:
            if sending.started:  # an answer can't be taken back; the server closes the connection
                raise
            await _refuse(refused(error), scope, receive, sending)

    async def _performed(self, scope: Scope, receive: Receive, send: Send) -> None:
        _check_head(scope, self._hosts)
        # ahead of the router, which costs a third of a small request
        if scope["method"] == "POST" and (match := _INFER.fullmatch(scope["path"])) is not None:
            await self._oip.infer(scope, receive, send, match[1], match[2])
            return
        scope["app"] = self  # the router raises its 404 and 405, instead of answering in plain text
        await self._router(scope, receive, send)


class _Sending:
    """ASGI's `send`, which knows whether an answer has begun, and adds the headers of every answer."""

    __slots__ = ("_app", "_begun", "_request_id", "_send", "started")

    def __init__(self, app: App, scope: Scope, send: Send) -> None:
        self._app, self._send, self.started = app, send, False
        self._request_id: bytes | None = None
        if in_openai_form(scope["path"]):
            self._begun = time.perf_counter()
            told = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
            scope["aiaas.request_id"] = request_id(told.decode("latin-1"))
            self._request_id = scope["aiaas.request_id"].encode()

    async def __call__(self, message: Message) -> None:
        if not self.started:
            self.started = True
            message["headers"] = [*message.get("headers", ()), *self._added()]
        await self._send(message)

    def _added(self) -> Iterator[tuple[bytes, bytes]]:
        if self._app.draining:
            yield b"connection", b"close"
        if self._request_id is not None:
            yield b"x-request-id", self._request_id
            yield b"openai-processing-ms", str(round(1000 * (time.perf_counter() - self._begun))).encode()


# ---------------------------------------------------------------- saying no
def refused(error: Exception) -> RefusedError:
    """What a client is told of anything that a request may end with."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, HTTPException):
        headers = [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
        return RefusedError(
            error.status_code, _ROUTING.get(error.status_code, phrase(error.status_code)), headers=headers
        )
    if isinstance(error, AiaasError):
        return refusal(error, name="")
    if isinstance(error, MemoryError):
        logger.error("there was no memory for a request")
        return RefusedError(503, "the server has no memory for this request now", retry_after=1.0, unread=True)
    logger.error("a request failed", exc_info=error)
    return RefusedError(500, "the server failed; its log says why")


_ROUTING = {404: "there is nothing at this path", 405: "this path doesn't take this method"}


async def _refuse(refused: RefusedError, scope: Scope, receive: Receive, send: Send) -> None:
    told = error_body(refused, scope["path"])
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(told)).encode()),
        *refused.header_lines(),
    ]
    if refused.unread:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": told, "more_body": refused.unread})
    if refused.unread:
        await drain(receive)
        await send({"type": "http.response.body", "body": b""})


def _check_head(scope: Scope, hosts: Collection[str] | None) -> None:
    """Refuse what could mean two things, and what a page of another site could send.

    A body with two lengths ends elsewhere for a proxy than for us (RFC 9112 6.1; h11 lets it through). A page
    reaches a server on this machine under a name of its own (DNS rebinding).
    """
    lengths = 0
    for name, value in scope["headers"]:
        if name in _LENGTHS:
            lengths += 1
        elif name == b"host" and hosts is not None and _host(value.decode("latin-1")) not in hosts:
            raise RefusedError(403, "this server isn't known under this Host", unread=True)
    if lengths > 1:
        raise RefusedError(400, "the request gives its length twice", unread=True)


_LENGTHS = (b"content-length", b"transfer-encoding")


def _host(value: str) -> str:
    host = value.strip().lower()
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


# ---------------------------------------------------------------- the door
def create_app(
    targets: Targets,
    *,
    max_body: int = MAX_BODY,
    max_inflated: int = MAX_INFLATED,
    queue: int = QUEUE,
    hosts: Collection[str] | None = None,
    **options: Unpack[Options],
) -> App:
    """The application that serves models.

    Args:
        targets: each a folder of bundles, one bundle, an address, or `name=address`. A folder's models have the
            names of their folders; an address gives the last part of its path, or its scheme.
        max_body: bytes of a request's body that are taken; more is 413.
        max_inflated: bytes that a compressed body may become.
        queue: calls of one model that may wait or run at once; more is 503.
        hosts: the names under which it may be called (the header Host); None for any.
        options: those of `load`, for each model whose backend takes them.

    Raises:
        ConfigError: two models have one name, there is none, or an argument is impossible.
        AddressError, ModelNotFoundError, ...: as `load` says. Nothing is opened before the server runs.
    """
    for name, value in (("max_body", max_body), ("max_inflated", max_inflated)):
        if value < 1:
            raise ConfigError(f"{name} is {value}", hint="Give bytes, from 1 on")
    found: dict[str, Any] = dict(options)
    hosting = Hosting(targets, queue=queue, options=found)
    return App(hosting, max_body=max_body, max_inflated=max_inflated, hosts=hosts)
