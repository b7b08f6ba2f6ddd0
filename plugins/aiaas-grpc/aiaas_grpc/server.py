"""The same models by the same protocol over gRPC, for `aiaas serve --grpc-port`, and gRPC's own health check.

Sources: kserve/open-inference-protocol `specification/protocol/open_inference_grpc.proto`; grpc/grpc
`doc/health-checking.md`. Tensors are taken in either form and given as raw contents, as Triton does it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import grpc.aio

from aiaas_grpc.answering import Answering, headers_of, speaking
from aiaas_grpc.codec import encode_metadata, parsed
from aiaas_grpc.door import Door, credentials
from aiaas_grpc.forking import grpc
from aiaas_grpc.messages import HEALTH, SERVICE, message
from aiaas_grpc.statuses import code_of
from aiaas_grpc.streaming import NO_ROOM, Streams
from aiaas_sdk._version import __version__
from aiaas_sdk.errors import AiaasError, ConfigError, InputError, ProtocolError
from aiaas_sdk.observing import pass_on
from aiaas_sdk.server.app import App, refused
from aiaas_sdk.server.oip import described

__all__ = ["GrpcServer", "aiaas_server"]

Method: TypeAlias = Callable[[bytes, Any], Awaitable[bytes]]

_SERVING = 1


class GrpcServer:
    """The server of an application's models, in the event loop that starts it."""

    def __init__(self, app: App, host: str, port: int, max_body: int) -> None:
        self._app, self._place = app, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._max_body = max_body
        self._server: Any = None
        self._methods: Mapping[str, Method] = {
            f"/{SERVICE}/ServerLive": self._live,
            f"/{SERVICE}/ServerReady": self._ready,
            f"/{SERVICE}/ServerMetadata": self._metadata,
            f"/{SERVICE}/ModelReady": self._model_ready,
            f"/{SERVICE}/ModelMetadata": self._model_metadata,
            f"/{SERVICE}/ModelInfer": self._infer,
            f"/{HEALTH}/Check": self._check,
        }
        self._door = Door(app)
        self._answering = Answering(app)
        self._streams = Streams(self._answering, self._door)

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            ConfigError: the port can't be listened on.
        """
        options = (
            ("grpc.max_receive_message_length", self._max_body),
            ("grpc.max_send_message_length", -1),
            # else two servers could share a port, each with half of the calls; the processes of one do
            ("grpc.so_reuseport", int(self._app.serving.workers > 1)),
        )
        self._server = grpc.aio.server(options=options)
        handlers = {path: self._handler(path, method) for path, method in self._methods.items()}
        handlers[f"/{SERVICE}/ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._streams.serve)
        self._server.add_generic_rpc_handlers((_Handlers(handlers),))
        try:
            if self._app.certificate is None:
                self._server.add_insecure_port(self._place)
            else:
                self._server.add_secure_port(self._place, credentials(self._app.certificate))
        except RuntimeError:
            self._server = None
            raise ConfigError(f"can't listen on {self._place} for gRPC", hint="Choose another port") from None
        await self._server.start()

    async def stop(self, seconds: float) -> None:
        """Take no further call; those that run may go on for so long. Harmless when done twice."""
        if self._server is not None:
            self._streams.stop()
            await self._server.stop(seconds)

    def _handler(self, path: str, method: Method) -> Any:
        return grpc.unary_unary_rpc_method_handler(partial(_answer, self._door, path, method))

    # ------------------------------------------------------------ the server
    async def _live(self, body: bytes, context: Any) -> bytes:
        return _written("inference.ServerLiveResponse", live=True)

    async def _ready(self, body: bytes, context: Any) -> bytes:
        return _written("inference.ServerReadyResponse", ready=self._is_ready)

    @property
    def _is_ready(self) -> bool:
        return not (self._app.draining or self._app.hosting.waited_for)

    async def _metadata(self, body: bytes, context: Any) -> bytes:
        return _written("inference.ServerMetadataResponse", name="aiaas", version=__version__)

    async def _check(self, body: bytes, context: Any) -> bytes:
        """Kubernetes and load balancers ask this; the name of a service may be empty, ours, or a model's."""
        service = _read("grpc.health.v1.HealthCheckRequest", body).service
        ready = self._is_ready
        if service not in ("", SERVICE):
            ready = await self._app.hosting.named(service).ready(None)
        return _written("grpc.health.v1.HealthCheckResponse", status=_SERVING if ready else _SERVING + 1)

    # ------------------------------------------------------------ a model
    async def _model_ready(self, body: bytes, context: Any) -> bytes:
        asked = _read("inference.ModelReadyRequest", body)
        hosted = self._app.hosting.named(asked.name)
        try:
            ready = await hosted.ready(asked.version or None)
        except AiaasError as error:
            told = hosted.told(error)
            if told.status == 404:
                raise told from error
            ready = False
        return _written("inference.ModelReadyResponse", ready=ready)

    async def _model_metadata(self, body: bytes, context: Any) -> bytes:
        asked = _read("inference.ModelMetadataRequest", body)
        hosted = self._app.hosting.named(asked.name)
        try:
            info = await hosted.info_of(asked.version or None)
            return encode_metadata(speaking(described(hosted, info), info))
        except AiaasError as error:
            raise hosted.told(error) from error

    async def _infer(self, body: bytes, context: Any) -> bytes:
        headers = headers_of(context)
        pass_on(headers)
        return await self._answering.one(body, headers, context.time_remaining())


class _Handlers(grpc.GenericRpcHandler):
    """Finds a method by its path."""

    def __init__(self, handlers: Mapping[str, Any]) -> None:
        self._handlers = handlers

    def service(self, details: Any) -> Any:
        return self._handlers.get(details.method)


def aiaas_server(app: App, host: str, port: int, max_body: int) -> GrpcServer:
    """What the core calls for `grpc_port`."""
    return GrpcServer(app, host, port, max_body)


# ---------------------------------------------------------------- answering
async def _answer(door: Door, path: str, method: Method, body: bytes, context: Any) -> bytes:
    try:
        with door.held(path, len(body)):
            async with door.opened(path, headers_of(context)):
                return await method(body, context)
    except Exception as error:
        told = refused(error)
    metadata: tuple[tuple[str, str], ...] = ()
    if told.retry_after is not None:
        metadata = (("grpc-retry-pushback-ms", str(round(1000 * told.retry_after))),)
    await context.abort(code_of(told.status), told.message[:NO_ROOM], metadata)
    raise AssertionError("abort raises")


# ---------------------------------------------------------------- messages
def _read(name: str, body: bytes) -> Any:
    try:
        return parsed(message(name), body)
    except ProtocolError as error:
        raise InputError(error.message) from None


def _written(kind: str, /, **fields: Any) -> bytes:
    written: bytes = message(kind)(**fields).SerializeToString()
    return written
