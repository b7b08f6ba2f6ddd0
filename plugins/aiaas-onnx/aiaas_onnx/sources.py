"""A PyTorch bundle as an exported program, which is what ONNX is made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from aiaas_sdk import bundle
from aiaas_sdk.architectures import class_of
from aiaas_sdk.backends.torch import programs, weights
from aiaas_sdk.backends.torch.probing import Probed, resized
from aiaas_sdk.backends.torch.rebuilding import rebuild
from aiaas_sdk.errors import AddressError, BundleError
from aiaas_sdk.finding import find

__all__ = ["Source", "read"]

Example = Mapping[str, torch.Tensor]
TRIED = (3, 8, 32, 128)
"""Sizes of the free axes that are tried for an example: a network may want a least height and width."""
SIZES = (1, 2, 17)
"""Sizes of the free axes at which what was made is compared."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is exported.

    Attributes:
        address: of the bundle, its version pinned; verify: whose signature it was opened with.
        manifest, digest: the bundle's own.
        program: the module without its name for arguments: tensors in the signature's order, in and out.
        example: inputs that it takes.
    """

    address: str
    verify: bool | Sequence[str | bytes]
    manifest: bundle.Manifest
    digest: str
    program: torch.export.ExportedProgram
    example: Example

    def examples(self) -> Iterator[Example]:
        """The example in other sizes of the axes that the signature leaves free."""
        free = _free(self.manifest)
        yield from (resized(self.example, dict.fromkeys(free, size)) for size in SIZES) if free else (self.example,)


def read(address: str | PathLike[str]) -> Source:
    """The bundle of an address; `aiaas_onnx.export` says what is raised."""
    found = find(address, {})
    member = found.members[0]
    if found.route or member.address.scheme != "torch":
        raise AddressError(f"{found.text} is no bundle of PyTorch, which export wants", hint="Give torch:PATH")
    located = bundle.locate(Path(member.address.target), member.address.version)
    verify = member.options.get("verify", True)
    whole = bundle.read(located, bundle.Trust.of(verify))
    where = f"torch:{member.address.target}@{located.version}"
    state = weights.from_bytes(whole.weights)
    if whole.program is not None:
        program = programs.restore(whole.program, state, where)
        example = _example(whole.manifest, programs.flat(program), where)
        return Source(where, verify, whole.manifest, whole.digest, program, example)
    module = _module(whole.manifest, state, where)
    names = [tensor.name for tensor in whole.manifest.inputs]
    example = _example(whole.manifest, lambda *given: programs.call(module, names, given), where)
    program = programs.export(module, _probed(whole.manifest, example))
    return Source(where, verify, whole.manifest, whole.digest, program, example)


def _module(manifest: bundle.Manifest, state: Mapping[str, torch.Tensor], where: str) -> torch.nn.Module:
    assert manifest.architecture is not None  # else it has a program
    dtype = "" if "+" in manifest.dtype else manifest.dtype
    cls = class_of(manifest.architecture.name)
    return rebuild(cls, manifest.architecture.config, state, dtype, where).requires_grad_(False)


def _probed(manifest: bundle.Manifest, example: Example) -> Probed:
    """The signature in the words of what saves programs."""
    outputs = [tensor.name for tensor in manifest.outputs]
    shapes = {tensor.name: (tensor.datatype, tuple(tensor.shape)) for tensor in manifest.outputs}
    return Probed(dict(example), outputs, _free(manifest), set(), shapes)


def _free(manifest: bundle.Manifest) -> set[tuple[str, int]]:
    return {(tensor.name, axis) for tensor in manifest.inputs for axis, size in enumerate(tensor.shape) if size == -1}


# ---------------------------------------------------------------- an example
def _example(manifest: bundle.Manifest, run: Any, where: str) -> Example:
    """Inputs of the smallest size of `TRIED` that the model takes: ones where integers are asked for, else noise."""
    for size in TRIED:
        found = {tensor.name: _made(tensor, size) for tensor in manifest.inputs}
        try:
            with torch.inference_mode():
                run(*found.values())
        except Exception as error:  # whatever a module raises: it doesn't take this size
            failed = error
        else:
            return found
    raise BundleError(
        f"{where} takes no example: with axes of {', '.join(map(str, TRIED))} it raised {type(failed).__name__}"
    ) from failed


def _made(tensor: bundle.Tensor, size: int) -> torch.Tensor:
    shape = [size if axis == -1 else axis for axis in tensor.shape]
    kind = getattr(torch, _TORCH[tensor.datatype])
    if not kind.is_floating_point:
        return torch.ones(shape, dtype=kind)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(kind)


_TORCH = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "BF16": "bfloat16", "FP32": "float32",
    "FP64": "float64",
}  # fmt: skip
