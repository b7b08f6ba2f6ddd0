"""The endpoints of the Open Inference Protocol v2 over HTTP, with the binary tensor data extension.

Sources: kserve/open-inference-protocol `specification/protocol/inference_rest.md`; Triton's
`docs/protocol/extension_binary_data.md`, `extension_classification.md` and `extension_schedule_policy.md` (`timeout`
only). Others of its extensions have files of their own: `repository.py`, `configuring.py`, `generate.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from math import prod
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from aiaas_sdk._version import __version__
from aiaas_sdk.errors import AiaasError, InputError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.model import AsyncModel
from aiaas_sdk.observing import pass_on
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.records.options import UNSET, Unset
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.server.bodies import MAX_BODY, MAX_INFLATED, read_body
from aiaas_sdk.server.callers import allowed
from aiaas_sdk.server.errors import RefusedError, no_memory
from aiaas_sdk.server.heads import Head, head_in
from aiaas_sdk.server.hosting import Hosted, Hosting
from aiaas_sdk.server.leaving import Attended
from aiaas_sdk.server.packing import respond
from aiaas_sdk.server.paths import ONE, PINNED
from aiaas_sdk.server.permissions import caller
from aiaas_sdk.wire import oip
from aiaas_sdk.wire.classes import best
from aiaas_sdk.wire.jobs import TRAINING
from aiaas_sdk.wire.status import clean

__all__ = ["EXTENSIONS", "Endpoints", "described", "log_failure", "predicted"]

logger = logging.getLogger("aiaas_sdk.server")

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "explain",
    "model_configuration",
    "model_repository",
    "statistics",
)
_SMALL = 64 * 1024  # bytes of JSON that may be read or written in the event loop
_LONG = 1024**2  # bytes of strings, which are taken apart one by one


class Endpoints:
    """The protocol for the models of a hosting.

    Args:
        hosting: the models.
        max_body: bytes of a request's body; max_inflated: bytes that a compressed one may become.
        training: whether the server does training jobs, which it then announces.
    """

    def __init__(
        self,
        hosting: Hosting,
        *,
        max_body: int = MAX_BODY,
        max_inflated: int = MAX_INFLATED,
        training: bool = False,
    ) -> None:
        self._hosting = hosting
        self._max_body, self._max_inflated = max_body, max_inflated
        extensions = (*EXTENSIONS, TRAINING) if training else EXTENSIONS
        self._server = oip.encode_server(oip.ServerMetadata(name="aiaas", version=__version__, extensions=extensions))

    def routes(self) -> list[Route]:
        both: list[tuple[str, Callable[..., Any]]] = [("", self.metadata), ("/ready", self.model_ready)]
        return [
            Route("/v2", self.server),
            Route("/v2/", self.server),
            Route("/v2/models", self.models),
            *(Route(path + end, endpoint) for path in (PINNED, ONE) for end, endpoint in both),
            *(Route(path + "/infer", _Infer(self), methods=["POST"]) for path in (ONE, PINNED)),
        ]

    # ------------------------------------------------------------ the server
    async def server(self, request: Request) -> Response:
        return _json(self._server)

    async def models(self, request: Request) -> Response:
        return _json(to_json({"models": list(self._hosting.allowed)}))

    # ------------------------------------------------------------ a model
    async def metadata(self, request: Request) -> Response:
        hosted = self._hosting.named(request.path_params["model"])
        try:
            info = await hosted.info_of(request.path_params.get("version"))
            return _json(oip.encode_metadata(described(hosted, info)))
        except AiaasError as error:
            raise hosted.told(error) from error

    async def model_ready(self, request: Request) -> Response:
        hosted = self._hosting.named(request.path_params["model"])
        try:
            ready = await hosted.ready(request.path_params.get("version"))
        except AiaasError as error:
            told = hosted.told(error)
            raise RefusedError(404 if told.status == 404 else 503, told.message) from error
        if not ready:
            raise hosted.not_ready()
        return _json(to_json({"name": hosted.name, "ready": True}))

    # ------------------------------------------------------------ infer
    async def infer(self, scope: Scope, receive: Receive, send: Send, name: str, version: str | None) -> None:
        """POST .../infer, below any routing."""
        head = head_in(scope)
        pass_on(head.headers)
        hosted = self._hosting.named(name)
        hosted.check_room(head)
        body = await read_body(head, receive, limit=self._max_body, inflated=self._max_inflated)
        with hosted.place(), Attended(receive):
            message = await self.answered(hosted, version, head, body)
        await respond(send, message, head.headers.get("accept-encoding"))

    async def answered(self, hosted: Hosted, version: str | None, head: Head, body: Buffer) -> oip.Message:
        """The answer to an infer request, which holds its place."""
        request: oip.InferRequest | None = None
        try:
            async with hosted.held(version, allowed(head, hosted.timeout), once=head.retries) as held:
                request = await _decoded(head, body, held.info)
                answer = await predicted(hosted, held.model, request, held.seconds)
            return await _encoded(answer, request, hosted.name, held.info)
        except AiaasError as error:
            told = hosted.told(error)
            log_failure(hosted, told, error, None if request is None else request.id)
            raise told from error


class _Infer:
    """`infer` as Starlette's router calls it."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = scope["path_params"]
        await self._endpoints.infer(scope, receive, send, named["model"], named.get("version"))


def log_failure(hosted: Hosted, told: RefusedError, error: AiaasError, id: str | None) -> None:
    """What isn't the client's own mistake is the operator's to read, with the request's id."""
    if told.status >= 500:
        which = clean(id, 80) if id else "without id"
        logger.error("request %s of model %r: %s", which, hosted.name, error, exc_info=error.__cause__)


# ---------------------------------------------------------------- a request
async def _decoded(head: Head, body: Buffer, info: ModelInfo) -> oip.InferRequest:
    """The request, read in a thread where that takes long: the others mustn't wait."""
    if len(body) > _SMALL and _slow(head, body):
        return await asyncio.to_thread(_read, head.headers, body, info)
    return _read(head.headers, body, info)


def _read(headers: Mapping[str, str], body: Buffer, info: ModelInfo) -> oip.InferRequest:
    try:
        request = oip.decode_request(headers, body, specs=info.inputs)
    except MemoryError:  # the model isn't to blame
        raise no_memory() from None
    _check_offered(request)
    return request


def _slow(head: Head, body: Buffer) -> bool:
    size = head.text or len(body)
    return size > _SMALL or (len(body) > _LONG and b"BYTES" in bytes(body[:size]))


def _check_offered(request: oip.InferRequest) -> None:
    """Refuse what changes the meaning of the answer and isn't offered; anything else unknown is passed over."""
    for name in request.parameters:
        if name.startswith("triton_"):
            raise InputError(f"the parameter '{clean(name, 80)}' is reserved")


def _timeout(request: oip.InferRequest, allowed: float | None) -> float | Unset:
    """Seconds for the call. The request may ask for less than is allowed; 0 is Triton's word for no wish."""
    value = request.parameters.get("timeout")
    limit = UNSET if allowed is None else allowed
    if value is None:
        return limit
    if type(value) is not int or not 0 <= value < 2**63:
        raise InputError("the parameter timeout isn't a number of microseconds")
    seconds = value / 1e6
    return limit if not value or (allowed is not None and seconds > allowed) else seconds


def predicted(
    hosted: Hosted, model: AsyncModel[Any, Any], request: oip.InferRequest, allowed: float | None
) -> Awaitable[Prediction]:
    """The answer of a version of a model to a request, for which so many seconds are allowed."""
    outputs = None if request.outputs is None else [output.name for output in request.outputs]
    return hosted.predict(model, request.inputs, outputs=outputs, timeout=_timeout(request, allowed))


# ---------------------------------------------------------------- an answer
async def _encoded(answer: Prediction, request: oip.InferRequest, name: str, info: ModelInfo) -> oip.Message:
    outputs = answer.tensors
    for wish in request.outputs or ():
        if wish.classes:
            outputs = dict(outputs)
            outputs[wish.name] = best(
                outputs[wish.name],
                wish.classes,
                labels=answer.labels,
                rows=info.rows_free,
                where=f"output '{wish.name}'",
            )
    response = oip.InferResponse(model_name=name, model_version=answer._call.version, outputs=outputs)
    try:
        if _slow_to_write(response, request):
            return await asyncio.to_thread(oip.encode_response, response, request)
        return oip.encode_response(response, request)
    except InputError as error:  # bytes that aren't UTF-8, and the request wanted JSON
        raise InputError(f"{error.message}", hint="Ask for binary_data") from None


def _slow_to_write(response: oip.InferResponse, request: oip.InferRequest) -> bool:
    for name, tensor in response.outputs.items():
        taken_apart = tensor.datatype == "BYTES" or not request.wants_binary(name, tensor.datatype)
        if taken_apart and prod(tensor.array.shape) * 8 > _SMALL:
            return True
    return False


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


# ---------------------------------------------------------------- what is known of a model
def described(hosted: Hosted, info: ModelInfo) -> oip.ModelMetadata:
    """Its signature, and in `parameters` the facts that a client of ours shows as its own."""
    facts = dict(info.metadata)
    if info.labels is not None:
        facts["labels"] = list(info.labels)
    if info.device is not None:
        facts["device"] = info.device
    if hosted.trains and "fit" in info.verbs and caller().training:
        facts[TRAINING] = True
    return oip.ModelMetadata(
        name=hosted.name,
        versions=hosted.versions,
        platform=info.platform,
        inputs=info.inputs,
        outputs=info.outputs,
        parameters=facts,
    )
