"""Records of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from difflib import get_close_matches
from os import PathLike, fspath
from typing import Any, Literal, Self, TypeAlias, TypedDict

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import ConfigError, UnsupportedOperationError

__all__ = ["ENDED", "LOSSES", "METRICS", "OPTIMIZERS", "SCHEDULES", "Event", "Fit", "Status", "Training"]

Event: TypeAlias = Mapping[str, Any]
"""What a run tells: plain values that JSON can hold. `type` is "started", "step", "epoch", "checkpoint" or "ended".

`time` is in seconds since 1970. "step" and "epoch" have `epoch` and `step` (both from 1), `epochs`, `steps` (None where
nobody knows), `metrics` by name, `learning_rate`, `rate` (rows a second), `eta` (seconds left, None where nobody
knows). "checkpoint" has `epoch`, `step` and `path`. "ended" has `status`, and `address` or `error` (`type`, `message`,
`hint`).
"""
Status: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled"]
ENDED: frozenset[Status] = frozenset(("succeeded", "failed", "cancelled"))

OPTIMIZERS = ("gd", "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")
LOSSES = (
    "auto",
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "binary_crossentropy",
    "mse",
    "mae",
    "huber",
)
METRICS = ("accuracy", "top_k_accuracy", "precision", "recall", "f1", "auc", "mse", "mae")
SCHEDULES = ("constant", "linear", "cosine", "step", "exponential", "onecycle")
LEAST = 1e-12
"""What is smaller is lost among the digits of weights and gradients: nothing would be learned, and no error told."""


class Training(TypedDict, total=False):
    """Further options of `fit`; `Fit` says what each means."""

    schedule: str
    warmup_steps: int
    clip_norm: float | None
    accumulate: int
    mixed_precision: bool
    compile: bool
    early_stopping: int | None
    class_weights: Sequence[float] | None
    checkpoint: str | PathLike[str] | None
    checkpoint_steps: int | None
    checkpoint_seconds: float | None
    shuffle: bool
    tensorboard: str | PathLike[str] | None


@dataclass(frozen=True, kw_only=True)
class Fit:
    """All settings of one `fit`, checked.

    Attributes:
        epochs: how often all rows are gone through.
        batch_size: rows of one forward pass. A last batch of one row joins the one before it, since batch
            normalisation can't learn from one row.
        optimizer: one of OPTIMIZERS, or a function that makes a `torch.optim.Optimizer` from the parameters.
        learning_rate: None for the optimizer's own.
        loss: one of LOSSES, or a function of outputs and targets that gives their mean loss; "auto" goes by the output
            and the targets.
        metrics: of METRICS. "accuracy" is left out where the targets aren't classes.
        validation: the share of the rows, drawn by the seed, that isn't trained with; None for none, or for rows that
            were handed over by themselves.
        seed: of all that is drawn; None takes one that is new each time, and noted.
        workers: processes.
        resume: go on from the checkpoint that an earlier run with the same settings and rows left, if there is one.
        schedule: how the learning rate moves over the steps of the run, one of SCHEDULES.
        warmup_steps: steps in which the learning rate rises evenly from 0 before that; the log warns where
            the run has fewer.
        clip_norm: the length that the gradient of all parameters is cut down to; None leaves it.
        accumulate: batches whose gradients make one step, as one batch so many times as large would.
        mixed_precision: compute in bfloat16 where PyTorch's autocast deems it safe; weights stay as they are.
        compile: run the module through `torch.compile`, where it works on this machine.
        early_stopping: epochs without a better loss (of validation, where there is one) after which the run ends; the
            result has the weights of the best epoch. None for never.
        class_weights: what a row of each class counts.
        checkpoint: the folder of the checkpoints; None for one beside the bundle, which goes when the run succeeds.
        checkpoint_steps, checkpoint_seconds: write one so often, besides that of each epoch.
        shuffle: go through the rows in another order each epoch.
        tensorboard: the folder of event files for TensorBoard; None for none.

    Raises:
        ConfigError: a setting can't be; it says which, and what can.
    """

    epochs: int = 1
    batch_size: int = 32
    optimizer: str | Callable[..., Any] = "adam"
    learning_rate: float | None = None
    loss: str | Callable[..., Any] = "auto"
    metrics: tuple[str, ...] = ("accuracy",)
    validation: float | None = None
    seed: int | None = None
    workers: int = 1
    resume: bool = False
    schedule: str = "constant"
    warmup_steps: int = 0
    clip_norm: float | None = None
    accumulate: int = 1
    mixed_precision: bool = False
    compile: bool = False
    early_stopping: int | None = None
    class_weights: tuple[float, ...] | None = None
    checkpoint: str | None = None
    checkpoint_steps: int | None = None
    checkpoint_seconds: float | None = None
    shuffle: bool = True
    tensorboard: str | None = None

    def __post_init__(self) -> None:
        self._settle()
        for name in ("epochs", "batch_size", "workers", "accumulate"):
            _whole(name, getattr(self, name), 1)
        _whole("warmup_steps", self.warmup_steps, 0)
        for name in ("early_stopping", "checkpoint_steps"):
            _whole(name, getattr(self, name), 1, none=True)
        for name, least in (("learning_rate", LEAST), ("clip_norm", LEAST), ("checkpoint_seconds", 0.0)):
            _above_zero(name, getattr(self, name), least)
        for name in ("resume", "mixed_precision", "compile", "shuffle"):
            if type(getattr(self, name)) is not bool:
                raise ConfigError(f"{name} is {getattr(self, name)!r}", hint="Give True or False")
        _whole("seed", self.seed, 0, none=True, most=2**63 - 1)
        self._check_names()
        self._check_shares()

    def _settle(self) -> None:
        """Sequences as tuples, paths as text: what can be compared and written."""
        for name in ("metrics", "class_weights"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise ConfigError(f"{name} is the text {value!r}", hint=f"Give a list: {name}=[{value!r}]")
            if isinstance(value, Mapping | Set | bytes):  # its keys, its order or its bytes would be taken
                raise ConfigError(f"{name} is {kind_of(value)}", hint="Give a list, in the order of the classes")
            if value is not None:
                object.__setattr__(self, name, _items(name, value))
        for name in ("checkpoint", "tensorboard"):
            if (value := getattr(self, name)) is not None:
                try:
                    object.__setattr__(self, name, str(fspath(value)))
                except TypeError:
                    raise ConfigError(f"{name} is {value!r}", hint="Give the path of a folder") from None

    def _check_names(self) -> None:
        for name, known in (("optimizer", OPTIMIZERS), ("loss", LOSSES)):
            value = getattr(self, name)
            if not callable(value):
                _one_of(name, value, known)
        _one_of("schedule", self.schedule, SCHEDULES)
        for metric in self.metrics:
            _one_of("metrics", metric, METRICS)

    def _check_shares(self) -> None:
        if self.validation is not None and not (_number(self.validation) and 0 < self.validation < 1):
            raise ConfigError(
                f"validation is {self.validation!r}",
                hint="Give a share of the rows between 0 and 1, or a pair (x, y)",
            )
        if self.class_weights is not None:
            _check_weights(self.class_weights)

    # ------------------------------------------------------------ as JSON
    def document(self) -> dict[str, Any]:
        """The settings as plain values; `of` reads them.

        Raises:
            UnsupportedOperationError: the optimizer or the loss is a function, which can't travel.
        """
        for name in ("optimizer", "loss"):
            if callable(getattr(self, name)):
                raise UnsupportedOperationError(
                    f"{name} is a function, which can't be sent or kept", hint=f"Give {name} by its name"
                )
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The settings from plain values; what isn't there is as by default. ConfigError where one can't be."""
        known = {field.name for field in fields(cls)}
        for name in document:
            if name not in known:
                raise ConfigError(f"fit has no setting {str(name)[:80]!r}", hint=_meant(str(name), sorted(known)))
        return cls(**document)


def _items(name: str, value: Any) -> tuple[Any, ...]:
    try:
        return tuple(value.tolist() if hasattr(value, "tolist") else value)
    except TypeError:
        raise ConfigError(f"{name} is {value!r}", hint="Give a list") from None


def _number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _whole(name: str, value: Any, least: int, none: bool = False, most: int = 1 << 40) -> None:
    if none and value is None:
        return
    if type(value) is not int or not least <= value <= most:
        other = ", or None" if none else ""
        raise ConfigError(f"{name} is {value!r}", hint=f"Give a whole number from {least} on{other}")


def _above_zero(name: str, value: Any, least: float) -> None:
    if value is not None and not (_number(value) and value > 0 and value >= least):
        bound = f"from {least:g} on" if least else "above 0"
        raise ConfigError(f"{name} is {repr(value)[:80]}", hint=f"Give a number {bound}, or None")


def _check_weights(weights: Sequence[Any]) -> None:
    for place, weight in enumerate(weights):
        if not (_number(weight) and (weight == 0 or LEAST <= weight <= 1 / LEAST)):
            raise ConfigError(
                f"class_weights has {repr(weight)[:80]} for class {place}, which is no weight",
                hint=f"Give each class 0, or a number from {LEAST:g} to {1 / LEAST:g}; it is their ratio that counts",
            )
    if not any(weights):
        raise ConfigError(
            f"class_weights has {'no number above 0' if weights else 'no numbers'}, so no row would count",
            hint="Give each class a number, and more than 0 to those that are to be learned",
        )


def _one_of(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name} has {value!r}", hint=_meant(str(value), known))


def _meant(value: str, known: Sequence[str]) -> str:
    near = get_close_matches(value, known, 1)
    return (f"Did you mean {near[0]!r}? " if near else "") + f"It is one of {', '.join(known)}"
