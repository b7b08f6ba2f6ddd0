"""The model of the fault server when nothing is wrong: y = 2 x, over the Open Inference Protocol v2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
from pydantic_core import to_json

from aiaas_sdk.errors import AiaasError
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.testing.fault_log import Seen
from aiaas_sdk.wire import oip

__all__ = ["Answer", "Doubling", "Fields", "verb_of"]

Fields = Mapping[str, str] | Iterable[tuple[str, str]]

_PATHS = (
    (re.compile(r"/v2/?"), "server"),
    (re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?"), "metadata"),
    (re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/ready"), "ready"),
    (re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer"), "predict"),
)


def verb_of(path: str) -> str:
    """What a path asks for: "server", "metadata", "ready", "predict", else "other"."""
    return next((verb for pattern, verb in _PATHS if pattern.fullmatch(path)), "other")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, to be sent whole or in parts. `fields` may hold a name twice."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    @classmethod
    def of(cls, status: int, body: Any, headers: Fields = ()) -> Answer:
        """An answer of text, bytes, or anything that JSON can hold. `headers` replace ours of the same name."""
        kind, data = _body(body)
        return cls(status, (("content-type", kind),) if data else (), data).with_fields(headers)

    def with_fields(self, headers: Fields) -> Answer:
        """With these fields instead of those of the same name."""
        given = tuple(headers.items() if isinstance(headers, Mapping) else headers)
        names = {name.lower() for name, _ in given}
        kept = tuple(pair for pair in self.fields if pair[0].lower() not in names)
        return Answer(self.status, (*kept, *given), self.body)

    def header(self, name: str) -> str | None:
        return next((value for field, value in self.fields if field.lower() == name), None)

    def head(self) -> bytes:
        """Its head, with the body's length unless the fields have one."""
        return self._lines(("content-length", str(len(self.body))))

    def chunked_head(self) -> bytes:
        """Its head where the body follows in chunks."""
        return self._lines(("transfer-encoding", "chunked"))

    def _lines(self, framing: tuple[str, str]) -> bytes:
        names = {name.lower() for name, _ in self.fields}
        fields = self.fields if names & {"content-length", "transfer-encoding"} else (*self.fields, framing)
        lines = [f"HTTP/1.1 {self.status} {_phrase(self.status)}", *(f"{name}: {value}" for name, value in fields)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _body(body: Any) -> tuple[str, bytes]:
    if isinstance(body, bytes):
        return "application/octet-stream", body
    if isinstance(body, str):
        return "text/plain", body.encode()
    return "application/json", to_json(body)


class Doubling:
    """One model with the input x and the output y, of the same datatype and shape.

    Booleans are given back, texts come twice over ("a" is "aa"), integers wrap round.
    """

    def __init__(self, name: str, datatype: str, shape: Sequence[int], binary: bool) -> None:
        self.name = name
        self._extensions = ("binary_tensor_data",) if binary else ()
        self._x, self._y = (TensorSpec(tensor, datatype, tuple(shape)) for tensor in "xy")

    def answer(self, seen: Seen) -> Answer:
        """The right answer to a request."""
        if seen.verb == "server":
            described = oip.ServerMetadata(name="faults", version="1", extensions=self._extensions)
            return _json(oip.encode_server(described))
        if not seen.method:
            return Answer.of(400, {"error": "this is no HTTP"}, {"connection": "close"})
        if seen.verb == "other" or f"/models/{self.name}" not in seen.path:
            return Answer.of(404, {"error": f"there is nothing at {seen.path}"})
        if seen.verb == "ready":
            return Answer.of(200, {"name": self.name, "ready": True})
        if seen.verb == "metadata":
            return _json(oip.encode_metadata(self._metadata()))
        return self._doubled(seen)

    def _metadata(self) -> oip.ModelMetadata:
        return oip.ModelMetadata(
            name=self.name, versions=("1",), platform="faults", inputs=(self._x,), outputs=(self._y,)
        )

    def _doubled(self, seen: Seen) -> Answer:
        try:
            request = oip.decode_request(seen.headers, seen.body, specs=(self._x,))
            x = request.inputs["x"]
        except (AiaasError, KeyError) as error:
            return Answer.of(400, {"error": str(error)})
        y = Tensor(x.datatype, _twice(x))
        message = oip.encode_response(
            oip.InferResponse(model_name=self.name, model_version="1", outputs={"y": y}), request
        )
        return Answer(200, tuple(message.headers.items()), b"".join(message.body))


def _json(body: bytes) -> Answer:
    return Answer(200, (("content-type", "application/json"),), body)


def _twice(tensor: Tensor) -> Any:
    if tensor.datatype != "BF16":
        return tensor.array + tensor.array
    wide = (tensor.array.astype(np.uint32) << 16).view(np.float32)  # bfloat16 is the upper half of a float32
    return ((wide + wide).view(np.uint32) >> 16).astype(np.uint16)
