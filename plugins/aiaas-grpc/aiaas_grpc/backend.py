"""Models behind an endpoint of the Open Inference Protocol v2 over gRPC: Triton, MLServer, KServe, `aiaas serve`."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar
from urllib.parse import unquote

from aiaas_grpc.channels import Channels
from aiaas_grpc.codec import LARGEST, decode_metadata, decode_response, encode_request, parsed
from aiaas_grpc.failures import CODE
from aiaas_grpc.hearing import Opened
from aiaas_grpc.listening import answered_once, spoken
from aiaas_grpc.messages import SERVICE, message
from aiaas_grpc.rpc import Rpc
from aiaas_grpc.texts import KNOWN_VERBS, SPEAKING_INPUTS, SPEAKING_OUTPUTS, TextForm
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
from aiaas_sdk.records.chat import Chat, Spoken
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.transport.origin import origin_of
from aiaas_sdk.wire.oip import InferResponse
from aiaas_sdk.wire.status import clean

__all__ = ["GrpcBackend", "aiaas_backend"]

T = TypeVar("T")
SPEAKING = frozenset(("generate", "stream"))
VERBS = frozenset(("predict", *SPEAKING))
MAX_WORDS = 1_000
"""Characters of a peer's words in an error."""
_TARGET = re.compile(r"(https?://[^/]+)(?:/v2)?(?:/models/([^/]+))?/?")


class GrpcBackend(RemoteBackend):
    """One model of one server."""

    scheme = "grpc"
    options_taken: ClassVar[frozenset[str]] = frozenset(("api_key", "headers", "model", "network"))

    def __init__(self, address: Any, options: Mapping[str, Any]) -> None:
        super().__init__(address, options)
        self._verbs: frozenset[str] | None = None
        self._form: TextForm | None = None
        self._decoupled = False
        self._ids = (f"{prefix}-{n}" for prefix in (secrets.token_hex(4),) for n in itertools.count(1))

    def verbs(self) -> frozenset[str]:  # type: ignore[override]  # of this model, once it is open
        return VERBS if self._verbs is None else self._verbs

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
        facts = {name: value for name, value in found.parameters.items() if name != KNOWN_VERBS}
        info = ModelInfo(
            name=found.name,
            version=self.address.version or (found.versions[-1] if found.versions else None),
            versions=found.versions,
            inputs=found.inputs,
            outputs=found.outputs,
            verbs=frozenset(("predict",)),
            labels=tuple(map(str, labels)) if isinstance(labels, list) else None,
            platform=found.platform,
            device=device if isinstance(device, str) else None,
            metadata=facts,
        )
        return self._speaking(info, found.parameters.get(KNOWN_VERBS))

    def _speaking(self, info: ModelInfo, told: Any) -> ModelInfo:
        """The model with its verbs: those that the server tells, as ours does, or what its signature lets it do."""
        if isinstance(told, list):
            can = VERBS & set(map(str, told))
            speaks = bool(can & SPEAKING)
            self._form = TextForm(SPEAKING_INPUTS, [spec.name for spec in SPEAKING_OUTPUTS]) if speaks else None
        else:
            self._form = TextForm.of(info)
            can = VERBS if self._form is not None else VERBS - SPEAKING
        self._verbs = can
        return replace(info, verbs=can)

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

    def start(self, call: Call, *arguments: Any) -> Flow[Any]:
        if call.verb not in self.verbs():
            raise self.unsupported(call.verb)
        return super().start(call, *arguments)

    # ------------------------------------------------------------ predict
    def predict(self, call: Call, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Flow[Mapping[str, Tensor]]:
        body = self._request(call, inputs, outputs, {})
        if not self._decoupled:
            try:
                reply = yield from self._ask(call, "ModelInfer", *body)
                return self._given(call, decode_response(bytes(reply.body), outputs=outputs, id=call.request_id or ""))
            except UnsupportedOperationError as error:
                if "decoupled" not in error.message:
                    raise
                self._decoupled = True  # ModelInfer is never answered by such a model
        return self._given(call, (yield from self._listen(call, body, answered_once(call, self.refused))))

    def _given(self, call: Call, answer: InferResponse) -> Mapping[str, Tensor]:
        call.version = answer.model_version
        return answer.outputs

    # ------------------------------------------------------------ text
    def generate(self, call: Call, chat: Chat) -> Flow[Spoken]:
        return self._spoken(call, chat, emit=False)

    def stream(self, call: Call, chat: Chat) -> Flow[Spoken]:
        return self._spoken(call, chat, emit=True)

    def _spoken(self, call: Call, chat: Chat, *, emit: bool) -> Flow[Spoken]:
        assert self._form is not None
        inputs, parameters = self._form.asked(chat, streamed=emit)
        body = self._request(call, inputs, self._form.outputs, parameters)
        return self._listen(call, body, spoken(call, chat, self.refused, emit=emit))

    # ------------------------------------------------------------ calls
    def _request(
        self, call: Call, inputs: Mapping[str, Tensor], outputs: Sequence[str], parameters: Mapping[str, Any]
    ) -> tuple[Buffer, ...]:
        call.request_id = next(self._ids)
        return encode_request(
            self._model,
            self._version,
            inputs,
            outputs=outputs,
            id=call.request_id,
            parameters={**parameters, "timeout": _microseconds(call)},
        )

    def _listen(self, call: Call, body: tuple[Buffer, ...], consume: Callable[[Reply], Flow[T]]) -> Flow[T]:
        return self.open_stream(call, Request("POST", f"{self._base}/{SERVICE}/ModelStreamInfer", body=body), consume)

    def _ask(self, call: Call, method: str, *body: Buffer) -> Flow[Reply]:
        return self.send(call, Request("POST", f"{self._base}/{SERVICE}/{method}", body=body))

    def effect(self, request: Request, timeout: float | None) -> Effect:
        """In place of HTTP's."""
        return Rpc(self._channels, request, timeout)

    def opened(self, request: Request, timeout: float | None) -> Effect:
        """In place of HTTP's."""
        return Opened(self._channels, request, timeout)

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
            error.message, hint="Is it a server of the Open Inference Protocol, with this method?", status=501
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
