"""An ONNX model's bytes, and those of the files beside it that hold its weights: nothing from elsewhere.

A model may say that a tensor lies in another file, by any path. onnxruntime is never left to open one: what is named
must be a plain file in the same folder, of a bundle one that the manifest lists, and goes over as memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
from google.protobuf.message import DecodeError

from aiaas_onnx.places import Place
from aiaas_sdk.bundle import digest_of
from aiaas_sdk.bundle.files import read_file, read_listed
from aiaas_sdk.errors import BundleError, UnsafeBundleError

__all__ = ["Loaded", "read"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The bytes of a model.

    Attributes:
        model: the ONNX file; beside: the files that its tensors lie in, by name.
        digest: of the bundle's manifest, or of the ONNX file where there is none.
        graph: the file, parsed.
    """

    model: bytes
    beside: Mapping[str, bytes]
    digest: str
    graph: onnx.ModelProto


def read(place: Place) -> Loaded:
    """Read a model whole, and check what can be checked before it runs.

    Raises:
        IntegrityError: a bundle's file isn't what its manifest says. UnsafeBundleError: it wants a file from
            elsewhere, or something here is no plain file. BundleError: it is no ONNX model.
    """
    files = {} if place.manifest is None else read_listed(place.folder, place.manifest.files, None)
    model = bytes(files[place.file] if place.file in files else read_file(place.folder, place.file))
    graph = _parsed(model, place)
    wanted = sorted({_location(tensor, place) for tensor in _tensors(graph) if _is_outside(tensor)})
    return Loaded(model, {name: _beside(name, files, place) for name in wanted}, _digest(model, place), graph)


def _digest(model: bytes, place: Place) -> str:
    return digest_of(model if place.manifest is None else read_file(place.folder, "model.json"))


def _parsed(model: bytes, place: Place) -> onnx.ModelProto:
    try:
        graph = onnx.load_model_from_string(model)
    except DecodeError:
        raise BundleError(f"{place.path} is no ONNX model, or it is cut short") from None
    if not graph.HasField("graph"):
        raise BundleError(f"{place.path} is no ONNX model: it holds no graph")
    return graph


def _is_outside(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data) > 0


def _location(tensor: onnx.TensorProto, place: Place) -> str:
    name = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise UnsafeBundleError(
            f"{place.path} wants a tensor from {name[:80]!r}, which is no plain file name",
            hint="Save it again with its weights in the file itself, or in one beside it",
        )
    return name


def _beside(name: str, files: Mapping[str, bytearray], place: Place) -> bytes:
    if place.manifest is None:
        return bytes(read_file(place.folder, name))
    if name not in files:
        raise UnsafeBundleError(f"{place.path} wants a tensor from {name!r}, which the manifest doesn't list")
    return bytes(files[name])


# ---------------------------------------------------------------- every tensor that a model holds
def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _of_graph(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _of_node(node)
    for training in model.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _of_node(node)


def _of_node(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        yield attribute.t
        yield from attribute.tensors
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _of_graph(graph)
