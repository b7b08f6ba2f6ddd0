"""A module as an exported program: made without its weights, which travel as safetensors, and run flat.

An exported program is code: `torch.export.load` unpickles. Only bytes that a trusted key signed come here.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.export.graph_signature import InputKind, InputSpec, OutputKind
from torch.fx.experimental.symbolic_shapes import is_concrete_int

from aiaas_sdk.backends.torch.probing import Probed, flat_outputs
from aiaas_sdk.errors import BundleError

__all__ = ["PROGRAM", "call", "export", "flat", "moved", "restore", "to_bytes"]

PROGRAM = "program.pt2"
PREFIX = "module."
"""Of the weights' names inside of a program."""
Flat = Callable[..., Sequence[torch.Tensor]]


_turn = threading.RLock()


def _renew() -> None:
    """A child process has no thread that could give back what the parent's threads hold."""
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextlib.contextmanager
def _in_turn() -> Iterator[None]:
    """One thread at a time, and without what torch says of its own insides.

    torch.export keeps what it reads and writes in variables of its modules, and two loads at once fail
    ("_CURRENT_DESERIALIZER is already set"); the filters of warnings are the process's, too.
    """
    with _turn, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Plain(torch.nn.Module):
    """A module that takes tensors in order and gives a tuple of them, whatever it wraps."""

    def __init__(self, module: torch.nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module, self._names = module, names

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(flat_outputs(call(self.module, self._names, tensors)).values())


def call(module: torch.nn.Module, names: Sequence[str], tensors: Sequence[torch.Tensor]) -> Any:
    """The module's answer: one tensor goes by position, several go by name."""
    return module(*tensors) if len(tensors) == 1 else module(**dict(zip(names, tensors, strict=True)))


def export(module: torch.nn.Module, probed: Probed) -> torch.export.ExportedProgram:
    """The program, with the free axes left free where export allows it (`probed.free` is cut to what it allowed).

    Raises:
        BundleError: the module can't be exported.
    """
    auto, fixed = torch.export.Dim.AUTO, torch.export.Dim.STATIC
    dims = tuple(
        {axis: auto if (name, axis) in probed.free else fixed for axis in range(tensor.ndim)}
        for name, tensor in probed.example.items()
    )
    tensors = tuple(probed.example.values())
    try:
        with torch.no_grad(), _in_turn():
            program = torch.export.export(_Plain(module, list(probed.example)), tensors, dynamic_shapes=(dims,))
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no message"])[0][:300]
        raise BundleError(
            f"{type(module).__name__} can't be saved as a program: torch.export says {first}",
            hint='Register its class with @aiaas.architecture("name") and give save(..., config={...})',
        ) from error
    _cut(program, probed)
    return program


def _cut(program: torch.export.ExportedProgram, probed: Probed) -> None:
    """Export fixes an axis when the code depends on its size (the time axis of an LSTM, say)."""
    placeholders = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    values = [placeholders[name] for name in program.graph_signature.user_inputs if isinstance(name, str)]
    for (name, tensor), value in zip(probed.example.items(), values, strict=True):
        for axis in range(tensor.ndim):
            if is_concrete_int(value.shape[axis]):
                probed.free.discard((name, axis))
    outputs = {node.name: node.meta.get("val") for node in program.graph.nodes}
    for name, source in zip(probed.outputs, program.graph_signature.user_outputs, strict=True):
        value = outputs[source] if isinstance(source, str) else None
        for axis in range(len(probed.shapes[name][1])):
            if value is not None and is_concrete_int(value.shape[axis]):
                probed.free_outputs.discard((name, axis))


def to_bytes(program: torch.export.ExportedProgram) -> bytes:
    """The program without its weights. The program can't be used any more after this."""
    for name, value in list(program.state_dict.items()):
        program.state_dict[name] = _like(value, torch.empty(0, dtype=value.dtype))
    buffer = io.BytesIO()
    with _in_turn():
        torch.export.save(program, buffer)
    return buffer.getvalue()


def restore(data: bytes | bytearray, state: Mapping[str, torch.Tensor], where: str) -> torch.export.ExportedProgram:
    """The program of signed bytes, with its weights.

    Raises:
        BundleError: it can't be read (another version of torch wrote it, say), or the weights aren't its own.
    """
    try:
        with _in_turn():
            program = torch.export.load(io.BytesIO(data))
    except Exception as error:
        raise BundleError(
            f"{where}: its program can't be read by torch {torch.__version__} ({type(error).__name__})",
            hint="Save the model again with this version of torch, or load the class: load(..., architecture=...)",
        ) from error
    for key, value in list(program.state_dict.items()):
        name = key.removeprefix(PREFIX)
        if name not in state or state[name].dtype != value.dtype:
            raise BundleError(f"{where}: the weights lack {name!r} as {value.dtype}, which the program needs")
        program.state_dict[key] = _like(value, state[name])
    return program


def moved(program: torch.export.ExportedProgram, device: torch.device) -> torch.export.ExportedProgram:
    """The program with its weights on a device, and the tensors that it makes itself."""
    from torch.export.passes import move_to_device_pass

    program = move_to_device_pass(program, device)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            module.recompile()  # the pass changes the graph, and not the code that `flat` runs
    return program


def _like(value: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    return torch.nn.Parameter(data, requires_grad=False) if isinstance(value, torch.nn.Parameter) else data


def flat(program: torch.export.ExportedProgram) -> Flat:
    """The program as a function from its tensors, in order, to a sequence of tensors.

    torch's own wrapper packs and unpacks Python structures, looks up each weight and checks shapes at every call,
    which costs a small model half its time. Here the weights are bound once; shapes have been checked against the
    signature.
    """
    signature = program.graph_signature
    if any(spec.kind is not OutputKind.USER_OUTPUT for spec in signature.output_specs):
        raise BundleError(
            "the module changes its own buffers when it is called, which a program of many callers can't do",
            hint="Keep state out of eval mode, or take it in and give it back as tensors",
        )
    weights = [_weight(program, spec) for spec in signature.input_specs if spec.kind is not InputKind.USER_INPUT]
    forward: Flat = partial(program.graph_module.forward, *weights)
    return forward


def _weight(program: torch.export.ExportedProgram, spec: InputSpec) -> Any:
    target = spec.target or ""
    value = program.state_dict[target] if target in program.state_dict else program.constants[target]
    return value.detach() if isinstance(value, torch.Tensor) else value
