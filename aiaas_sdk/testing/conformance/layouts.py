"""The same numbers, however they lie in memory, and in whichever kind of array."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from aiaas_sdk.articles import kind_of
from aiaas_sdk.tensors import Tensor, datatype_of
from aiaas_sdk.testing.conformance.bench import Bench
from aiaas_sdk.testing.conformance.checks import agree, family, lacks


def _reversed(array: Any) -> Any:
    return np.flip(np.flip(array, 0).copy(), 0)


def _sliced(array: Any) -> Any:
    wide = np.repeat(array, 2, axis=0)
    return wide[::2]


def _broadcast(array: Any) -> Any:
    return np.broadcast_to(array[:1], array.shape)


def _read_only(array: Any) -> Any:
    array = array.copy()
    array.flags.writeable = False
    return array


def _unaligned(array: Any) -> Any:
    if array.dtype.kind == "O":
        return array
    room = np.zeros(array.nbytes + 1, np.uint8)[1:]
    made = room.view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


_NUMPY: dict[str, Callable[[Any], Any]] = {
    "fortran_order": np.asfortranarray,
    "reversed": _reversed,
    "sliced": _sliced,
    "broadcast": _broadcast,
    "read_only": _read_only,
    "unaligned": _unaligned,
    "inner_slice": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
}


@family("{}_arrays_are_read_right", _NUMPY, "predict")
def numpy_layouts(bench: Bench, kind: str) -> None:
    """Numpy arrays in a Tensor that are {} give what plain copies of them give."""
    inputs, datatypes = bench.question(4), {spec.name: spec.datatype for spec in bench.info.inputs}
    lacks(any(array.ndim == 0 for array in inputs.values()), "the model takes a scalar")
    lacks("BF16" in datatypes.values(), "numpy has no BF16")
    made = {name: _NUMPY[kind](array) for name, array in inputs.items()}
    plain = {name: np.array(array, order="C") for name, array in made.items()}
    # within a Tensor, arrays go to the backend as they lie; others are put in order before
    tensors = {name: Tensor(datatypes.get(name, datatype_of(array)), array) for name, array in made.items()}
    bench.same(bench.ask(tensors), bench.ask(plain), f"{kind} arrays")


# ---------------------------------------------------------------- torch
def _torch(bench: Bench) -> Any:
    lacks(find_spec("torch") is None, "torch isn't installed")
    own = {spec.datatype for spec in bench.info.inputs}
    lacks("BYTES" in own, "torch has no texts")
    import torch

    return torch


_TORCH: dict[str, Callable[[Any], Any]] = {
    "plain": lambda tensor: tensor,
    "transposed": lambda tensor: tensor.transpose(0, -1).contiguous().transpose(0, -1),
    "sliced": lambda tensor: tensor.repeat_interleave(2, 0)[::2],
    "expanded": lambda tensor: tensor[:1].expand(tensor.shape),
    "offset": lambda tensor: tensor.repeat(2, *[1] * (tensor.ndim - 1))[len(tensor) :],
}


@family("{}_torch_tensors_are_read_right", _TORCH, "predict")
def torch_layouts(bench: Bench, kind: str) -> None:
    """Torch tensors that are {} give what arrays of the same numbers give, as torch tensors."""
    torch = _torch(bench)
    made = {name: _TORCH[kind](tensor) for name, tensor in _tensors(bench, torch).items()}
    plain = {name: _numpy(torch, tensor) for name, tensor in made.items()}
    came = bench.ask(made)
    for name, tensor in came.items():
        agree(isinstance(tensor, torch.Tensor), f"torch tensors in, and {name!r} is {kind_of(tensor)}")
    bench.same({name: _numpy(torch, tensor) for name, tensor in came.items()}, bench.ask(plain), f"{kind} tensors")


def _tensors(bench: Bench, torch: Any) -> dict[str, Any]:
    inputs = bench.question(4)
    lacks(any(array.ndim == 0 for array in inputs.values()), "the model takes a scalar")
    bf16 = {spec.name for spec in bench.info.inputs if spec.datatype == "BF16"}
    found = {name: torch.from_numpy(np.array(array)) for name, array in inputs.items()}
    return {name: tensor.to(torch.bfloat16) if name in bf16 else tensor for name, tensor in found.items()}


def _numpy(torch: Any, tensor: Any) -> Any:
    tensor = tensor.detach().cpu().contiguous()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
