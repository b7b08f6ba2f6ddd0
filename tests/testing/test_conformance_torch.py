"""PyTorch models here keep their promises: one of tensors, and one of text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.testing.conformance import Conformance, Subject

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
DATATYPES = ("BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64")
TOO_MUCH = 66666.5


@aiaas.architecture("conformance-doubling")
class Doubling(torch.nn.Module):
    """y = 2 x, and what isn't a number but a truth stays as it is."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.config = {"seconds": seconds}

    def forward(self, x: Any) -> Any:
        time.sleep(self.seconds)
        if x.dtype == torch.float32 and bool((x == TOO_MUCH).any()):
            raise ValueError("too much")
        return {"y": x | x if x.dtype == torch.bool else x + x}


def doubled(inputs: Any) -> Any:
    return {"y": inputs["x"] if inputs["x"].dtype == np.bool_ else inputs["x"] + inputs["x"]}


def made(folder: Path, name: str, datatype: str, columns: int, seconds: float = 0.0) -> str:
    with aiaas.create(
        f"torch:{folder / name}",
        architecture="conformance-doubling",
        config={"seconds": seconds},
        inputs={"x": (datatype, (-1, columns))},
    ):
        return f"torch:{folder / name}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIAAS_HOME", str(tmp_path_factory.mktemp("home")))
        yield tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def subject(folder: Path) -> Subject:
    return Subject(
        made(folder, "main", "FP32", 3),
        reference=doubled,
        datatypes={name: made(folder, name, name, 2) for name in DATATYPES},
        failing={"x": np.array([[1, TOO_MUCH, 1]], np.float32)},
        slow=made(folder, "slow", "FP32", 3, 0.6),
        absent=f"torch:{folder / 'nothing'}",
    )


class TestTensors(Conformance):
    pass
