"""Optimizers by name, with the values that the field uses.

With g the gradient, w a weight and r the learning rate, a step is

| name | r | w becomes | from |
|---|---|---|---|
| gd | 0.1 | w - r g, with g over all rows: one step an epoch | Cauchy 1847 |
| sgd | 0.01 | w - r g, with g over a batch | Robbins and Monro 1951 |
| momentum | 0.01 | v = 0.9 v + g; w - r v | Polyak 1964 |
| nesterov | 0.01 | v = 0.9 v + g; w - r (g + 0.9 v) | Nesterov 1983, as Sutskever et al. 2013 |
| adagrad | 0.01 | s = s + g^2; w - r g / (sqrt(s) + 1e-10) | Duchi et al. 2011 |
| rmsprop | 0.001 | s = 0.9 s + 0.1 g^2; w - r g / (sqrt(s) + 1e-8) | Tieleman and Hinton 2012 |
| adam | 0.001 | m = 0.9 m + 0.1 g; s = 0.999 s + 0.001 g^2; w - r m' / (sqrt(s') + 1e-8), m' = m / (1 - 0.9^t), s' = s / (1 - 0.999^t) | Kingma and Ba 2015 |
| adamw | 0.001 | w = w - 0.01 r w, then as adam | Loshchilov and Hutter 2019 |

PyTorch's own classes compute them, with their fused kernels where there are some: one call a step, not some for each
weight.
"""  # noqa: E501  (a table's row is a line)

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import ConfigError
from aiaas_sdk.records.training import Fit

__all__ = ["KINDS", "optimizer_of"]

KINDS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "gd": (SGD, {"lr": 0.1}),
    "sgd": (SGD, {"lr": 0.01}),
    "momentum": (SGD, {"lr": 0.01, "momentum": 0.9}),
    "nesterov": (SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    "adagrad": (Adagrad, {"lr": 0.01, "eps": 1e-10}),
    "rmsprop": (RMSprop, {"lr": 0.001, "alpha": 0.9, "eps": 1e-8}),
    "adam": (Adam, {"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-8}),
    "adamw": (AdamW, {"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}),
}


FUSED: Mapping[type[Optimizer], frozenset[str]] = {kind: frozenset(("cpu", "cuda")) for kind in (SGD, Adam, AdamW)} | {
    Adagrad: frozenset(("cpu",))
}
"""Where the kinds of optimizers have fused kernels."""


def optimizer_of(fit: Fit, parameters: Iterable[torch.nn.Parameter]) -> Optimizer:
    """The optimizer of a run.

    Raises:
        ConfigError: a function gave something else, or raised.
    """
    weights = [parameter for parameter in parameters if parameter.requires_grad]
    if not weights:
        raise ConfigError("the module has no parameter that is trained", hint="Each has requires_grad=False")
    if callable(fit.optimizer):
        return _made(fit.optimizer, weights, fit.learning_rate)
    kind, values = KINDS[fit.optimizer]
    if fit.learning_rate is not None:
        values = {**values, "lr": fit.learning_rate}
    if all(weight.device.type in FUSED.get(kind, ()) and weight.is_floating_point() for weight in weights):
        values = {**values, "fused": True}
    return kind(weights, **values)


def _made(make: Callable[..., Any], weights: list[torch.nn.Parameter], rate: float | None) -> Optimizer:
    try:
        found = make(weights)
    except Exception as error:
        raise ConfigError(
            f"the function for the optimizer raised {type(error).__name__}: {error}",
            hint="It is called with the parameters: optimizer=lambda p: torch.optim.Adam(p, lr=0.01)",
        ) from error
    if not isinstance(found, Optimizer):
        raise ConfigError(f"the function for the optimizer gave {kind_of(found)}, no torch.optim.Optimizer")
    for group in found.param_groups if rate is not None else ():
        group["lr"] = rate
    return found
