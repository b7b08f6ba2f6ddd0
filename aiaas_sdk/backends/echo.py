"""`echo:` gives the inputs back as outputs: the reference backend, for tests and for trying things out.

`echo:?x=FP32[-1,3]&mask=BOOL[-1]` declares a signature; `echo:` alone takes any names, shapes and datatypes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from aiaas_sdk.backends.base import LocalBackend
from aiaas_sdk.errors import AddressError
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import DATATYPES, Tensor

_SPEC = re.compile(r"([A-Za-z_][\w.-]*)=([A-Z0-9]+)\[((?:-1|\d+)(?:,(?:-1|\d+))*)?\]")


class EchoBackend(LocalBackend):
    """The outputs are the inputs."""

    scheme = "echo"

    def prepare(self) -> None:
        _signature(self.address.target)

    def open(self) -> ModelInfo:
        specs = _signature(self.address.target)
        return ModelInfo(
            name="echo", version="1", versions=("1",), inputs=specs, outputs=specs, verbs=self.verbs(), platform="echo"
        )

    def predict(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, Tensor]:
        return {name: inputs[name] for name in outputs or inputs}


def _signature(target: str) -> tuple[TensorSpec, ...]:
    text = target.removeprefix("?")
    if not text:
        return ()
    return tuple(_spec(part) for part in text.split("&"))


def _spec(text: str) -> TensorSpec:
    match = _SPEC.fullmatch(text)
    if match is None or match[2] not in DATATYPES:
        raise AddressError(f"echo: can't read {text!r}", hint="Write NAME=DATATYPE[shape], as in echo:?x=FP32[-1,3]")
    shape = tuple(int(size) for size in match[3].split(",")) if match[3] else ()
    return TensorSpec(match[1], match[2], shape)


@hookimpl
def aiaas_backend(scheme: str) -> type[EchoBackend]:
    return EchoBackend
