"""A model for tests of batching, as an installed backend: `lab:`. It keeps what it was asked, and does what rows say.

Its input `x` is FP32 [-1, 2], a row is (identity, mood), and its answer `y` is twice the row; `n` is how many rows
its pass had. The moods:

    above 0   seconds that the pass takes
    -1 raises   -2 leaves the process   -3 has no memory   -4 forgets a row
    -5 is interrupted
    -10 waits until the test lets it go on (`GATE`)
    -6 answers with another datatype   -7 with another width   -8 with NaN   -9 with nothing

Words of the address, with commas: `free` takes other widths, `fixed` one row only, `three` no more than 3 rows,
`ones` no zeros.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np

from aiaas_sdk.backends.base import LocalBackend
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.observing import passed_on
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import Tensor

PASSES: list[np.ndarray] = []
"""What came in, pass by pass."""
GATE = threading.Event()
"""Set, where a row that waits may go on."""
TRACES: list[str | None] = []
"""The trace that each pass belonged to."""


class LabBackend(LocalBackend):
    scheme = "lab"

    def open(self) -> ModelInfo:
        words = self.address.target.split(",")
        rows, width = 1 if "fixed" in words else -1, -1 if "free" in words else 2
        return ModelInfo(
            name="lab",
            version="1",
            versions=("1",),
            inputs=(TensorSpec("x", "FP32", (rows, width)),),
            outputs=(TensorSpec("y", "FP32", (rows, width)), TensorSpec("n", "INT64", (rows,))),
            verbs=self.verbs(),
            platform="lab",
            metadata={"max_batch_size": 3} if "three" in words else {},
        )

    def predict(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, Tensor]:
        x = inputs["x"].array
        PASSES.append(x)
        TRACES.append(passed_on().get("traceparent"))
        if "ones" in self.address.target and not x.all():
            raise ValueError("a zero")
        moods = set(x[:, 1].tolist()) if x.shape[1] == 2 else set()
        _obey(moods)
        y = (2 * x).astype(np.float32)
        answer = {
            "y": Tensor("FP32", y[:-1] if -4 in moods else y),
            "n": Tensor("INT64", np.full(len(x), len(x), np.int64)),
        }
        answer.update(_wrong(moods, y))
        if -9 in moods:
            return None  # type: ignore[return-value]
        return {name: answer[name] for name in outputs or answer}


def _wrong(moods: set[float], y: np.ndarray) -> dict[str, Tensor]:
    if -6 in moods:
        return {"y": Tensor("INT64", y.astype(np.int64))}
    if -7 in moods:
        return {"y": Tensor("FP32", np.repeat(y, 2, axis=1))}
    if -8 in moods:
        return {"y": Tensor("FP32", np.full_like(y, np.nan))}
    return {}


def _obey(moods: set[float]) -> None:
    time.sleep(max(0.0, 0.0, *moods))
    if -10 in moods:
        GATE.wait(20)
    if -1 in moods:
        raise RuntimeError("a bad row")
    if -2 in moods:
        sys.exit("gone")
    if -3 in moods:
        raise MemoryError
    if -5 in moods:
        raise KeyboardInterrupt


@hookimpl
def aiaas_backend(scheme: str) -> type[LabBackend]:
    return LabBackend
