"""What the Open Inference Protocol speaks of: requests, responses, and what models and servers say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiaas_sdk.flow import Buffer
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import Tensor

__all__ = [
    "HALVES",
    "InferRequest",
    "InferResponse",
    "Message",
    "ModelMetadata",
    "RequestedOutput",
    "ServerMetadata",
]

HALVES = ("FP16", "BF16")  # no portable JSON form: Triton refuses both, KServe doesn't know BF16


@dataclass(slots=True)
class Message:
    """Headers, and a body in parts that follow one another; tensors' parts are views of their memory."""

    headers: dict[str, str]
    body: tuple[Buffer, ...]


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output asked for by name.

    Attributes:
        binary: its own wish, None where it has none.
        classes: so many of its best classes are wanted in its place; 0 for the output itself.
    """

    name: str
    binary: bool | None = None
    classes: int = 0


@dataclass(slots=True, kw_only=True)
class InferRequest:
    """A decoded request. `outputs` None means all; `speaks_binary`: it used the binary extension itself."""

    id: str | None = None
    inputs: dict[str, Tensor]
    outputs: list[RequestedOutput] | None = None
    binary_default: bool | None = None
    speaks_binary: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def wants_binary(self, name: str, datatype: str) -> bool:
        """Whether an output travels as bytes: its own flag, else the request's, else as the request came.

        FP16 and BF16, which have no portable JSON form, go as bytes to whoever speaks binary.
        """
        wish = self.binary_default
        for output in self.outputs or ():
            if output.name == name:
                wish = wish if output.binary is None else output.binary
                break
        return datatype in HALVES and self.speaks_binary if wish is None else wish


@dataclass(slots=True, kw_only=True)
class InferResponse:
    """A response: who answered, the request's id, the outputs by name in the order of the wire."""

    model_name: str
    model_version: str | None = None
    id: str | None = None
    outputs: Mapping[str, Tensor]
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetadata:
    """What a server says of a model."""

    name: str
    versions: tuple[str, ...] = ()
    platform: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMetadata:
    """What a server says of itself; `extensions` has "binary_tensor_data" where tensors may be bytes."""

    name: str
    version: str = ""
    extensions: tuple[str, ...] = ()
