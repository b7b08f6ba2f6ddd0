"""Models behind an endpoint of the Open Inference Protocol v2: Triton, MLServer, KServe.

Tensors travel as raw bytes (binary extension) where the server announces it; KServe takes it without saying so.
Everything else goes as JSON.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote, unquote, urlsplit

from aiaas_sdk.address import strays
from aiaas_sdk.backends.training import Endpoint, Trained
from aiaas_sdk.errors import (
    AddressError,
    InputError,
    InvalidRequestError,
    ModelNotFoundError,
    ServerError,
    StatusError,
)
from aiaas_sdk.flow import Flow, Request
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.explanation import Explained, Question
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.wire import explanations, oip
from aiaas_sdk.wire.jobs import TRAINING
from aiaas_sdk.wire.layouts import Layouts

BINARY = "binary_tensor_data"


class OipBackend(Trained):
    """One model of one server."""

    scheme = "oip"
    options_taken: ClassVar[frozenset[str]] = frozenset(("api_key", "headers", "model", "network"))
    explain_rows: ClassVar[int] = explanations.ROWS

    def __init__(self, address: Any, options: Mapping[str, Any]) -> None:
        super().__init__(address, options)
        self._binary = self._json_fp16 = self._explains = False
        self._max_rows: int | None = None
        self._network = options.get("network")
        # of one length, so that a model's requests and answers of one shape have heads of the same bytes
        self._ids = map(f"{secrets.token_hex(4)}-{{:08x}}".format, itertools.count(1))
        self._layouts = Layouts()

    def prepare(self) -> None:
        """The address, or the option `model`, must name a model."""
        self._server, self._model = self._located()

    def _located(self) -> tuple[str, str]:
        base, mark, name = self.address.target.rpartition("/v2/models/")
        name = name if mark else self.options.get("model", "")
        if not name:
            raise AddressError(f"{self.address} names no model", hint=_hint(self.address.target))
        if not mark and strays(name):
            raise AddressError("the option model holds '.', '..' or control characters, or is too long")
        server = base if mark else self.address.target.rstrip("/")
        url = f"{server}/v2/models/{name if mark else quote(name, safe='')}"
        return server, f"{url}/versions/{self.address.version}" if self.address.version else url

    # ------------------------------------------------------------ opening
    def opening(self, call: Call) -> Flow[ModelInfo]:
        server = yield from self._ask_server(call)
        reply = yield from self.send(call, self._get(self._model))
        found = oip.decode_metadata(reply.body)
        self._binary = BINARY in server.extensions or server.name == "kserve"
        self._json_fp16 = server.name == "mlserver"
        self._explains = explanations.EXTENSION in server.extensions
        rows = found.parameters.get("max_batch_size")
        self._max_rows = rows if isinstance(rows, int) and rows > 0 else None
        labels = found.parameters.get("labels")
        trains = TRAINING in server.extensions and found.parameters.get(TRAINING) is True
        return ModelInfo(
            name=found.name,
            version=self.address.version or (found.versions[-1] if found.versions else None),
            versions=found.versions,
            inputs=found.inputs,
            outputs=found.outputs,
            verbs=self.verbs() - ({"explain"} if trains else {"explain", "fit"}),  # the signature decides the first
            labels=tuple(map(str, labels)) if isinstance(labels, list) else None,
            platform=found.platform,
            device=_text(found.parameters.get("device")),
            metadata=found.parameters,
        )

    def _ask_server(self, call: Call) -> Flow[oip.ServerMetadata]:
        """What the server can; one that doesn't say (404, 501) is taken to speak JSON only."""
        try:
            reply = yield from self.send(call, self._get(f"{self._server}/v2"))
        except (ModelNotFoundError, StatusError, ServerError) as error:
            if error.status in (404, 405, 501):
                return oip.ServerMetadata(name="")
            raise
        return oip.decode_server(reply.body)

    def readiness(self, call: Call) -> Flow[bool]:
        """Triton says 400 for a model that isn't ready, KServe 503, MLServer 404."""
        try:
            yield from self.send(call, self._get(f"{self._model}/ready"))
        except (StatusError, ModelNotFoundError) as error:
            if error.status in (400, 404, 503):
                return False
            raise
        return True

    # ------------------------------------------------------------ predict
    def predict(self, call: Call, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Flow[Mapping[str, Tensor]]:
        self._check_rows(inputs)
        asked = list(outputs) or None
        call.request_id = next(self._ids)
        message = oip.encode_request(
            inputs,
            outputs=asked,
            binary=self._binary,
            id=call.request_id,
            parameters=self._limit(call),
            json_fp16=self._json_fp16,
        )
        url = f"{self._model}/infer"
        request = Request("POST", url, message.headers, message.body, align=oip.HEADER_LENGTH, network=self._network)
        reply = yield from self.send(call, request)
        answer = oip.decode_response(
            reply.headers, reply.body, outputs=asked, id=call.request_id, layouts=self._layouts
        )
        call.version = answer.model_version
        return answer.outputs

    def _check_rows(self, inputs: Mapping[str, Tensor]) -> None:
        rows = max((tensor.shape[0] for tensor in inputs.values() if tensor.shape), default=0)
        if self._max_rows is not None and rows > self._max_rows:
            raise InputError(f"{rows} rows, and {self.address} takes {self._max_rows} at once", hint="Send fewer rows")

    def _limit(self, call: Call) -> Mapping[str, int] | None:
        """How long the request may wait, in microseconds (Triton's schedule policy extension); 0 would be no limit."""
        if call.deadline is None:
            return None
        return {"timeout": max(1, int(1e6 * (call.deadline - time.monotonic())))}

    # ------------------------------------------------------------ explain
    def lacks(self, method: str) -> str | None:
        """Nothing where the server announces our extension; any other is asked for predictions."""
        return None if self._explains else super().lacks(method)

    def explain(self, call: Call, question: Question) -> Flow[Explained]:
        call.request_id = next(self._ids)
        message = explanations.encode_question(question, binary=self._binary, id=call.request_id)
        url = f"{self._model}/explain"
        request = Request("POST", url, message.headers, message.body, align=oip.HEADER_LENGTH, network=self._network)
        try:
            reply = yield from self.send(call, request)
        except InvalidRequestError as error:  # the arrays fit: it is the method, the target or the number of rows
            raise InputError(error.message, hint=error.hint, status=error.status) from None
        found, call.version = explanations.decode_answer(reply.headers, reply.body, id=call.request_id)
        return found

    # ------------------------------------------------------------ fit
    def endpoint(self) -> Endpoint:
        """OpenAI's paths stand beside those of the protocol."""
        address = self._model.partition("/versions/")[0]
        name = unquote(address.rpartition("/v2/models/")[2])
        version = self.address.version
        return Endpoint(f"{self._server}/v1", f"{name}@{version}" if version else name, f"oip+{address}")

    # ------------------------------------------------------------ requests
    def _get(self, url: str) -> Request:
        return Request("GET", url, network=self._network)


def _hint(url: str) -> str:
    """What the address should be; below /v1 is mostly another protocol."""
    path = urlsplit(url).path
    if path == "/v1" or path.startswith("/v1/"):
        return "For OpenAI's API write openai+https://HOST/v1#MODEL; for this protocol https://HOST/v2/models/NAME"
    return "Write https://HOST/v2/models/NAME, or give model=NAME"


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


@hookimpl
def aiaas_backend(scheme: str) -> type[OipBackend]:
    return OipBackend
