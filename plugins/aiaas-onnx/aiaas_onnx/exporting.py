"""`export`: a PyTorch bundle becomes an ONNX model, which is compared with it before it is put in its place."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aiaas_sdk import bundle
from aiaas_sdk.api import load
from aiaas_sdk.errors import AddressError, BackendNotInstalledError, BundleError, InputError, ModelError
from aiaas_sdk.model import Model
from aiaas_sdk.parity import compare
from aiaas_sdk.records.comparison import Comparison
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.tensors import Kind, take

try:
    from aiaas_onnx import converting, sources
except ModuleNotFoundError as error:
    raise BackendNotInstalledError(
        f"exporting needs the package {error.name}", hint='Install it: pip install "aiaas-onnx[export]"'
    ) from None
from aiaas_onnx.places import SUFFIX
from aiaas_onnx.quantizing import Rows, quantize

__all__ = ["Exported", "Loss", "export"]

EXACT, HALF = (1e-4, 1e-5), (2e-2, 2e-2)
"""Relative and absolute tolerance against PyTorch, for float32 and for what has fewer digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What int8 cost, on rows that didn't set its scales where there are others.

    Attributes:
        rows: rows compared.
        max_abs: the largest difference of an output, in the output's own unit.
        agreement: the share of rows whose best class is the same; None where no output has scores.
        before, after: the share of rows whose best class is the right one; None without the truth.
    """

    rows: int
    max_abs: float
    agreement: float | None
    before: float | None = None
    after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was made.

    Attributes:
        address: of the ONNX model.
        info: what it says of itself.
        max_abs: the largest difference from PyTorch's answers, before int8.
        size: bytes on disk; float_size: those of the model before int8.
        int8: "static", "dynamic" or None; loss: what that cost, where data was given.
        fixed: axes that the bundle leaves free and ONNX doesn't, as "input[axis]".
    """

    address: str
    info: ModelInfo
    max_abs: float
    size: int
    float_size: int
    int8: str | None
    loss: Loss | None
    fixed: tuple[str, ...]


def export(
    address: str | PathLike[str],
    target: str | PathLike[str],
    *,
    int8: Literal["static", "dynamic"] | None,
    data: Any,
    truth: Sequence[int] | None,
) -> Exported:
    """`aiaas_onnx.export` documents it."""
    _check(int8, data, truth)
    source = sources.read(address)
    with tempfile.TemporaryDirectory(prefix="aiaas-onnx-") as scratch:
        made = Path(scratch, "float")
        made.mkdir()
        converting.write(converting.convert(source), made)
        with load(source.address, verify=source.verify) as torch_model, _own(f"onnx:{made}") as onnx_model:
            rows = _rows(torch_model.info(), data, truth)
            max_abs = _compared(source, torch_model, onnx_model, rows)
            info, fixed = onnx_model.info(), _fixed(torch_model.info(), onnx_model.info())
        found = Exported(
            address="", info=info, max_abs=max_abs, size=_size(made), float_size=_size(made), int8=int8, loss=None,
            fixed=fixed,
        )  # fmt: skip
        if int8 is not None:
            made, loss = _quantised(made, int8, rows, truth)
            found = replace(found, size=_size(made), loss=loss)
        return _published(found, source, made, Path(target))


def _check(int8: str | None, data: Any, truth: Any) -> None:
    if int8 not in (None, "static", "dynamic"):
        raise InputError(f"int8 is {int8!r}", hint='Give "static" (with data=) or "dynamic"')
    if truth is not None and data is None:
        raise InputError("truth is given without data", hint="Give the inputs that it is the truth of: data=")
    if int8 == "static" and data is None:
        raise InputError("int8 is static and there is no data to scale by", hint='Give data=, or int8="dynamic"')


def _rows(info: ModelInfo, data: Any, truth: Sequence[int] | None) -> Rows | None:
    """The data by input name, as numpy; checked against the signature."""
    if data is None:
        return None
    if not isinstance(data, Mapping):
        if len(info.inputs) != 1:
            raise InputError(f"data is one array; the model takes {', '.join(spec.name for spec in info.inputs)}")
        data = {info.inputs[0].name: data}
    absent = [spec.name for spec in info.inputs if spec.name not in data]
    if absent:
        raise InputError(f"data lacks the input {absent[0]!r}")
    numpy = Kind.numpy()
    rows = {spec.name: numpy.give(take(data[spec.name], spec, where="data")) for spec in info.inputs}
    if truth is not None and len(truth) != len(next(iter(rows.values()))):
        raise InputError(f"truth has {len(truth)} entries for {len(next(iter(rows.values())))} rows of data")
    return rows


# ---------------------------------------------------------------- the same as PyTorch
def _compared(
    source: sources.Source, torch_model: Model[Any, Any], onnx_model: Model[Any, Any], rows: Rows | None
) -> float:
    """The largest difference, over the data and several sizes of the free axes. BundleError where it isn't the same."""
    rtol, atol = EXACT if source.manifest.dtype in ("float32", "float64", "") else HALF
    tried: list[Any] = [] if rows is None else [rows]
    differences = []
    for inputs in [*tried, *source.examples()]:
        try:
            torch_model.predict(inputs)
        except ModelError:  # a size that PyTorch doesn't take either
            continue
        try:
            found = compare(onnx_model, torch_model, inputs, rtol=rtol, atol=atol, repeat=0)
        except (ModelError, InputError) as error:
            sizes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
            raise BundleError(
                f"{source.address} was exported, and ONNX doesn't take {sizes}: {error.message}"
            ) from error
        if not all(output.equal for output in found.outputs):
            raise BundleError(
                f"{source.address} was exported, and answers otherwise than PyTorch: by up to {found.max_abs:.2g}",
                hint="Report the model: the exporter of PyTorch got something in it wrong",
            )
        differences.append(found.max_abs)
    return max(differences, default=0.0)


def _fixed(torch_info: ModelInfo, onnx_info: ModelInfo) -> tuple[str, ...]:
    return tuple(
        f"{wanted.name}[{axis}]"
        for wanted, found in zip(torch_info.inputs, onnx_info.inputs, strict=True)
        for axis, size in enumerate(wanted.shape)
        if size == -1 and found.shape[axis] != -1
    )


# ---------------------------------------------------------------- int8
def _quantised(
    made: Path, how: Literal["static", "dynamic"], rows: Rows | None, truth: Sequence[int] | None
) -> tuple[Path, Loss | None]:
    """The folder of the quantised model, and what it lost on the rows that didn't set its scales."""
    target = made.with_name("int8")
    target.mkdir()
    with _own(f"onnx:{made}") as before:
        free = before.info().rows_free
        count = len(next(iter(rows.values()))) if rows and free else 0
        apart = how == "static" and count > 1
        quantize(made, target, how, _sliced(rows, slice(0, None, 2)) if apart else rows, free)
        if rows is None:
            return target, None
        held = _sliced(rows, slice(1, None, 2)) if apart else rows
        right = None if truth is None else np.asarray(truth)[1::2] if apart else np.asarray(truth)
        with _own(f"onnx:{target}") as after:
            return target, _loss(compare(after, before, held, repeat=0), before, after, held, right)


def _sliced(rows: Rows | None, part: slice) -> Rows:
    return {name: np.ascontiguousarray(array[part]) for name, array in (rows or {}).items()}


def _loss(found: Comparison, before: Model[Any, Any], after: Model[Any, Any], held: Rows, right: Any) -> Loss:
    loss = Loss(rows=found.rows, max_abs=found.max_abs, agreement=found.label_agreement)
    if right is None:
        return loss
    return replace(loss, before=_accuracy(before, held, right), after=_accuracy(after, held, right))


def _accuracy(model: Model[Any, Any], rows: Rows, right: Any) -> float:
    scores = [array for array in model.predict(rows).values() if array.ndim == 2 and array.dtype.kind == "f"]
    if len(scores) != 1:
        raise InputError("truth is given, and the model has no single output of scores (rows, classes)")
    return float(np.mean(scores[0].argmax(axis=1) == right))


# ---------------------------------------------------------------- into its place
def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _published(found: Exported, source: sources.Source, made: Path, target: Path) -> Exported:
    if target.suffix.lower() == SUFFIX:
        if (made / converting.WEIGHTS).exists():
            raise AddressError(f"{target} is one file, which ends at 2 GiB", hint="Give a folder: it becomes a bundle")
        _put(made / converting.MODEL, target)
        return _opened(found, f"onnx:{target}")
    located = bundle.write(target, lambda version: _files(found, source, made, version, target))
    return _opened(found, f"onnx:{target}@{located.version}")


def _opened(found: Exported, address: str) -> Exported:
    with _own(address) as model:
        return replace(found, address=address, info=model.info())


def _own(address: str) -> Model[Any, Any]:
    """What was made just now; settings that ask for somebody's signature don't mean it."""
    return load(address, verify=False)


def _put(made: Path, target: Path) -> None:
    """Whole or not at all: copied beside its place first."""
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, aside)
        os.replace(aside, target)
    except OSError as error:
        raise BundleError(f"{target} can't be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _files(found: Exported, source: sources.Source, made: Path, version: str, target: Path) -> dict[str, bytes]:
    data = {file.name: file.read_bytes() for file in made.iterdir()}
    info = found.info
    manifest = bundle.Manifest(
        name=target.resolve().name,
        version=version,
        inputs=[bundle.Tensor(name=s.name, datatype=s.datatype, shape=list(s.shape)) for s in info.inputs],
        outputs=[bundle.Tensor(name=s.name, datatype=s.datatype, shape=list(s.shape)) for s in info.outputs],
        labels=source.manifest.labels,
        platform="onnxruntime_onnx",
        dtype=source.manifest.dtype if found.int8 is None else "int8",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        metadata=source.manifest.metadata,
        lineage={**source.manifest.lineage, "exported_from": source.digest},
        files={name: bundle.digest_of(content) for name, content in data.items()},
    )
    text = manifest.model_dump_json(indent=1).encode()
    return {**data, bundle.MANIFEST: text, bundle.SIGNATURE: bundle.own_key().sign(text)}
