"""The ASGI application: routes, and the one shape of every answer that says no.

Each error is JSON, of the form that its path's clients read, with `Content-Type: application/json` and nothing behind
it: kserve's client compares the whole header. Exceptions end here, because a server that sees one closes the
connection, and the next request on it is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Unpack

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from aiaas_sdk.errors import AiaasError
from aiaas_sdk.server import explaining, kserve, oip, openai
from aiaas_sdk.server.access import access_to
from aiaas_sdk.server.asking import Ears
from aiaas_sdk.server.astray import nothing_at
from aiaas_sdk.server.bodies import LeftError, drain
from aiaas_sdk.server.callers import request_id
from aiaas_sdk.server.configuring import Configuring
from aiaas_sdk.server.cors import Origins
from aiaas_sdk.server.description import Description
from aiaas_sdk.server.ending import last_event, shutting_down
from aiaas_sdk.server.errors import RefusedError, error_body, in_openai_form, no_memory, phrase, refusal
from aiaas_sdk.server.generate import Generate
from aiaas_sdk.server.heads import Head, head_in
from aiaas_sdk.server.hosting import Hosting, Targets
from aiaas_sdk.server.invocations import Invocations
from aiaas_sdk.server.overflow import Overflow
from aiaas_sdk.server.page import Page
from aiaas_sdk.server.paths import NAME
from aiaas_sdk.server.probes import Probes
from aiaas_sdk.server.repository import Repository
from aiaas_sdk.server.requestlog import Requests
from aiaas_sdk.server.room import Room
from aiaas_sdk.server.serving import ServeOptions, Serving, parted
from aiaas_sdk.server.stats import Stats
from aiaas_sdk.server.tls import certificate_of
from aiaas_sdk.server.training.jobs import Training
from aiaas_sdk.server.visits import Visit

__all__ = ["App", "create_app", "refused"]

logger = logging.getLogger("aiaas_sdk.server")
_INFER = re.compile(rf"/v2/models/({NAME})(?:/versions/([^/]+))?/infer")


class App:
    """The application of a hosting.

    Attributes:
        hosting: the models.
        serving: the options.
        room: for the bodies of all requests, whatever brings them.
        access: who may ask; None where everybody may. origins: whose pages may.
        certificate: for HTTPS; None without.
        training: the jobs; None where there are none.
        overflow: the requests that a full queue refuses.
        draining: set where the server is about to end: it isn't ready, and answers close their connections.
        cut_off: set where it ends now: what is cancelled from then on is told so.
    """

    def __init__(self, hosting: Hosting, serving: Serving) -> None:
        self.hosting, self.serving = hosting, serving
        self.draining = self.cut_off = False
        self.room = Room(serving.room)
        self._requests = Requests(hosting.ledger, hosting.models, self.room, logged=serving.access_log)
        self.access = access_to(serving)
        self.overflow = Overflow(self._requests, open=self.access is None, draining=lambda: self.draining)
        self.origins = Origins(serving.cors)
        self.certificate = certificate_of(serving)
        self._hosts = None if serving.hosts is None else frozenset(host.lower() for host in serving.hosts)
        limits = {"max_body": serving.max_body, "max_inflated": serving.max_inflated}
        self._oip = oip.Endpoints(hosting, **limits, training=serving.jobs is not None)
        self._openai = openai.Endpoints(hosting, **limits)
        ears = Ears(**limits)
        routes = [
            *Probes(hosting, draining=lambda: self.draining).routes(),
            *Stats(hosting).routes(),
            *_metrics(hosting, serving),
            *self._oip.routes(),
            *Repository(hosting, management=serving.management).routes(),
            *Configuring(hosting, max_batch_rows=serving.max_batch_rows).routes(),
            *Generate(hosting, ears).routes(),
            *kserve.Endpoints(hosting, ears).routes(),
            *explaining.Endpoints(hosting, ears).routes(),
            *Invocations(hosting, ears, tensors=self._oip, language=self._openai).routes(),
            *self._openai.routes(),
        ]
        self.training = _training(hosting, serving, lambda: self.draining)
        routes += [] if self.training is None else self.training.routes()
        routes += Page(hosting, shown=serving.page).routes()
        routes += Description(hosting, routes, guarded=self.access is not None).routes()
        self._router = Router(routes, redirect_slashes=False, lifespan=lambda _: self._running())

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        """The models, and the jobs that train them, for as long as the server runs."""
        async with self.hosting.running():
            if self.training is None:
                yield
                return
            async with self.training.running():
                yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's; a coroutine function, by which other servers know version 3 of it."""
        if scope["type"] == "http":
            await self.request(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._router(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is asked by HTTP."""
        visit = self._requests.begun()
        sending = _Sending(self, scope, send, visit)
        try:
            await self._performed(scope, receive, sending)
        except LeftError:
            return
        except asyncio.CancelledError:
            if not (self.cut_off and await _told_of_end(scope, receive, sending)):
                raise
        except Exception as error:
            if sending.started:  # an answer can't be taken back; the server closes the connection
                raise
            told = refused(error)
            told.unread |= self._cuts_off(scope, visit)
            await _refuse(told, scope, receive, sending)
            self.overflow.learn(told, scope, sending.lines, visit)
        finally:
            self._requests.ended(visit, scope)

    def _cuts_off(self, scope: Scope, visit: Visit) -> bool:
        """Whether the connection ends with this answer while a body comes that nobody has read.

        Who still sends would be reset then, and lose the answer.
        """
        head = head_in(scope)
        if visit.received or not head.lengths or head.length == 0:
            return False
        return head.ends or self.draining or scope["http_version"] == "1.0"

    async def _performed(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = head_in(scope)
        _check_head(scope["http_version"], head, self._hosts)
        if head.origin is not None:
            self.origins.check(scope)
        if scope["method"] == "OPTIONS" and (lines := self.origins.preflight(scope)) is not None:
            await send({"type": "http.response.start", "status": 204, "headers": lines})
            await send({"type": "http.response.body", "body": b""})
        elif self.access is None:
            await self._routed(scope, receive, send)
        else:
            await self.access.perform(scope, receive, send, self._routed)

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        # ahead of the router, which costs a third of a small request
        if scope["method"] == "POST" and (match := _INFER.fullmatch(scope["path"])) is not None:
            await self._oip.infer(scope, receive, send, match[1], match[2])
            return
        scope["app"] = self  # the router raises its 404 and 405, instead of answering in plain text
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            if error.status_code != 404:
                raise
            raise RefusedError(404, nothing_at(scope["method"], scope["path"], self._router.routes)) from None


class _Sending:
    """ASGI's `send`, which knows whether an answer has begun, and adds the headers of every answer.

    Attributes:
        started, ended: whether the answer has.
        lines: its headers.
    """

    __slots__ = ("_app", "_begun", "_request_id", "_scope", "_send", "_visit", "ended", "lines", "started")

    def __init__(self, app: App, scope: Scope, send: Send, visit: Visit) -> None:
        self._app, self._scope, self._send, self._visit = app, scope, send, visit
        self.started = self.ended = False
        self.lines: list[tuple[bytes, bytes]] = []
        self._request_id: bytes | None = None
        if in_openai_form(scope["path"]):
            self._begun = time.perf_counter()
            told = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
            scope["aiaas.request_id"] = request_id(told.decode("latin-1"))
            self._request_id = scope["aiaas.request_id"].encode()

    def __call__(self, message: Message) -> Awaitable[None]:
        if not self.started:
            self.started = True
            self._visit.status = message["status"]
            message["headers"] = self.lines = [*message.get("headers", ()), *self._app.origins.added(self._scope)]
            self._add(self.lines)
        else:
            self._visit.sent += len(message.get("body", b""))
            self.ended = not message.get("more_body", False)
        return self._send(message)

    def _add(self, lines: list[tuple[bytes, bytes]]) -> None:
        if self._app.draining and (b"connection", b"close") not in lines:
            lines.append((b"connection", b"close"))
        if (allowance := self._scope.get("aiaas.allowance")) is not None:
            lines += allowance.header_lines()
        if self._request_id is not None:
            lines.append((b"x-request-id", self._request_id))
            milliseconds = round(1000 * (time.perf_counter() - self._begun))
            lines.append((b"openai-processing-ms", str(milliseconds).encode()))

    @property
    def streams(self) -> bool:
        """Whether an event stream has begun."""
        return any(value.startswith(b"text/event-stream") for _, value in self.lines)


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
        return no_memory()
    logger.error("a request failed", exc_info=error)
    return RefusedError(500, "the server failed; its log says why")


_ROUTING = {405: "this path doesn't take this method"}


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


async def _told_of_end(scope: Scope, receive: Receive, sending: _Sending) -> bool:
    """Whether the client could be told that the server ends, in the task that was cancelled for it."""
    if sending.started and not (sending.streams and not sending.ended):
        return False
    if (task := asyncio.current_task()) is not None:
        task.uncancel()
    if sending.started:
        await sending({"type": "http.response.body", "body": last_event(scope["path"]), "more_body": False})
    else:
        await _refuse(shutting_down(), scope, receive, sending)
    return True


def _check_head(http_version: str, head: Head, hosts: frozenset[str] | None) -> None:
    """Refuse what could mean two things, and what a page of another site could send.

    A body with two lengths ends elsewhere for a proxy than for us (RFC 9112 6.1; h11 lets it through). A page
    reaches a server on this machine under a name of its own (DNS rebinding). A line without a version is HTTP/0.9
    to the parsers, and then an answer would have no head.
    """
    if http_version not in _VERSIONS:
        raise RefusedError(400, "this isn't a request of HTTP/1.1", unread=True)
    if hosts is not None and not hosts.issuperset(head.hosts):
        raise RefusedError(403, "this server isn't known under this Host", unread=True)
    if head.lengths > 1:
        raise RefusedError(400, "the request gives its length twice", unread=True)


_VERSIONS = ("1.1", "1.0", "2", "3")
"""As ASGI writes them; "2.0" is a line of HTTP/1 that says so."""


def _metrics(hosting: Hosting, serving: Serving) -> list[Route]:
    if not serving.metrics:
        return []
    from aiaas_sdk.server.metrics import Metrics  # with Prometheus' own client

    return Metrics(hosting).routes()


def _training(hosting: Hosting, serving: Serving, draining: Callable[[], bool]) -> Training | None:
    if serving.jobs is None:
        return None
    return Training(hosting, Path(serving.jobs), max_body=serving.max_body, draining=draining)


# ---------------------------------------------------------------- the door
def create_app(targets: Targets, **options: Unpack[ServeOptions]) -> App:
    """The application that serves models.

    Args:
        targets: each a folder of bundles, one bundle, an address, or `name=address`. A folder's models have the
            names of their folders; an address gives the last part of its path, or its scheme.
        options: those of the server (see `Serving`; what concerns its socket is for `serve`), and those of `load`, for
            each model whose backend takes them.

    Raises:
        ConfigError: two models have one name, there is none, or an option is impossible.
        AddressError, ModelNotFoundError, ...: as `load` says. Nothing is opened before the server runs.
    """
    serving, concerning = parted(options)
    return App(Hosting(targets, serving, options=concerning), serving)
