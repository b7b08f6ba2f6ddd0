"""The conformance suite, on a model of each datatype."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from aiaas_sdk.testing.conformance import Conformance, Subject


@pytest.fixture(scope="module")
def subject(graphs: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("onnx")

    def put(name: str, made: onnx.ModelProto) -> str:
        onnx.save_model(made, folder / name)
        return f"onnx:{folder / name}"

    return Subject(
        put("x.onnx", graphs.identity(shape=("rows", 3))),
        reference=lambda inputs: {"y": inputs["x"]},
        datatypes={name: put(f"{name}.onnx", graphs.identity(name)) for name in graphs.ELEMENTS},
        absent=f"onnx:{folder / 'nothing.onnx'}",
        slow=put("slow.onnx", slow(graphs)),
        exempt={"BYTES_not_text_is_carried": "a string of ONNX is UTF-8"},
    )


def slow(graphs: SimpleNamespace) -> onnx.ModelProto:
    """Adds 0 to its input a great many times, in a loop of ONNX."""
    value = graphs.value
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["a", "zero"], ["b"])],
        "body",
        [value("i", "INT64", []), value("go", "BOOL", []), value("a", "FP32", None)],
        [value("on", "BOOL", []), value("b", "FP32", None)],
        [onnx.numpy_helper.from_array(np.zeros((), np.float32), "zero")],
    )
    weights: list[Any] = [
        onnx.numpy_helper.from_array(np.array(TURNS), "turns"),
        onnx.numpy_helper.from_array(np.array(True), "go"),
    ]
    node = helper.make_node("Loop", ["turns", "go", "x"], ["y"], body=body)
    ends = [value("x", "FP32", ["rows", 3])], [value("y", "FP32", ["rows", 3])]
    return graphs.model([node], *ends, weights)


TURNS = 250_000
"""More than half a second."""


@pytest.mark.slow
class TestOnnx(Conformance):
    pass
