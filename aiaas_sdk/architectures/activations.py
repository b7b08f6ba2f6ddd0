"""Activations by name: what comes between layers.

| name | of x | source |
|---|---|---|
| relu | max(0, x) | Nair and Hinton 2010, "Rectified Linear Units Improve Restricted Boltzmann Machines" |
| sigmoid | 1 / (1 + e^-x) | Rumelhart et al. 1986, "Learning Representations by Back-propagating Errors" |
| tanh | (e^x - e^-x) / (e^x + e^-x) | LeCun et al. 1998, "Efficient BackProp" |
| gelu | x (1 + erf(x / sqrt 2)) / 2 | Hendrycks and Gimpel 2016, "Gaussian Error Linear Units" |
| silu | x sigmoid(x) | the same; Ramachandran et al. 2017, "Searching for Activation Functions" |
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from aiaas_sdk.architectures.checks import choice

__all__ = ["ACTIVATIONS", "activation"]

ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def activation(name: str) -> nn.Module:
    """The activation of this name, as a module without weights. ConfigError where there is none."""
    choice("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()
