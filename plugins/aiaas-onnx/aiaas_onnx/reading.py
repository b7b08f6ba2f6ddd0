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
from aiaas_sdk.bundle import Trust, checked, digest_of
from aiaas_sdk.bundle.files import read_file
from aiaas_sdk.errors import BundleError, IntegrityError, UnsafeBundleError

__all__ = ["Loaded", "read"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The bytes of a model.

    Attributes:
        model: the ONNX file; beside: the files that its tensors lie in, by name.
        digest: of the bundle's manifest, or of the ONNX file where there is none.
        graph: the file, parsed.
        signed_by: whose signature a bundle has, trusted or not.
    """

    model: bytes
    beside: Mapping[str, bytes]
    digest: str
    graph: onnx.ModelProto
    signed_by: str | None = None


def read(place: Place, trust: Trust) -> Loaded:
    """Read a model whole, and check what can be checked before it runs.

    Raises:
        IntegrityError: a bundle's file isn't what its manifest says, or the signature that was asked for isn't there.
            UnsafeBundleError: it wants a file from elsewhere, or something here is no plain file. BundleError: it is
            no ONNX model.
    """
    if place.located is None:
        return _plain(place, trust)
    found = checked(place.located, trust, program=False)
    if found.manifest != place.manifest:
        raise IntegrityError(f"{place.folder} was changed while it was loaded", hint="Load the model anew")
    return _loaded(place, bytes(found.files[place.file]), found.files, found.digest, found.signed_by)


def _plain(place: Place, trust: Trust) -> Loaded:
    """A file without a manifest, which nobody can have signed."""
    if trust.asked:
        raise IntegrityError(
            f"{place.path} is no bundle, so nobody signed it, and verify asks for a signature",
            hint="aiaas export writes a signed bundle where it is given a folder",
        )
    model = bytes(read_file(place.folder, place.file))
    return _loaded(place, model, {}, digest_of(model), None)


def _loaded(place: Place, model: bytes, files: Mapping[str, bytearray], digest: str, signed_by: str | None) -> Loaded:
    graph = _parsed(model, place)
    wanted = sorted({_location(tensor, place) for tensor in _tensors(graph) if _is_outside(tensor)})
    return Loaded(model, {name: _beside(name, files, place) for name in wanted}, digest, graph, signed_by)


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
