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
from typing import Any, TypeVar

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
from aiaas_sdk.records.options import Unset
from aiaas_sdk.server import questions, replies
from aiaas_sdk.server.bodies import MAX_BODY, MAX_INFLATED, read_body
from aiaas_sdk.server.callers import allowed
from aiaas_sdk.server.errors import RefusedError, error_body
from aiaas_sdk.server.heads import Head, head_in
from aiaas_sdk.server.held import Held
from aiaas_sdk.server.hosting import Hosted, Hosting
from aiaas_sdk.server.leaving import Attended
from aiaas_sdk.server.permissions import caller
from aiaas_sdk.server.questions import Embedding, Question
from aiaas_sdk.server.statistics import Measured
from aiaas_sdk.server.streaming import STREAMED, put
from aiaas_sdk.streams import AsyncTextStream

__all__ = ["Endpoints"]

T = TypeVar("T")
U = TypeVar("U")
logger = logging.getLogger("aiaas_sdk.server")

LANES = 8
"""Texts of one request that are continued at once."""
SPEECH, VECTORS = frozenset(("generate", "stream")), frozenset(("embed",))
"""The verbs of a model that can answer."""
_SMALL = 64 * 1024  # bytes of JSON that may be read or written in the event loop


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
        names = list(self._hosting.allowed)
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
        head, asked = await self._asked(scope, receive, questions.chat, SPEECH)
        await self.spoken(scope, receive, send, head, asked, chatting=True)

    async def completions(self, scope: Scope, receive: Receive, send: Send) -> None:
        head, asked = await self._asked(scope, receive, questions.completion, SPEECH)
        await self.spoken(scope, receive, send, head, asked, chatting=False)

    async def embeddings(self, scope: Scope, receive: Receive, send: Send) -> None:
        head, asked = await self._asked(scope, receive, questions.embedding, VECTORS)
        await self.embedded(scope, receive, send, head, asked)

    async def embedded(self, scope: Scope, receive: Receive, send: Send, head: Head, asked: Embedding) -> None:
        """Answer with vectors, in the form of /embeddings."""
        hosted = self._hosting.named(asked.model)
        counted = hosted.statistics.measured("embed")
        with hosted.place(), Attended(receive), _told(scope, hosted), counted:
            async with _asking(hosted, head) as held:
                counted.model = held.model
                found = await held.model.embed(asked.texts, dimensions=asked.dimensions, timeout=held.timeout)
            counted.told(found)
            encode = functools.partial(replies.embeddings, hosted.name, found, packed=asked.packed)
            body = await asyncio.to_thread(encode) if found.array.nbytes > _SMALL else encode()
        await _json(body)(scope, receive, send)

    async def _asked(
        self, scope: Scope, receive: Receive, read: Callable[[Mapping[str, Any]], T], verbs: frozenset[str]
    ) -> tuple[Head, T]:
        head = head_in(scope)
        pass_on(head.headers)
        self._check_room(head, verbs)
        body = await read_body(head, receive, limit=self._max_body, inflated=self._max_inflated)

        def understood(body: Buffer) -> T:
            return read(questions.document(body))

        return head, await asyncio.to_thread(understood, body) if len(body) > _SMALL else understood(body)

    def _check_room(self, head: Head, verbs: frozenset[str]) -> None:
        """Refuse a request whose body hasn't been read where whichever model it may be for has no room now.

        The body names the model; so where another one that could be meant has room, it is read.

        Args:
            head: the request's.
            verbs: a model with one of them can answer it.

        Raises:
            RefusedError: 503 or 429, as `Hosted.check_room` says.
        """
        refusals: list[RefusedError] = []
        for name, hosted in self._hosting.models.items():
            if not caller().may_use(name) or (hosted.info is not None and not verbs & hosted.info.verbs):
                continue
            try:
                hosted.check_room(head)
            except RefusedError as refused:
                refusals.append(refused)
            else:
                return
        if len(refusals) > 1:
            refusals[0].message = "every model that could answer is overloaded; try again later"
        if refusals:
            raise refusals[0]

    async def spoken(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        head: Head,
        asked: Question,
        *,
        chatting: bool,
    ) -> None:
        """Answer a question, in the form of /chat/completions or of /completions."""
        hosted = self._hosting.named(asked.model)
        with hosted.place(), Attended(receive):
            if asked.stream:
                with hosted.statistics.measured("stream") as counted, _told(scope, hosted):
                    async with _asking(hosted, head) as held:
                        counted.model = held.model
                        await self._streamed(scope, send, held, hosted, asked, chatting, counted)
                return
            with _told(scope, hosted):
                async with _asking(hosted, head) as held:
                    generate = functools.partial(_generated, hosted, held.model, asked, held.timeout)
                    answers = await _each(generate, asked.prompts)
        told = replies.chat(hosted.name, answers[0]) if chatting else replies.completion(hosted.name, answers)
        await _json(told)(scope, receive, send)

    async def _streamed(
        self,
        scope: Scope,
        send: Send,
        held: Held,
        hosted: Hosted,
        asked: Question,
        chatting: bool,
        counted: Measured,
    ) -> None:
        """What fails before the first content has a status of its own; what fails later is told as an event."""
        pieces = replies.Pieces(hosted.name, chatting=chatting, usage=asked.usage)
        stream = _stream(held.model, asked, held.timeout)
        try:
            first = await anext(stream, None)
        except BaseException:
            await stream.aclose()
            raise
        async with stream:
            await send({"type": "http.response.start", "status": 200, "headers": list(STREAMED)})
            begun = pieces.first() + (pieces.delta(first) if first is not None else b"")
            try:
                await put(send, begun)
                async for delta in stream:
                    await put(send, pieces.delta(delta))
                result = await stream.result()
                counted.told(result)
                end = pieces.last(result)
            except AiaasError as error:
                held.failed(error)
                _log(scope, hosted, error)
                end = b"data: " + error_body(hosted.told(error), scope["path"]) + b"\n\n"
        await put(send, end, more=False)


class _Post:
    """An endpoint as Starlette's router calls it."""

    def __init__(self, endpoint: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoint(scope, receive, send)


# ---------------------------------------------------------------- asking
def _asking(hosted: Hosted, head: Head) -> Held:
    """The model for this caller."""
    return hosted.held(None, allowed(head, hosted.timeout), once=head.retries)


async def _generated(
    hosted: Hosted, model: AsyncModel[Any, Any], asked: Question, timeout: float | Unset, prompt: Prompt
) -> Generation:
    options: dict[str, Any] = {**asked.sampling, "timeout": timeout}
    with hosted.statistics.measured("generate", model) as counted:
        found = await model.generate(prompt, tools=asked.tools, output=asked.output, **options)  # type: ignore[arg-type]  # specs
        counted.told(found)
        return found


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
