"""What a module takes and gives, found by running it: names, datatypes, and which axes are free."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import AiaasError, InputError
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.tensors import datatype_of

__all__ = ["Probed", "flat_outputs", "named_inputs", "named_outputs", "probe", "resized"]

ROWS = (1, 2, 3, 5)
"""Numbers of rows tried for the first axis."""
Axis = tuple[str, int]


@dataclass
class Probed:
    """A module's signature. `free` has the inputs' free axes; `example` enough rows to export with."""

    example: dict[str, torch.Tensor]
    outputs: list[str]
    free: set[Axis] = field(default_factory=set)
    free_outputs: set[Axis] = field(default_factory=set)
    shapes: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)

    def input_specs(self) -> list[TensorSpec]:
        return [
            TensorSpec(name, datatype_of(tensor), _shape(name, tensor.shape, self.free))
            for name, tensor in self.example.items()
        ]

    def output_specs(self) -> list[TensorSpec]:
        return [
            TensorSpec(name, datatype, _shape(name, shape, self.free_outputs))
            for name, (datatype, shape) in self.shapes.items()
        ]


def _shape(name: str, shape: Sequence[int], free: set[Axis]) -> tuple[int, ...]:
    return tuple(-1 if (name, axis) in free else int(size) for axis, size in enumerate(shape))


# ---------------------------------------------------------------- names
def named_inputs(module: torch.nn.Module, example: Any) -> dict[str, torch.Tensor]:
    """The example's arrays by input name: a mapping's keys, else the name of the module's first parameter."""
    parameters = inspect.signature(module.forward).parameters
    if isinstance(example, Mapping):
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for name in example:
            if name not in parameters and not open_ended:
                raise InputError(
                    f"example has {name!r}; the module's forward takes {', '.join(parameters)}",
                    hint="The keys of example are the names of forward's parameters",
                )
        return {name: _tensor(value, name) for name, value in example.items()}
    first = next((p for p in parameters.values() if p.kind is not p.VAR_POSITIONAL), None)
    name = first.name if first is not None else "input"
    return {name: _tensor(example, name)}


def _tensor(given: Any, name: str) -> torch.Tensor:
    value: torch.Tensor | Any = given
    if not isinstance(value, torch.Tensor):
        try:
            # a copy: the example may be read-only, or a slice of something large
            value = torch.tensor(value) if isinstance(value, list | int | float) else torch.from_numpy(_numpy(value))
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"example {name!r} can't become a tensor: {error}") from None
    datatype_of(value)
    plain: torch.Tensor = value.detach().cpu()
    return plain


def _numpy(value: Any) -> Any:
    import numpy as np

    array = np.asarray(value)
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=True)


def named_outputs(answer: Any, labels: Sequence[str] | None) -> dict[str, torch.Tensor]:
    """A module's answer by output name: a mapping's keys, a named tuple's fields, else by position.

    A single tensor is "output"; where it has a score for each label "probabilities" if its rows sum to 1, else
    "logits".
    """
    if isinstance(answer, torch.Tensor):
        return {_scores(answer, labels): answer}
    found = flat_outputs(answer)
    for name, value in found.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(
                f"the module's output {name!r} is {kind_of(value)}",
                hint="Let forward return a tensor, or a flat dict or tuple of tensors",
            )
    return found


def flat_outputs(answer: Any) -> dict[str, Any]:
    """The parts of an answer in order, without a look at their values."""
    if isinstance(answer, Mapping):
        return {str(name): value for name, value in answer.items() if value is not None}
    if isinstance(answer, tuple) and hasattr(answer, "_fields"):
        return dict(zip(answer._fields, answer, strict=True))
    if isinstance(answer, tuple | list):
        return {f"output_{index}": value for index, value in enumerate(answer)}
    return {"output": answer}


def _scores(answer: torch.Tensor, labels: Sequence[str] | None) -> str:
    if not labels or answer.shape[-1:] != (len(labels),):
        return "output"
    sums = answer.detach().float().sum(-1)
    summed = bool((answer >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
    return "probabilities" if summed else "logits"


# ---------------------------------------------------------------- free axes
def resized(example: Mapping[str, torch.Tensor], sizes: Mapping[Axis, int]) -> dict[str, torch.Tensor]:
    """The example with other sizes of some axes: cut off, or repeated, floats with 1 more at each repetition."""
    found = dict(example)
    for (name, axis), size in sizes.items():
        before = max(1, found[name].shape[axis])
        indices = torch.arange(size)
        grown = found[name].index_select(axis, indices % before)
        if grown.is_floating_point() and size > before:
            grown = grown + (indices // before).to(grown.dtype).view([-1] + [1] * (grown.ndim - axis - 1))
        found[name] = grown
    return found


def probe(
    run: Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]], example: dict[str, torch.Tensor]
) -> Probed:
    """The signature, by trying other sizes: the first axis of all inputs together, then each other axis.

    Args:
        run: the module, from inputs to outputs by name.
        example: the inputs by name.
    """
    base = _first(run, example)
    found = Probed(example, list(base))
    rows = {(name, 0) for name, tensor in example.items() if tensor.ndim}
    if len(rows) == len(example) and len({t.shape[0] for t in example.values()}) == 1 and example:
        answers = [_try(run, example, rows, size) for size in ROWS]
        if all(a is not None and _follows(a, size) for a, size in zip(answers, ROWS, strict=True)):
            found.free |= rows
            found.example = resized(example, dict.fromkeys(rows, 3))
            base = run(found.example)
            found.free_outputs |= {(name, 0) for name in base}
    for group in _groups(found.example, found.free):
        _widen(run, found, base, group)
    # export takes a size of 0 or 1 for a constant
    short = {(name, axis) for name, axis in found.free if found.example[name].shape[axis] < 2}
    found.example = resized(found.example, dict.fromkeys(short, 3))
    base = run(found.example)
    found.shapes = {name: (datatype_of(tensor), tuple(tensor.shape)) for name, tensor in base.items()}
    return found


def _first(
    run: Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]], example: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    try:
        return run(example)
    except AiaasError:
        raise
    except Exception as error:  # the module's own; it may raise anything
        given = ", ".join(f"{name} {datatype_of(tensor)} {list(tensor.shape)}" for name, tensor in example.items())
        raise InputError(
            f"the module fails on the example, {given}: {type(error).__name__}: {error}"[:500],
            hint="Give an example that forward takes. numpy's own floats are FP64; x.astype(np.float32) makes FP32",
        ) from error


def _follows(answer: Mapping[str, torch.Tensor], rows: int) -> bool:
    return all(tensor.ndim and tensor.shape[0] == rows for tensor in answer.values())


def _groups(example: Mapping[str, torch.Tensor], taken: set[Axis]) -> list[set[Axis]]:
    """Each axis alone, then the axes of one size together."""
    axes = [(n, i) for n, t in example.items() for i in range(t.ndim) if (n, i) not in taken]
    by_size: dict[int, set[Axis]] = {}
    for name, axis in axes:
        by_size.setdefault(example[name].shape[axis], set()).add((name, axis))
    return [{axis} for axis in axes] + [group for group in by_size.values() if len(group) > 1]


def _widen(
    run: Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]],
    found: Probed,
    base: Mapping[str, torch.Tensor],
    group: set[Axis],
) -> None:
    if group <= found.free:
        return
    size = max(found.example[name].shape[axis] for name, axis in group)
    answers = [_try(run, found.example, group, other) for other in (size + 1, 2 * size + 3)]
    for answer in answers:
        # an output is called by its labels where it has as many columns: another number of them is another model
        if (
            answer is None
            or answer.keys() != base.keys()
            or any(answer[n].ndim != t.ndim or answer[n].dtype != t.dtype for n, t in base.items())
        ):
            return
    moved = {(n, i) for n, t in base.items() for i in range(t.ndim) for a in answers if a and _moved(a[n], t, i)}
    if not moved and all(torch.equal(answers[-1][n], t) for n, t in base.items() if answers[-1]):
        return  # what is beyond the example's size isn't looked at, which is no reason to take it
    found.free |= group
    found.free_outputs |= moved


def _moved(answer: torch.Tensor, base: torch.Tensor, axis: int) -> bool:
    return answer.shape[axis] != base.shape[axis]


def _try(
    run: Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]],
    example: Mapping[str, torch.Tensor],
    axes: set[Axis],
    size: int,
) -> dict[str, torch.Tensor] | None:
    """The outputs for another size, or None: whatever a module raises says that it doesn't take it."""
    try:
        return run(resized(example, dict.fromkeys(axes, size)))
    except Exception:
        return None
