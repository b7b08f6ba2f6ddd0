"""ONNX models behind aiaas-sdk: `onnx:PATH` runs one with onnxruntime, `export` makes one from a PyTorch bundle."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from aiaas_onnx.exporting import Exported
    from aiaas_sdk.records.arrays import Arrays

__all__ = ["export"]


def export(
    address: str | PathLike[str],
    target: str | PathLike[str],
    *,
    int8: Literal["static", "dynamic"] | None = None,
    data: Arrays | None = None,
    truth: Sequence[int] | None = None,
) -> Exported:
    """Write a PyTorch bundle as an ONNX model, and check that it gives the same answers.

    Args:
        address: of a bundle: `torch:PATH[@VERSION]`, a path, or a name in the settings that stands for one.
        target: a file that ends in `.onnx`, which is replaced; or a folder, whose next version it becomes.
        int8: weights, and where onnxruntime can activations, as 8-bit integers. "dynamic" scales activations at each
            call; "static" scales them once, by every second row of `data`.
        data: inputs as for `predict`. The answers are compared on them; without, on random ones.
        truth: the right class of each row of `data`, as an index: accuracies are told, before and after.

    Raises:
        AddressError: the address is no bundle's. UnsupportedOperationError: the model can't be exported.
        InputError: the data doesn't fit. BundleError: the bundle can't be used, the target can't be written, or what
            was made doesn't answer as PyTorch does. BackendNotInstalledError: the extra `export` isn't installed.
    """
    from aiaas_onnx import exporting

    return exporting.export(address, target, int8=int8, data=data, truth=truth)
