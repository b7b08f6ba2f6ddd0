"""A model with 8-bit integers in place of floats, by onnxruntime's own tools."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from aiaas_onnx import converting
from aiaas_onnx.runtime import onnxruntime
from aiaas_sdk.errors import InputError, UnsupportedOperationError

__all__ = ["Rows", "quantize"]

Rows = Mapping[str, npt.NDArray[Any]]
BATCH = 32
"""Rows that calibration runs at once."""
DYNAMIC = ("MatMul", "Gemm", "Gather", "LSTM", "Attention")
"""What is worth it where activations are scaled at each call: a convolution becomes slower than it was."""


def quantize(source: Path, target: Path, how: Literal["static", "dynamic"], data: Rows | None, free: bool) -> None:
    """Write the model of the folder `source` into the folder `target`, quantised.

    Args:
        how: "static" scales activations once, by `data`; "dynamic" at each call.
        data: inputs by name.
        free: their first axis is rows, and may be cut.

    Raises:
        InputError: static, and no data. UnsupportedOperationError: onnxruntime can't.
    """
    if how == "static" and not data:
        raise InputError("int8 is static and there is no data to scale by", hint='Give data=, or int8="dynamic"')
    if (source / converting.WEIGHTS).exists():
        raise UnsupportedOperationError("a model with more than 2 GiB of weights can't be quantised here")
    prepared = target / "prepared.onnx"
    try:
        with _quiet():
            _prepare(source / converting.MODEL, prepared)
            if how == "static" and data:
                _static(prepared, target / converting.MODEL, _batches(data, free))
            else:
                _dynamic(prepared, target / converting.MODEL)
    except Exception as error:
        raise UnsupportedOperationError(
            f"onnxruntime {onnxruntime.__version__} can't quantise this model: {type(error).__name__}: "
            f"{(str(error).strip().splitlines() or [''])[0][:300]}"
        ) from error
    finally:
        prepared.unlink(missing_ok=True)


def _prepare(source: Path, target: Path) -> None:
    """Operations that are fused first are quantised as one."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(source, target, skip_symbolic_shape=True)


def _static(source: Path, target: Path, batches: Iterator[Rows]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def get_next(self) -> Rows | None:
            return next(batches, None)

    quantize_static(source, target, Reader(), per_channel=True)


def _dynamic(source: Path, target: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(source, target, op_types_to_quantize=list(DYNAMIC), per_channel=True)


def _batches(data: Rows, free: bool) -> Iterator[Rows]:
    if not free:
        yield data
        return
    for start in range(0, len(next(iter(data.values()))), BATCH):
        yield {name: np.ascontiguousarray(array[start : start + BATCH]) for name, array in data.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """The tools write to the root logger, and would set up its handlers."""
    before, logging.root.disabled = logging.root.disabled, True
    handlers = list(logging.root.handlers)
    try:
        yield
    finally:
        logging.root.disabled = before
        logging.root.handlers[:] = handlers
