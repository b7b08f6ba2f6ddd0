"""Small ONNX models, made by hand: what PyTorch has nothing to do with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

ELEMENTS = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "FP16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16, "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE, "BYTES": TensorProto.STRING,
}  # fmt: skip


def value(name: str, datatype: str, shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, ELEMENTS[datatype], shape)


def model(nodes: Any, inputs: Any, outputs: Any, weights: Any = (), **metadata: str) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(weights))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(made, metadata)
    return made


def identity(datatype: str = "FP32", shape: Any = ("rows", 3), **metadata: str) -> onnx.ModelProto:
    ends = [value("x", datatype, shape)], [value("y", datatype, shape)]
    return model([helper.make_node("Identity", ["x"], ["y"])], *ends, **metadata)


def affine(width: int = 3, classes: int = 4) -> onnx.ModelProto:
    """y = x @ w + b, with weights that are easy to know again."""
    weights = np.arange(width * classes, dtype=np.float32).reshape(width, classes)
    bias = np.linspace(-1, 1, classes, dtype=np.float32)
    return model(
        [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])],
        [value("x", "FP32", ["rows", width])],
        [value("y", "FP32", ["rows", classes])],
        [onnx.numpy_helper.from_array(weights, "w"), onnx.numpy_helper.from_array(bias, "b")],
    )


@pytest.fixture(scope="session")
def graphs() -> SimpleNamespace:
    """What makes models, for tests (test files can't import one another)."""
    return SimpleNamespace(ELEMENTS=ELEMENTS, affine=affine, identity=identity, model=model, value=value)


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., str]:
    """Writes a model into a file of the test's own, and gives its address."""

    def put(made: onnx.ModelProto, name: str = "model.onnx", **how: Any) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save_model(made, path, **how)
        return f"onnx:{path}"

    return put
