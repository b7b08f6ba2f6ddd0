"""The endpoints of OpenAI's API for every model with the verb, and `/v1/models` for KServe's V1 clients too.

Sources: OpenAI's openapi description (`/chat/completions`, `/completions`, `/embeddings`, `/models`); KServe's
`python/kserve/kserve/protocol/rest/v1_endpoints.py` (the list of models, and whether one is ready).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from aiaas_sdk.errors import AiaasError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.model import AsyncModel
from aiaas_sdk.observing import pass_on
from aiaas_sdk.records.language import Generation, Prompt
from aiaas_sdk.records.options import UNSET, Unset
from aiaas_sdk.server import questions, replies
from aiaas_sdk.server.bodies import MAX_BODY, MAX_INFLATED, LeftError, read_body
from aiaas_sdk.server.callers import allowed, retries_himself
from aiaas_sdk.server.errors import error_body
from aiaas_sdk.server.hosting import Hosted, Hosting
from aiaas_sdk.server.leaving import Attended
from aiaas_sdk.server.questions import Question
from aiaas_sdk.streams import AsyncTextStream

__all__ = ["Endpoints"]

T = TypeVar("T")
U = TypeVar("U")
Asking: TypeAlias = "tuple[AsyncModel[Any, Any], float | Unset]"
logger = logging.getLogger("aiaas_sdk.server")

LANES = 8
"""Texts of one request that are continued at once."""
STALLED = 60.0
"""Seconds for which a client may take nothing of a stream before it counts as gone."""
_SMALL = 64 * 1024  # bytes of JSON that may be read or written in the event loop
_STREAMED = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the pieces back
)


class Endpoints:
    """The API for the models of a hosting.

    Args:
        hosting: the models.
        max_body: bytes of a request's body; max_inflated: bytes that a compressed one may become.
    """

    def __init__(self, hosting: Hosting, *, max_body: int = MAX_BODY, max_inflated: int = MAX_INFLATED) -> None:
        self._hosting = hosting
        self._max_body, self._max_inflated = max_body, max_inflated
        self._since = int(time.time())

    def routes(self) -> list[Route]:
        return [
            Route("/v1/models", self.models),
            Route("/v1/models/{model:path}", self.model),
            Route("/v1/chat/completions", _Post(self.chat), methods=["POST"]),
            Route("/v1/completions", _Post(self.completions), methods=["POST"]),
            Route("/v1/embeddings", _Post(self.embeddings), methods=["POST"]),
        ]

    # ------------------------------------------------------------ models
    async def models(self, request: Request) -> Response:
        """OpenAI's clients read `data`, KServe's read `models`."""
        names = list(self._hosting.models)
        return _json(to_json({"object": "list", "data": [self._entry(name) for name in names], "models": names}))

    async def model(self, request: Request) -> Response:
        hosted = self._hosting.named(request.path_params["model"])
        try:
            ready = await hosted.ready(None)
        except AiaasError as error:
            raise hosted.told(error) from error
        if not ready:
            raise hosted.not_ready()
        return _json(to_json({**self._entry(hosted.name), "name": hosted.name, "ready": True}))

    def _entry(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._since, "owned_by": "aiaas"}

    # ------------------------------------------------------------ verbs
    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, asked = await self._asked(scope, receive, questions.chat)
        await self._spoken(scope, receive, send, headers, asked, chatting=True)

    async def completions(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, asked = await self._asked(scope, receive, questions.completion)
        await self._spoken(scope, receive, send, headers, asked, chatting=False)

    async def embeddings(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, asked = await self._asked(scope, receive, questions.embedding)
        hosted = self._hosting.named(asked.model)
        with hosted.place(), Attended(receive), _told(scope, hosted):
            model, timeout = await _asking(hosted, headers)
            found = await model.embed(asked.texts, dimensions=asked.dimensions, timeout=timeout)
            encode = functools.partial(replies.embeddings, hosted.name, found, packed=asked.packed)
            body = await asyncio.to_thread(encode) if found.array.nbytes > _SMALL else encode()
        await _json(body)(scope, receive, send)

    async def _asked(
        self, scope: Scope, receive: Receive, read: Callable[[Mapping[str, Any]], T]
    ) -> tuple[Mapping[str, str], T]:
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        pass_on(headers)
        body = await read_body(headers, receive, limit=self._max_body, inflated=self._max_inflated)

        def understood(body: Buffer) -> T:
            return read(questions.document(body))

        return headers, await asyncio.to_thread(understood, body) if len(body) > _SMALL else understood(body)

    async def _spoken(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Mapping[str, str],
        asked: Question,
        *,
        chatting: bool,
    ) -> None:
        hosted = self._hosting.named(asked.model)
        with hosted.place(), Attended(receive):
            if asked.stream:
                await self._streamed(scope, send, headers, hosted, asked, chatting)
                return
            with _told(scope, hosted):
                model, timeout = await _asking(hosted, headers)
                generate = functools.partial(_generated, model, asked, timeout)
                answers = await _each(generate, asked.prompts)
        told = replies.chat(hosted.name, answers[0]) if chatting else replies.completion(hosted.name, answers)
        await _json(told)(scope, receive, send)

    async def _streamed(
        self, scope: Scope, send: Send, headers: Mapping[str, str], hosted: Hosted, asked: Question, chatting: bool
    ) -> None:
        """What fails before the first content has a status of its own; what fails later is told as an event."""
        pieces = replies.Pieces(hosted.name, chatting=chatting, usage=asked.usage)
        with _told(scope, hosted):
            model, timeout = await _asking(hosted, headers)
            stream = _stream(model, asked, timeout)
            try:
                first = await anext(stream, None)
            except BaseException:
                await stream.aclose()
                raise
        async with stream:
            await send({"type": "http.response.start", "status": 200, "headers": list(_STREAMED)})
            begun = pieces.first() + (pieces.delta(first) if first is not None else b"")
            try:
                await _put(send, begun)
                async for delta in stream:
                    await _put(send, pieces.delta(delta))
                end = pieces.last(await stream.result())
            except AiaasError as error:
                _log(scope, hosted, error)
                end = b"data: " + error_body(hosted.told(error), scope["path"]) + b"\n\n"
        await _put(send, end, more=False)


class _Post:
    """An endpoint as Starlette's router calls it."""

    def __init__(self, endpoint: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoint(scope, receive, send)


# ---------------------------------------------------------------- asking
async def _asking(hosted: Hosted, headers: Mapping[str, str]) -> Asking:
    """The model for this caller, and the seconds that its call may take."""
    model, limit = await hosted.within(None, allowed(headers, hosted.timeout))
    return hosted.once(model) if retries_himself(headers) else model, UNSET if limit is None else limit


async def _generated(
    model: AsyncModel[Any, Any], asked: Question, timeout: float | Unset, prompt: Prompt
) -> Generation:
    options: dict[str, Any] = {**asked.sampling, "timeout": timeout}
    return await model.generate(prompt, tools=asked.tools, output=asked.output, **options)  # type: ignore[arg-type]  # specs


def _stream(model: AsyncModel[Any, Any], asked: Question, timeout: float | Unset) -> AsyncTextStream:
    options: dict[str, Any] = {**asked.sampling, "timeout": timeout}
    return model.stream(asked.prompts[0], tools=asked.tools, output=asked.output, **options)  # type: ignore[arg-type]


async def _each(work: Callable[[T], Awaitable[U]], items: Sequence[T]) -> list[U]:
    """The work on each item, some at once, in the items' order. The first failure ends it all."""
    gate = asyncio.Semaphore(LANES)

    async def one(item: T) -> U:
        async with gate:
            return await work(item)

    if len(items) == 1:
        return [await work(items[0])]
    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# ---------------------------------------------------------------- telling
async def _put(send: Send, data: bytes, *, more: bool = True) -> None:
    """Send a piece of a stream.

    Raises:
        LeftError: the client takes nothing any more, and holds a place.
    """
    try:
        async with asyncio.timeout(STALLED):
            await send({"type": "http.response.body", "body": data, "more_body": more})
    except TimeoutError:
        raise LeftError from None


@contextmanager
def _told(scope: Scope, hosted: Hosted) -> Iterator[None]:
    """The model's errors as answers; those that are no client's fault are logged."""
    try:
        yield
    except AiaasError as error:
        _log(scope, hosted, error)
        raise hosted.told(error) from error


def _log(scope: Scope, hosted: Hosted, error: AiaasError) -> None:
    if hosted.told(error).status >= 500:
        which = scope["aiaas.request_id"]
        logger.error("request %s of model %r: %s", which, hosted.name, error, exc_info=error.__cause__)


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
