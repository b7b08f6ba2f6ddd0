"""The endpoints of the Open Inference Protocol v2 over HTTP, with the binary tensor data extension.

Sources: kserve/open-inference-protocol `specification/protocol/inference_rest.md`; Triton's
`docs/protocol/extension_binary_data.md`, `extension_model_repository.md` (its index only: no request loads,
unloads or names a file) and `extension_schedule_policy.md` (`timeout` only).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic_core import from_json, to_json
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
from aiaas_sdk.server.callers import allowed, retries_himself
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.hosting import Hosted, Hosting
from aiaas_sdk.server.leaving import Attended
from aiaas_sdk.wire import oip
from aiaas_sdk.wire.status import clean

__all__ = ["EXTENSIONS", "Endpoints", "described", "log_failure", "predicted"]

logger = logging.getLogger("aiaas_sdk.server")

EXTENSIONS = ("binary_tensor_data", "model_repository")
_SMALL = 64 * 1024  # bytes: a body of the repository index; JSON that may be read or written in the event loop
_LONG = 1024**2  # bytes of strings, which are taken apart one by one


class Endpoints:
    """The protocol for the models of a hosting.

    Args:
        hosting: the models.
        max_body: bytes of a request's body; max_inflated: bytes that a compressed one may become.
        draining: whether the server is about to end.
    """

    def __init__(
        self,
        hosting: Hosting,
        *,
        max_body: int = MAX_BODY,
        max_inflated: int = MAX_INFLATED,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._hosting, self._draining = hosting, draining
        self._max_body, self._max_inflated = max_body, max_inflated
        self._server = oip.encode_server(oip.ServerMetadata(name="aiaas", version=__version__, extensions=EXTENSIONS))

    def routes(self) -> list[Route]:
        one, pinned = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
        both: list[tuple[str, Callable[..., Any]]] = [("", self.metadata), ("/ready", self.model_ready)]
        return [
            Route("/v2", self.server),
            Route("/v2/", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2/models", self.models),
            Route("/v2/repository/index", self.index, methods=["POST"]),
            *(Route(path + end, endpoint) for path in (one, pinned) for end, endpoint in both),
            *(Route(path + "/infer", _Infer(self), methods=["POST"]) for path in (one, pinned)),
        ]

    # ------------------------------------------------------------ the server
    async def server(self, request: Request) -> Response:
        return _json(self._server)

    async def live(self, request: Request) -> Response:
        return _json(b'{"live":true}')

    async def ready(self, request: Request) -> Response:
        if self._draining():
            raise RefusedError(503, "the server is shutting down")
        if waited := self._hosting.waited_for:
            raise RefusedError(503, f"not ready yet: {', '.join(waited)}")
        return _json(b'{"ready":true}')

    async def models(self, request: Request) -> Response:
        return _json(to_json({"models": list(self._hosting.models)}))

    async def index(self, request: Request) -> Response:
        """The repository index: a row for each version, with its state."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = await read_body(headers, request.receive, limit=_SMALL, inflated=_SMALL)
        only_ready = _only_ready(body)
        rows = [row for hosted in self._hosting.models.values() for row in _rows(hosted)]
        return _json(to_json([row for row in rows if row["state"] == "READY" or not only_ready]))

    # ------------------------------------------------------------ a model
    async def metadata(self, request: Request) -> Response:
        hosted = self._hosting.named(request.path_params["model"])
        try:
            model = await hosted.version(request.path_params.get("version"))
            return _json(oip.encode_metadata(described(hosted, await model.info())))
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
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        pass_on(headers)
        hosted = self._hosting.named(name)
        body = await read_body(
            headers, receive, limit=self._max_body, inflated=self._max_inflated, head=oip.HEADER_LENGTH
        )
        with hosted.place(), Attended(receive):
            message = await self._answered(hosted, version, headers, body)
        await _respond(send, message)

    async def _answered(
        self, hosted: Hosted, version: str | None, headers: Mapping[str, str], body: Buffer
    ) -> oip.Message:
        request: oip.InferRequest | None = None
        try:
            model, limit = await hosted.within(version, allowed(headers, hosted.timeout))
            request = await _decoded(headers, body, await model.info())
            model = hosted.once(model) if retries_himself(headers) else model
            answer = await predicted(model, request, limit)
            return await _encoded(answer, request, hosted.name)
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
async def _decoded(headers: Mapping[str, str], body: Buffer, info: ModelInfo) -> oip.InferRequest:
    """The request, read in a thread where that takes long: the others mustn't wait."""

    def read() -> oip.InferRequest:
        request = oip.decode_request(headers, body, specs=info.inputs)
        _check_offered(headers, body, request)
        return request

    if _slow(headers, body):
        return await asyncio.to_thread(read)
    return read()


def _slow(headers: Mapping[str, str], body: Buffer) -> bool:
    if len(body) <= _SMALL:
        return False
    text = headers.get(oip.HEADER_LENGTH, "")
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else len(body)
    return size > _SMALL or (len(body) > _LONG and b"BYTES" in bytes(body[:size]))


def _check_offered(headers: Mapping[str, str], body: Buffer, request: oip.InferRequest) -> None:
    """Refuse what changes the meaning of the answer and isn't offered; anything else unknown is passed over."""
    if reserved := next((name for name in request.parameters if name.startswith("triton_")), None):
        raise InputError(f"the parameter '{clean(reserved, 80)}' is reserved")
    if not request.outputs:
        return
    text = headers.get(oip.HEADER_LENGTH)
    head = bytes(body if text is None else memoryview(body)[: int(text)])
    if b"classification" not in head and b"shared_memory" not in head:
        return
    for entry in from_json(head)["outputs"]:
        parameters = entry.get("parameters") or {}
        if parameters.get("classification"):
            raise InputError(f"output '{clean(entry['name'], 80)}': classification isn't offered; take its scores")
        if "shared_memory_region" in parameters:
            raise InputError(f"output '{clean(entry['name'], 80)}': shared memory isn't offered")


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


async def predicted(model: AsyncModel[Any, Any], request: oip.InferRequest, allowed: float | None) -> Prediction:
    """The model's answer to a request, for which so many seconds are allowed."""
    outputs = None if request.outputs is None else [output.name for output in request.outputs]
    return await model.predict(request.inputs, outputs=outputs, timeout=_timeout(request, allowed))


# ---------------------------------------------------------------- an answer
async def _encoded(answer: Prediction, request: oip.InferRequest, name: str) -> oip.Message:
    response = oip.InferResponse(model_name=name, model_version=answer.version, outputs=dict(answer.tensors))
    slow = any(
        tensor.datatype == "BYTES" or not request.wants_binary(output, tensor.datatype)
        for output, tensor in answer.tensors.items()
        if len(tensor.shape) and _elements(tensor.shape) * 8 > _SMALL
    )
    try:
        if slow:
            return await asyncio.to_thread(oip.encode_response, response, request)
        return oip.encode_response(response, request)
    except InputError as error:  # bytes that aren't UTF-8, and the request wanted JSON
        raise InputError(f"{error.message}", hint="Ask for binary_data") from None


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


async def _respond(send: Send, message: oip.Message) -> None:
    """Send the parts as they are: tensors go out from their own memory."""
    size = sum(map(len, message.body))
    headers = [(name.encode(), value.encode()) for name, value in message.headers.items()]
    headers.append((b"content-length", str(size).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    last = len(message.body) - 1
    for place, part in enumerate(message.body):
        await send({"type": "http.response.body", "body": part, "more_body": place < last})


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
    return oip.ModelMetadata(
        name=hosted.name,
        versions=hosted.versions,
        platform=info.platform,
        inputs=info.inputs,
        outputs=info.outputs,
        parameters=facts,
    )


def _only_ready(body: Buffer) -> bool:
    if not body:
        return False
    try:
        wish = from_json(bytes(body))
    except ValueError:
        raise RefusedError(400, "the body isn't JSON") from None
    ready = wish.get("ready") if isinstance(wish, dict) else wish
    if not isinstance(wish, dict) or not isinstance(ready, bool | None):
        raise RefusedError(400, 'the body is neither empty nor {"ready": true} or {"ready": false}')
    return bool(ready)


def _rows(hosted: Hosted) -> list[dict[str, Any]]:
    if hosted.info is None:
        if hosted.failure is None:
            return [{"name": hosted.name, "state": "LOADING"}]
        return [{"name": hosted.name, "state": "UNAVAILABLE", "reason": hosted.told(hosted.failure).message}]
    rows = []
    for version in hosted.versions or (None,):
        row = {"name": hosted.name} if version is None else {"name": hosted.name, "version": version}
        known = version is None or version in hosted.loaded
        rows.append(
            row | ({"state": "READY"} if known else {"state": "UNAVAILABLE", "reason": "opened when asked for"})
        )
    return rows
