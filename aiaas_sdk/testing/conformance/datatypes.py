"""Each datatype of the Open Inference Protocol, with its extremes and its special values."""

from __future__ import annotations

from typing import Any

import numpy as np

from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.tensors import DATATYPES
from aiaas_sdk.testing.conformance.bench import Bench
from aiaas_sdk.testing.conformance.checks import agree, family, lacks

FLOATS = ("FP16", "BF16", "FP32", "FP64")
SPECIAL = {"nan": np.nan, "infinity": np.inf, "negative_infinity": -np.inf, "negative_zero": -0.0}
_TINIEST = {"FP16": 2.0**-24, "BF16": 2.0**-133, "FP32": 2.0**-149, "FP64": 2.0**-1074}
"""The smallest subnormal number of each."""
_TEXTS = {
    "empty": b"",
    "unicode": "Zürich 東京 🙂".encode(),
    "zero_bytes": b"a\x00b\x00",
    "long": b"0123456789" * 7000,
    "not_text": b"\xff\xfe\x80",
}


def _at(bench: Bench, datatype: str) -> tuple[Any, ModelInfo]:
    """A model of that datatype, and what it says of itself."""
    bench.needs_reference()
    address = bench.subject.datatypes.get(datatype)
    if address is None:
        own = {spec.datatype for spec in bench.info.inputs}
        lacks(own != {datatype}, f"the subject has no model of {datatype}")
        lacks(bench.subject.inputs is not None, "the subject makes its own inputs")
        return bench.model, bench.info
    model = bench.fresh(address)
    return model, model.info()


def _asked(bench: Bench, datatype: str, value: Any) -> tuple[Any, Any]:
    """What a model of the datatype makes of inputs that hold the value, and what is right."""
    model, info = _at(bench, datatype)
    inputs = bench.question(3, info=info)
    for array in inputs.values():
        lacks(not array.size, "the model's input has no elements")
        array[...] = array
        array.flat[0] = value
    with np.errstate(all="ignore"):
        return bench.ask(inputs, model=model), bench.right(inputs)


@family("{}_is_carried", DATATYPES, "predict")
def carried(bench: Bench, datatype: str) -> None:
    """{} goes in and comes out with its smallest and its largest values."""
    model, info = _at(bench, datatype)
    inputs = bench.question(3, info=info)
    for array in inputs.values():
        if array.dtype.kind in "iu":
            limits = np.iinfo(array.dtype)
            array.flat[: min(2, array.size)] = [limits.min, limits.max][: array.size]
    with np.errstate(all="ignore"):
        bench.same(bench.ask(inputs, model=model), bench.right(inputs), datatype)


@family("{0[0]}_{0[1]}_is_carried", [(datatype, name) for datatype in FLOATS for name in SPECIAL], "predict")
def special(bench: Bench, member: tuple[str, str]) -> None:
    """{0[1]} of {0[0]} goes in, and comes out as arithmetic has it."""
    datatype, name = member
    came, right = _asked(bench, datatype, SPECIAL[name])
    bench.same(came, right, f"{name} of {datatype}")
    for output, array in right.items():
        wanted, given = np.signbit(array), np.signbit(came[output])
        sure = ~np.isnan(array)
        agree(bool((wanted == given)[sure].all()), f"{name} of {datatype}: a sign in {output!r} is wrong")


@family("{}_subnormal_is_carried", FLOATS, "predict")
def subnormal(bench: Bench, datatype: str) -> None:
    """The smallest number of {} isn't taken for zero."""
    came, right = _asked(bench, datatype, _TINIEST[datatype])
    for name, array in right.items():
        lost = (np.asarray(array) != 0) & (np.asarray(came[name]) == 0)
        agree(not lost.any(), f"{name!r} is 0 where the right number isn't")


@family("BYTES_{}_is_carried", _TEXTS, "predict")
def texts(bench: Bench, kind: str) -> None:
    """BYTES elements come whole: {}."""
    came, right = _asked(bench, "BYTES", _TEXTS[kind])
    bench.same(came, right, f"BYTES, {kind}")
