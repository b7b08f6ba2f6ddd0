"""Losses by name: sums over a batch, and what they are divided by, so that parts of a batch add up to the whole.

| name | of one element, with o the output and y the target |
|---|---|
| sparse_categorical_crossentropy | -log softmax(o)[y], y a class; class -100 isn't looked at |
| categorical_crossentropy | -sum y log softmax(o), y a row of shares |
| binary_crossentropy | -y log s(o) - (1 - y) log(1 - s(o)), s the sigmoid |
| mse | (o - y)^2 |
| mae | the size of o - y |
| huber | (o - y)^2 / 2 within 1, else the size of o - y, less 1/2 (Huber 1964, delta 1) |

An output that is called "probabilities" is taken for what comes after softmax or sigmoid, all others for logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from aiaas_sdk.errors import AiaasError, ConfigError, InputError
from aiaas_sdk.records.training import Fit
from aiaas_sdk.rows import IGNORED

__all__ = ["Loss", "loss_of", "named"]

CLASSES = ("sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy")
TINY = 1e-7
"""A probability isn't taken for less than this, or more than 1 less this, as Keras has it."""


class Loss(Protocol):
    """What is learned by, for one output. `name` is one of LOSSES, or "function"."""

    name: str

    def weight(self, targets: Tensor) -> Tensor | float:
        """What the targets of a batch count."""
        ...

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The sum over the batch; divided by the weight it is the mean."""
        ...


def named(asked: str, output: Tensor, targets: Tensor, labels: bool) -> str:
    """The loss that is meant by "auto": by the target's kind and shape.

    Raises:
        InputError: whole numbers for an output that has no classes, and not all of them are 0 or 1.
    """
    if asked != "auto":
        return asked
    wide = output.shape == targets.shape and targets.ndim > 1 and targets.shape[-1] > 1
    if targets.is_floating_point():
        return "categorical_crossentropy" if wide and (labels or _one_hot(targets)) else "mse"
    if output.ndim == targets.ndim + 1 and output.shape[-1] > 1:
        return "sparse_categorical_crossentropy"
    if wide and _one_hot(targets):
        return "categorical_crossentropy"
    if not _bits(targets):
        raise InputError(
            f"y has {int(targets.min())} to {int(targets.max())}, and the output {list(output.shape)} no such classes",
            hint='Give 0 and 1, or one class a row for an output of several; amounts as floats, or with loss="mse"',
        )
    return "binary_crossentropy"


def _bits(targets: Tensor) -> bool:
    return bool(((targets == 0) | (targets == 1)).all())


def _one_hot(targets: Tensor) -> bool:
    return _bits(targets) and bool((targets.sum(-1) == 1).all())


def loss_of(fit: Fit, name: str, output: str, device: torch.device) -> Loss:
    """The loss for an output of this name. ConfigError where class weights have no meaning for it."""
    if callable(fit.loss):
        return _Function(fit.loss)
    weights = None if fit.class_weights is None else torch.tensor(fit.class_weights, device=device)
    if weights is not None and name not in CLASSES:
        raise ConfigError(f"class_weights mean nothing for the loss {name!r}", hint="Leave them out")
    return _KINDS[name](name, output == "probabilities", weights)


class _Sparse:
    def __init__(self, name: str, probabilities: bool, weights: Tensor | None) -> None:
        self.name, self._probabilities, self._weights = name, probabilities, weights

    def weight(self, targets: Tensor) -> Tensor | float:
        seen = targets != IGNORED
        if self._weights is None:
            return seen.sum().clamp(min=1)
        return (self._weights[targets.clamp(min=0)] * seen).sum().clamp(min=1e-12)

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.ndim != targets.ndim + 1:
            raise _shapes(self.name, outputs, targets, "classes have one axis less than the output")
        if self._weights is not None and len(self._weights) != outputs.shape[-1]:
            told = f"class_weights has {len(self._weights)} numbers, and there are {outputs.shape[-1]} classes"
            raise ConfigError(told)
        flat, classes = outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1)
        weights = None if self._weights is None else self._weights.to(flat.dtype)
        if self._probabilities:
            logs = flat.clamp(TINY, 1 - TINY).log()
            return functional.nll_loss(logs, classes, weights, ignore_index=IGNORED, reduction="sum")
        return functional.cross_entropy(flat, classes, weights, ignore_index=IGNORED, reduction="sum")


class _Categorical(_Sparse):
    def weight(self, targets: Tensor) -> Tensor | float:
        if self._weights is None:
            return targets.numel() / targets.shape[-1]
        return (targets * self._weights).sum().clamp(min=1e-12)

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if not targets.is_floating_point():  # one-hot, as integers
            targets = targets.to(outputs.dtype)
        if outputs.shape != targets.shape:
            raise _shapes(self.name, outputs, targets, "targets are shaped as the output")
        logs = outputs.clamp(TINY, 1 - TINY).log() if self._probabilities else outputs.log_softmax(-1)
        parts = -targets * logs
        return (parts if self._weights is None else parts * self._weights).sum()


class _Binary(_Sparse):
    def weight(self, targets: Tensor) -> Tensor | float:
        if self._weights is None:
            return targets.numel()
        return self._of(targets).sum().clamp(min=1e-12)

    def _of(self, targets: Tensor) -> Tensor:
        assert self._weights is not None
        if len(self._weights) != 2:
            raise ConfigError(f"class_weights has {len(self._weights)} numbers; for binary_crossentropy give 2")
        return self._weights[0] + (self._weights[1] - self._weights[0]) * targets

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        targets = _alike(self.name, outputs, targets)
        weights = None if self._weights is None else self._of(targets).to(outputs.dtype)
        if self._probabilities:
            outputs = outputs.clamp(TINY, 1 - TINY)
            return functional.binary_cross_entropy(outputs, targets, weights, reduction="sum")
        return functional.binary_cross_entropy_with_logits(outputs, targets, weights, reduction="sum")


class _Distance:
    def __init__(self, name: str, probabilities: bool, weights: Tensor | None) -> None:
        self.name, self._distance = name, _DISTANCES[name]

    def weight(self, targets: Tensor) -> Tensor | float:
        return targets.numel()

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        found: Tensor = self._distance(outputs, _alike(self.name, outputs, targets), reduction="sum")
        return found


class _Function:
    """A user's own: it gives the mean of a batch."""

    name = "function"

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def weight(self, targets: Tensor) -> Tensor | float:
        return len(targets)

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        try:
            found = self._function(outputs, targets)
        except AiaasError:
            raise
        except Exception as error:
            raise ConfigError(
                f"the function for the loss raised {type(error).__name__}: {error}",
                hint=f"It is called with outputs {list(outputs.shape)} and targets {list(targets.shape)}",
            ) from error
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise ConfigError("the function for the loss gave no single number", hint="Let it give the mean of a batch")
        if outputs.requires_grad and not found.requires_grad:
            raise ConfigError("what the function for the loss gave has no gradient", hint="Compute it from the outputs")
        return found.reshape(()) * len(targets)


def _alike(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """Targets in the output's shape and dtype; a last axis of 1 may be left out."""
    if outputs.shape == (*targets.shape, 1):
        targets = targets.unsqueeze(-1)
    if outputs.shape != targets.shape:
        raise _shapes(name, outputs, targets, "targets are shaped as the output")
    return targets.to(outputs.dtype)


def _shapes(name: str, outputs: Tensor, targets: Tensor, rule: str) -> InputError:
    hint = f"For it {rule}"
    if targets.ndim == outputs.ndim - 1 and targets.is_floating_point():
        hint += "; classes are given as whole numbers: y.astype(np.int64)"
    return InputError(
        f"the loss {name!r} can't compare an output {list(outputs.shape)} with targets {list(targets.shape)}", hint=hint
    )


_DISTANCES: dict[str, Callable[..., Tensor]] = {
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
}
_KINDS: dict[str, Callable[[str, bool, Tensor | None], Loss]] = {
    "sparse_categorical_crossentropy": _Sparse,
    "categorical_crossentropy": _Categorical,
    "binary_crossentropy": _Binary,
    "mse": _Distance,
    "mae": _Distance,
    "huber": _Distance,
}
