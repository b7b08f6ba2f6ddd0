"""Models behind an endpoint of the Open Inference Protocol v2 over gRPC: Triton, MLServer, KServe, `aiaas serve`."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import unquote

from aiaas_grpc.channels import Channels
from aiaas_grpc.codec import LARGEST, decode_metadata, decode_response, encode_request, parsed
from aiaas_grpc.failures import CODE
from aiaas_grpc.messages import SERVICE, message
from aiaas_grpc.rpc import Rpc
from aiaas_sdk.address import strays
from aiaas_sdk.backends.base import RemoteBackend
from aiaas_sdk.errors import (
    AddressError,
    AiaasError,
    ConfigError,
    DeadlineExceededError,
    ModelNotFoundError,
    PayloadTooLargeError,
    StatusError,
    UnsupportedOperationError,
)
from aiaas_sdk.flow import Buffer, Effect, Flow, Reply, Request
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.transport.origin import origin_of
from aiaas_sdk.wire.status import clean

__all__ = ["GrpcBackend", "aiaas_backend"]

MAX_WORDS = 1_000
"""Characters of a peer's words in an error."""
_TARGET = re.compile(r"(https?://[^/]+)(?:/v2)?(?:/models/([^/]+))?/?")


class GrpcBackend(RemoteBackend):
    """One model of one server."""

    scheme = "grpc"
    options_taken: ClassVar[frozenset[str]] = frozenset(("api_key", "headers", "model", "network"))

    def __init__(self, address: Any, options: Mapping[str, Any]) -> None:
        super().__init__(address, options)
        self._ids = (f"{prefix}-{n}" for prefix in (secrets.token_hex(4),) for n in itertools.count(1))

    def prepare(self) -> None:
        """The address, or the option `model`, must name a model."""
        found = _TARGET.fullmatch(self.address.target)
        if found is None:
            raise AddressError(f"{self.address} has a path that isn't a model's", hint=_FORM)
        name = unquote(found[2]) if found[2] else self.options.get("model", "")
        if not name:
            raise AddressError(f"{self.address} names no model", hint=f"{_FORM}, or give model=NAME")
        if strays(name):
            raise AddressError("the name of the model holds '.', '..' or control characters, or is too long")
        network = self.options.get("network")
        if network is not None and network.transport is not None:
            raise ConfigError("network.transport carries HTTP, and this address means gRPC", hint="Leave it out")
        self._base, self._model = found[1], name
        self._channels = Channels(origin_of(found[1]), network)

    # ------------------------------------------------------------ opening
    def opening(self, call: Call) -> Flow[ModelInfo]:
        reply = yield from self._ask(call, "ModelMetadata", _named("ModelMetadata", self._model, self._version))
        found = decode_metadata(bytes(reply.body))
        labels = found.parameters.get("labels")
        device = found.parameters.get("device")
        return ModelInfo(
            name=found.name,
            version=self.address.version or (found.versions[-1] if found.versions else None),
            versions=found.versions,
            inputs=found.inputs,
            outputs=found.outputs,
            verbs=self.verbs(),
            labels=tuple(map(str, labels)) if isinstance(labels, list) else None,
            platform=found.platform,
            device=device if isinstance(device, str) else None,
            metadata=found.parameters,
        )

    def readiness(self, call: Call) -> Flow[bool]:
        """Triton answers false for a model that isn't ready, others say NOT_FOUND or UNAVAILABLE."""
        try:
            reply = yield from self._ask(call, "ModelReady", _named("ModelReady", self._model, self._version))
        except (StatusError, ModelNotFoundError) as error:
            if error.status in (400, 404, 503):
                return False
            raise
        return bool(parsed(message("inference.ModelReadyResponse"), bytes(reply.body)).ready)

    @property
    def _version(self) -> str:
        return self.address.version or ""

    # ------------------------------------------------------------ predict
    def predict(self, call: Call, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Flow[Mapping[str, Tensor]]:
        call.request_id = next(self._ids)
        body = encode_request(
            self._model,
            self._version,
            inputs,
            outputs=outputs,
            id=call.request_id,
            parameters={"timeout": _microseconds(call)},
        )
        reply = yield from self._ask(call, "ModelInfer", *body)
        answer = decode_response(bytes(reply.body), outputs=outputs, id=call.request_id)
        call.version = answer.model_version
        return answer.outputs

    # ------------------------------------------------------------ calls
    def _ask(self, call: Call, method: str, *body: Buffer) -> Flow[Reply]:
        return self.send(call, Request("POST", f"{self._base}/{SERVICE}/{method}", body=body))

    def effect(self, request: Request, timeout: float | None) -> Effect:
        """In place of HTTP's."""
        return Rpc(self._channels, request, timeout)

    def refused(self, call: Call, reply: Reply) -> AiaasError:
        """As over HTTP, in gRPC's words."""
        error = super().refused(call, reply)
        if isinstance(error, DeadlineExceededError):
            return error
        words = clean(bytes(reply.body).decode("utf-8", "replace"), MAX_WORDS)
        error.message = f"the server answered {reply.headers[CODE]}" + (f": {words}" if words else "")
        error.args = (error.message,)
        if isinstance(error, PayloadTooLargeError):
            error.hint = f"That is the peer's limit (max_receive_message_length); this side sends up to {LARGEST} bytes"
        if reply.status != 501:
            return error
        return UnsupportedOperationError(
            error.message, hint="Is it a server of the Open Inference Protocol, and no decoupled model", status=501
        )

    def close(self) -> None:
        self._channels.close()


_FORM = "Write grpc://HOST:PORT/models/NAME, with TLS grpcs://"


def _named(method: str, model: str, version: str) -> bytes:
    written: bytes = message(f"inference.{method}Request")(name=model, version=version).SerializeToString()
    return written


def _microseconds(call: Call) -> int | None:
    """How long the request may wait (Triton's schedule policy extension); 0 would be no limit."""
    return None if call.deadline is None else max(1, int(1e6 * (call.deadline - time.monotonic())))


@hookimpl
def aiaas_backend(scheme: str) -> type[GrpcBackend]:
    return GrpcBackend
