"""Requests to the models of an application, and their responses, of one call or within a stream.

A model answers tensors with tensors. One that speaks answers the input `text_input` with `text_output`, as the models
of Triton's own language backends do: whole, or in a stream piece by piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from aiaas_grpc.codec import FINAL, decode_request, encode_response, encode_streamed
from aiaas_grpc.speaking import question_of, response_of
from aiaas_grpc.texts import KNOWN_VERBS, SPEAKING_INPUTS, SPEAKING_OUTPUTS, TEXT_INPUT
from aiaas_sdk.errors import AiaasError, InputError
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.records.options import UNSET, Unset
from aiaas_sdk.server.app import App
from aiaas_sdk.server.callers import allowed
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.heads import Head
from aiaas_sdk.server.held import Held
from aiaas_sdk.server.hosting import Hosted
from aiaas_sdk.server.oip import log_failure, predicted
from aiaas_sdk.wire.oip import InferRequest, InferResponse, ModelMetadata

__all__ = ["Answering", "headers_of", "speaking"]

T = TypeVar("T")
_CREDENTIALS = ("authorization", "x-api-key")
_LARGE = 1024**2
"""Bytes of a message that is read or written in a thread: the others mustn't wait."""


class Answering:
    """Answers requests; each has a place in its model's queue for as long as it takes."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def one(self, body: bytes, headers: Mapping[str, str], left: float | None) -> bytes:
        """The response to a request of a call of its own.

        Args:
            body: the request.
            headers: the caller's.
            left: seconds that the caller waits; None for no limit.

        Raises:
            AiaasError: it can't be answered.
        """
        name, version, request = await _aside(len(body), partial(decode_request, body))
        hosted = self._app.hosting.named(name)
        with hosted.place(), _told(hosted, request):
            async with _asked(hosted, version, headers, left) as held:
                response = await _whole(hosted, held, request)
            return await _aside(_size(response), lambda: b"".join(encode_response(response)))

    async def several(self, body: bytes, headers: Mapping[str, str], left: float | None) -> AsyncGenerator[bytes, None]:
        """The responses to a request within a stream, the last of which says that it is.

        Raises:
            AiaasError: it can't be answered, or not to its end.
        """
        name, version, request = await _aside(len(body), partial(decode_request, body))
        hosted = self._app.hosting.named(name)
        with hosted.place(), _told(hosted, request):
            async with (
                _asked(hosted, version, headers, left) as held,
                aclosing(_pieces(hosted, held, request)) as responses,
            ):
                async for response in responses:
                    yield await _aside(_size(response), partial(encode_streamed, response))


def _asked(hosted: Hosted, version: str | None, headers: Mapping[str, str], left: float | None) -> Held:
    """The model for this caller, and the seconds for the call: those that are allowed, or that he waits."""
    head = Head([(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()])
    found = [limit for limit in (allowed(head, hosted.timeout), left) if limit is not None]
    if found and min(found) <= 0:
        raise RefusedError(504, "the caller's time has run out")
    return hosted.held(version, min(found, default=None), once=head.retries)


async def _whole(hosted: Hosted, held: Held, request: InferRequest) -> InferResponse:
    if not _speaks(request, held.info):
        answer = await predicted(hosted, held.model, request, held.seconds)
        return InferResponse(
            model_name=hosted.name, model_version=answer.version, id=request.id, outputs=dict(answer.tensors)
        )
    question = question_of(request)
    options: Any = {**question.sampling, "timeout": _seconds(request, held.seconds)}
    with hosted.statistics.measured("generate", None) as counted:
        said = await held.model.generate(question.prompt, **options)
        counted.told(said)
    return response_of(hosted.name, request, said.text, said)


async def _pieces(hosted: Hosted, held: Held, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
    if not _speaks(request, held.info) or not (question := question_of(request)).streamed:
        yield replace(await _whole(hosted, held, request), parameters={FINAL: True})
        return
    options: Any = {**question.sampling, "timeout": _seconds(request, held.seconds)}
    with hosted.statistics.measured("stream", None) as counted:
        async with held.model.stream(question.prompt, **options) as stream:
            async for delta in stream:
                if delta.text:
                    yield replace(response_of(hosted.name, request, delta.text), parameters={FINAL: False})
            whole = await stream.result()
        counted.told(whole)
    yield replace(response_of(hosted.name, request, "", whole), parameters={FINAL: True})


@contextmanager
def _told(hosted: Hosted, request: InferRequest) -> Iterator[None]:
    """The model's errors as answers; those that are no caller's fault are logged."""
    try:
        yield
    except AiaasError as error:
        told = hosted.told(error)
        log_failure(hosted, told, error, request.id)
        raise told from error


def _seconds(request: InferRequest, limit: float | None) -> float | Unset:
    """Seconds for a text: what is allowed, or less where the request says so (microseconds; 0 is no wish)."""
    wish = request.parameters.get("timeout")
    if wish is None or wish == 0:
        return UNSET if limit is None else limit
    if type(wish) is not int or not 0 < wish < 2**63:
        raise InputError("the parameter timeout isn't a number of microseconds")
    return min(wish / 1e6, float("inf") if limit is None else limit)


# ---------------------------------------------------------------- who speaks
def _speaks(request: InferRequest, info: ModelInfo) -> bool:
    """Whether a text is asked for: by this input, which isn't one of the model's own."""
    return (
        TEXT_INPUT in request.inputs
        and not {"generate", "stream"}.isdisjoint(info.verbs)
        and all(spec.name != TEXT_INPUT for spec in info.inputs)
    )


def speaking(metadata: ModelMetadata, info: ModelInfo) -> ModelMetadata:
    """What is told of a model: its verbs, and for one that does nothing but speak what it takes and gives."""
    parameters = {**metadata.parameters, KNOWN_VERBS: sorted(info.verbs)}
    if "predict" in info.verbs or "stream" not in info.verbs:
        return replace(metadata, parameters=parameters)
    return replace(metadata, inputs=SPEAKING_INPUTS, outputs=SPEAKING_OUTPUTS, parameters=parameters)


# ---------------------------------------------------------------- parts
def headers_of(context: Any) -> dict[str, str]:
    """The caller's metadata that is text.

    A credential that stands there twice is none, as over HTTP: whoever looked at it before us may have looked at the
    other one.
    """
    headers: dict[str, str] = {}
    for key, value in context.invocation_metadata():
        if isinstance(value, str):
            headers[key] = "" if key in _CREDENTIALS and key in headers else value
    return headers


async def _aside(size: int, work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work) if size > _LARGE else work()


def _size(response: InferResponse) -> int:
    """Bytes, about: eight for each element."""
    total = 0
    for tensor in response.outputs.values():
        count = 8
        for axis in tensor.shape:
            count *= axis
        total += count
    return total
