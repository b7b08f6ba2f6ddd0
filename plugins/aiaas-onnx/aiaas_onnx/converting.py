"""From an exported program to ONNX."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch

from aiaas_onnx.sources import Source
from aiaas_sdk.errors import BackendNotInstalledError, UnsupportedOperationError

__all__ = ["LARGEST", "MODEL", "WEIGHTS", "convert", "size_of", "write"]

MODEL, WEIGHTS = "model.onnx", "model.onnx.data"
LARGEST = (1 << 31) - (1 << 24)
"""Bytes of weights that fit into one file, whose format (protobuf) ends at 2 GiB; the graph needs some, too."""


def convert(source: Source) -> onnx.ModelProto:
    """The model in memory, with the bundle's labels, name and digest as its metadata.

    Raises:
        UnsupportedOperationError: something in it has no form in ONNX. BackendNotInstalledError: onnxscript is missing.
    """
    try:
        with _quiet():
            made: Any = torch.onnx.export(source.program, dynamo=True, verbose=False)
    except ModuleNotFoundError as error:
        raise BackendNotInstalledError(
            f"exporting needs the package {error.name}", hint='Install it: pip install "aiaas-onnx[export]"'
        ) from None
    except Exception as error:
        raise UnsupportedOperationError(
            f"{source.address} can't be exported: {_first_line(error)}",
            hint="The original error is this one's __cause__; it names the operation",
        ) from error
    _name(made.model.graph, source)
    model: onnx.ModelProto = made.model_proto
    _strip(model)
    _describe(model, source)
    return model


def _name(graph: Any, source: Source) -> None:
    """Inputs and outputs by the signature's names. The exporter itself doesn't see that a value inside has one, too."""
    wanted = [tensor.name for tensor in (*source.manifest.inputs, *source.manifest.outputs)]
    for node in graph:
        for value in node.outputs:
            if value.name in wanted:
                value.name = f"{value.name}_inside"
    for value, name in zip((*graph.inputs, *graph.outputs), wanted, strict=True):
        value.name = name


@contextmanager
def _quiet() -> Iterator[None]:
    """What the exporter says of its own insides, and of libraries that it doesn't find, is nothing to a user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    """The innermost error says what it was; the exporter wraps it in advice."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0][:300]


def _strip(model: onnx.ModelProto) -> None:
    """Take out the notes of the exporter: they hold the source code of whoever exported, and the paths of it."""
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        for noted in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
            noted.ClearField("metadata_props")
            noted.ClearField("doc_string")
        graphs += [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    for function in model.functions:
        for noted in (function, *function.node):
            noted.ClearField("metadata_props")
            noted.ClearField("doc_string")
    model.ClearField("doc_string")


def _describe(model: onnx.ModelProto, source: Source) -> None:
    manifest = source.manifest
    told = {"name": manifest.name, "version": manifest.version, "exported_from": source.digest}
    if manifest.labels is not None:
        told["labels"] = json.dumps(manifest.labels, ensure_ascii=False)
    onnx.helper.set_model_props(model, told)


def size_of(model: onnx.ModelProto) -> int:
    """Bytes of its weights."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def write(model: onnx.ModelProto, folder: Path) -> None:
    """As `MODEL` in this folder, and beside it, where they are too large, its weights."""
    large = size_of(model) > LARGEST
    onnx.save_model(model, folder / MODEL, save_as_external_data=large, location=WEIGHTS if large else None)
