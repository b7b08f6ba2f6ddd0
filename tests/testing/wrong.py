"""A backend that keeps every promise, `right:`, and how to put a wrong one into its place.

It gives back what it gets, fails at the number 66666.5, and speaks and embeds as `echo:` does. `right:FP16` takes
FP16, and so on; `right:slow` takes 0.6 s; at `right:absent` there is no model, at `right:away` no peer.
"""

from __future__ import annotations

import sys
import threading
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from aiaas_sdk.backends.echo import EchoBackend
from aiaas_sdk.errors import ConnectError, ModelNotFoundError
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import DATATYPES, Tensor
from aiaas_sdk.testing.conformance import Subject

TOO_MUCH = 66666.5
X, N = TensorSpec("x", "FP32", (-1, 3)), TensorSpec("n", "INT64", (-1, 2))


class Right(EchoBackend):
    scheme = "right"

    def prepare(self) -> None:
        self.target = self.address.target

    def open(self) -> ModelInfo:
        if self.target == "absent":
            raise ModelNotFoundError("there is no such model")
        if self.target == "away":
            raise ConnectError("nobody listens")
        return ModelInfo(**self.said())

    def said(self) -> dict[str, Any]:
        """What it says of itself."""
        specs = (TensorSpec("x", self.target, (-1, 2)),) if self.target in DATATYPES else (X, N)
        return {
            "name": "right",
            "version": "1",
            "versions": ("1",),
            "inputs": specs,
            "outputs": specs,
            "verbs": self.verbs(),
        }

    def predict(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, Tensor]:
        if self.target == "slow":
            time.sleep(0.6)
        x = inputs["x"].array
        if self.target == "" and isinstance(x, np.ndarray) and (x == TOO_MUCH).any():
            raise RuntimeError("too much")
        return {name: self.answer(name, inputs[name]) for name in outputs or inputs}

    def answer(self, name: str, tensor: Tensor) -> Tensor:
        """One output."""
        return tensor

    @property
    def main(self) -> bool:
        """It is the model itself, not one of another datatype."""
        return self.target == ""


def off(tensor: Tensor) -> Tensor:
    """The tensor with its first element wrong."""
    array = tensor.array.copy() if isinstance(tensor.array, np.ndarray) else tensor.array.clone()
    if tensor.datatype == "BYTES":
        array.flat[0] = b"wrong"
    elif tensor.datatype == "BOOL":
        array.reshape(-1)[0] = not array.reshape(-1)[0]
    else:
        array.reshape(-1)[0] = 3 if array.reshape(-1)[0] != 3 else 5
    return Tensor(tensor.datatype, array)


def in_a_worker() -> bool:
    """Whether a model's own thread does the work: it is awaited, or has a deadline."""
    return threading.current_thread().name.startswith("aiaas-")


@contextmanager
def installed(folder: Path, cls: type[Any]) -> Iterator[None]:
    """The class serves `right:` for the length of a `with`, as if its package was installed."""
    module = types.ModuleType("right_plugin")
    module.aiaas_backend = hookimpl(lambda scheme: cls)  # type: ignore[attr-defined]
    info = folder / "aiaas_right-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: aiaas-right\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[aiaas_sdk.backends]\nright = right_plugin\n")
    sys.path.insert(0, str(folder))
    sys.modules["right_plugin"] = module
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        del sys.modules["right_plugin"]


def subject(**more: Any) -> Subject:
    """The right backend, with all that can be said of it but a slow model, which takes time."""
    return Subject(
        "right:",
        reference=lambda inputs: inputs,
        datatypes={name: f"right:{name}" for name in DATATYPES},
        failing={"x": np.array([[1, TOO_MUCH, 1]], np.float32), "n": np.zeros((1, 2), np.int64)},
        absent="right:absent",
        unreachable="right:away",
        **more,
    )
