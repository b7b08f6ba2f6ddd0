"""Convolutions with their channels last in memory, which on a CPU take about half the time.

Shapes and meaning stay as they are; the sums are made in another order, so that the last digits differ. PyTorch
passes the layout on by itself once a convolution's weight has it ("Channels Last Memory Format in PyTorch", its
tutorial). What it can't do is `view` of such a tensor: there a copy is needed, which `reshape` makes.
"""

from __future__ import annotations

import torch

__all__ = ["channels_last", "with_channels_last"]

_CONV, _VIEW, _RESHAPE = (getattr(torch.ops.aten, name).default for name in ("conv2d", "view", "reshape"))
_STRIDES = (torch.ops.aten.as_strided.default,)


def channels_last(module: torch.nn.Module) -> torch.nn.Module:
    """The module itself, in that layout if it is on the CPU and its class says that its forward stands it:
    `channels_last = True`.
    """
    here = all(weight.device.type == "cpu" for weight in module.parameters())
    if here and getattr(type(module), "channels_last", False):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
    return module


def with_channels_last(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program itself, in that layout where it has convolutions and nothing in it looks at strides."""
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    weights = {node.args[1].name for node in nodes if node.target is _CONV}
    views = [node for node in nodes if node.target is _VIEW]
    if not weights or any(node.target in _STRIDES for node in nodes) or (views and any(map(_in_place, nodes))):
        return program  # who writes into a view means what it is a view of, and a copy is another tensor
    for node in views:
        node.target = _RESHAPE
    program.graph_module.recompile()
    signature = program.graph_signature
    for spec in signature.input_specs:
        if spec.arg.name in weights and (target := spec.target) in program.state_dict:
            program.state_dict[target] = _turned(program.state_dict[target])
    return program


def _in_place(node: torch.fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _turned(weight: torch.Tensor) -> torch.Tensor:
    data = weight.detach().contiguous(memory_format=torch.channels_last)
    return torch.nn.Parameter(data, requires_grad=False) if isinstance(weight, torch.nn.Parameter) else data
