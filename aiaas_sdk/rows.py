"""Rows to train with: what goes in and what should come out, checked against a model's signature."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aiaas_sdk.articles import kind_of, with_article
from aiaas_sdk.errors import InputError
from aiaas_sdk.mapping.inputs import given
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import Tensor, storage, take, to_bytes

__all__ = ["IGNORED", "Data", "Feed", "Rows", "astray", "check_counted", "check_finite", "pair", "rows"]

IGNORED = -100
"""A class with this index isn't looked at: padding, as PyTorch's losses have it."""
_AT_ONCE = 1 << 18  # numbers that are looked at together: what stays in a processor's cache
_BF16 = 0x7F80  # the exponent of a bfloat16: all ones for NaN and infinities


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows in memory.

    Attributes:
        inputs: by input name; the first axis is rows.
        targets: by output name, as INT64 classes or as floats; the first axis is rows.
    """

    inputs: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]

    def __len__(self) -> int:
        return next(iter(self.inputs.values())).shape[0]

    def digest(self) -> str:
        """SHA-256 of names, datatypes, shapes and elements."""
        state = hashlib.sha256()
        for side in (self.inputs, self.targets):
            for name, tensor in sorted(side.items()):
                state.update(json.dumps([name, tensor.datatype, list(tensor.shape)]).encode())
                state.update(to_bytes(tensor))
        return "sha256:" + state.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """Rows that come from elsewhere: a torch Dataset or DataLoader, an iterable of batches, or what makes one.

    `origin` is what the user handed over. Its batches are checked as they come.
    """

    origin: Any


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """What is trained with, and what the result is checked with after each epoch, if that is other rows."""

    training: Rows | Feed
    validation: Rows | Feed | None = None


def pair(item: Any, where: str) -> tuple[Any, Any]:
    """What an iterable or a Dataset gave, as (x, y)."""
    if isinstance(item, Mapping) and "x" in item and "y" in item and len(item) == 2:
        return item["x"], item["y"]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise InputError(f"{where}: {kind_of(item)} came where a pair (x, y) belongs")
    return item[0], item[1]


def rows(x: Any, y: Any, info: ModelInfo) -> Rows:
    """Arrays as rows.

    Args:
        x: as `predict` takes it.
        y: for each row its class (a number, or the name of one of the model's labels), or what the output should be;
            a mapping from output name to that where the model has several.

    Raises:
        InputError: a name, shape or dtype doesn't fit, a class isn't there, or x and y differ in rows.
    """
    named = given(x, info)
    inputs = {spec.name: take(named[spec.name], spec, where=info.name) for spec in info.inputs}
    counts = {name: tensor.shape[:1] for name, tensor in inputs.items()}
    if len(set(counts.values())) != 1 or () in counts.values():
        told = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in inputs.items())
        raise InputError(f"{info.name}: the inputs differ in rows, their first axis: {told}")
    count = next(iter(counts.values()))[0]
    if not count:
        raise InputError(f"{info.name}: there are no rows to train with")
    targets = {spec.name: _target(value, spec, info) for spec, value in _by_output(y, info)}
    for name, tensor in targets.items():
        if tensor.shape[:1] != (count,):
            raise InputError(f"{info.name}: x has {count} rows, and y for {name!r} has the shape {list(tensor.shape)}")
    return Rows(inputs, targets)


def check_finite(found: Rows, info: ModelInfo, *, targets: bool = True) -> None:
    """Refuse rows with NaN or infinities, which end a run at some step, or spoil it.

    Args:
        targets: those, too.

    Raises:
        InputError: it names the first such row.
    """
    if (wrong := astray(found, targets=targets)) is not None:
        what, row = wrong
        raise InputError(
            f"{info.name}: {what} in row {row}",
            hint="Mend such rows, or leave them out; what a module makes sense of by itself may come from a Dataset",
        )


def check_counted(found: Rows, info: ModelInfo, weights: Sequence[float] | None) -> None:
    """InputError for classes of which none counts: all are IGNORED, or of a class whose weight is 0."""
    unseen = [IGNORED, *(place for place, weight in enumerate(weights or ()) if not weight)]
    for name, tensor in found.targets.items():
        if tensor.datatype != "INT64":
            continue
        flat = storage(tensor).reshape(-1)
        if flat.size and np.isin(flat[:_AT_ONCE], unseen).all() and np.isin(flat, unseen).all():
            raise InputError(
                f"{info.name}: no row would count: each class in y for {name!r} is {IGNORED}, or has the weight 0",
                hint="Give rows of classes that are to be learned",
            )


def astray(found: Rows, *, targets: bool = True) -> tuple[str, int] | None:
    """The first NaN or infinity: what has it ("input 'x' has nan"), and in which row; None where all are numbers."""
    sides = [(f"input {name!r}", tensor) for name, tensor in found.inputs.items()]
    sides += [(f"y for {name!r}", tensor) for name, tensor in found.targets.items() if targets]
    for what, tensor in sides:
        if tensor.datatype in ("FP16", "BF16", "FP32", "FP64") and (wrong := _first(tensor)) is not None:
            row, value = wrong
            return f"{what} has {value}", row
    return None


def _first(tensor: Tensor) -> tuple[int, str] | None:
    array = storage(tensor)
    step = max(1, _AT_ONCE // max(1, array[:1].size))
    for begin in range(0, len(array), step):
        block = array[begin : begin + step]
        fine = (block & _BF16) != _BF16 if tensor.datatype == "BF16" else np.isfinite(block)
        if not fine.all():
            place = tuple(np.argwhere(~fine)[0])
            value = "nan or an infinity" if tensor.datatype == "BF16" else str(float(block[place]))
            return begin + int(place[0]), value
    return None


def _by_output(y: Any, info: ModelInfo) -> Iterator[tuple[TensorSpec, Any]]:
    if y is None:
        raise InputError(
            f"{info.name}: fit was given no targets", hint="Give y, or in x what yields pairs: a Dataset, batches"
        )
    known = {spec.name: spec for spec in info.outputs}
    if not isinstance(y, Mapping):
        if len(known) != 1:
            raise InputError(f"{info.name} has {len(known)} outputs: {', '.join(known)}", hint="Give {NAME: targets}")
        y = {next(iter(known)): y}
    for name, value in y.items():
        if name not in known:
            raise InputError(f"{info.name} has no output {str(name)[:80]!r}; it has {', '.join(known)}")
        yield known[name], value


# ---------------------------------------------------------------- targets
def _target(value: Any, spec: TensorSpec, info: ModelInfo) -> Tensor:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _torch_target(torch, value.detach(), spec, info)
    array = _array(value, spec, info)
    if array.dtype.kind in "OUTS":
        array = _classes(array, spec, info)
    if array.dtype.kind in "iub":
        array = array.astype(np.int64)
        _check_classes(array, spec, info)
        return Tensor("INT64", array)
    if array.dtype.kind != "f":
        raise InputError(
            f"{info.name}: y for {spec.name!r} is {with_article(str(array.dtype))} array; give classes or floats"
        )
    return Tensor(*_floats(array, spec))


def _floats(array: Any, spec: TensorSpec) -> tuple[str, Any]:
    wide = spec.datatype == "FP64"
    return ("FP64", array.astype(np.float64)) if wide else ("FP32", array.astype(np.float32))


def _torch_target(torch: Any, value: Any, spec: TensorSpec, info: ModelInfo) -> Tensor:
    if value.is_floating_point():
        wide = spec.datatype == "FP64"
        return Tensor("FP64", value.double()) if wide else Tensor("FP32", value.float())
    if value.is_complex():
        raise InputError(
            f"{info.name}: y for {spec.name!r} is {with_article(str(value.dtype))} tensor; give classes or floats"
        )
    classes = value.to(torch.int64)
    _check_classes(classes.cpu().numpy(), spec, info)
    return Tensor("INT64", classes)


def _array(value: Any, spec: TensorSpec, info: ModelInfo) -> Any:
    try:
        return np.asarray(value)
    except Exception as error:  # whatever `__array__` of a stranger raises
        told = f"{info.name}: y for {spec.name!r} can't become an array ({type(error).__name__})"
        raise InputError(told, hint="Give one target a row, all of one shape") from None


def _classes(array: Any, spec: TensorSpec, info: ModelInfo) -> Any:
    """The indices of labels given by name."""
    if not info.labels:
        told = f"{info.name} has no labels, and y for {spec.name!r} has texts"
        raise InputError(told, hint="Give the classes as numbers from 0 on, or save the model with labels=")
    index = {label: place for place, label in enumerate(info.labels)}
    flat = [one.decode() if isinstance(one, bytes) else one for one in array.ravel().tolist()]
    found = [index.get(one) if isinstance(one, str) else None for one in flat]
    if None in found:
        place = found.index(None)
        row = place // max(1, array.size // len(array))
        raise InputError(
            f"{info.name}: y has {str(flat[place])[:80]!r} in row {row}, which is none of its labels",
            hint=f"They are {_some(info.labels)}",
        )
    return np.asarray(found, np.int64).reshape(array.shape)


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:20]) + (", ..." if len(labels) > 20 else "")


def _check_classes(array: Any, spec: TensorSpec, info: ModelInfo) -> None:
    """Classes are of the output's last axis, where y has an axis less than it."""
    shape = spec.shape
    if array.ndim != len(shape) - 1 or not array.size or shape[-1] < 2:
        return
    low, high = int(array.min()), int(array.max())
    if low >= 0 and high < shape[-1]:
        return
    wrong = ((array < 0) & (array != IGNORED)) | (array >= shape[-1])
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        raise InputError(
            f"{info.name}: y has the class {int(array[tuple(np.argwhere(wrong)[0])])} in row {row}; "
            f"{spec.name!r} has {shape[-1]} classes, from 0 on"
        )
