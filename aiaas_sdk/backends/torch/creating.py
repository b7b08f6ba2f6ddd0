"""An untrained module of a registered architecture, and an example of its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from aiaas_sdk.architectures import class_of
from aiaas_sdk.errors import AiaasError, ConfigError
from aiaas_sdk.tensors import DATATYPES

__all__ = ["untrained"]

Inputs = Mapping[str, tuple[str, Sequence[int]]]


def untrained(
    architecture: str,
    *,
    config: Mapping[str, Any] | None,
    inputs: Inputs | None,
    labels: Sequence[str] | None,
    seed: int | None,
) -> tuple[torch.nn.Module, Any]:
    """The module and an example, as `aiaas_sdk.create` describes them."""
    cls = class_of(architecture)
    configure = getattr(cls, "configure", None)
    found = dict(configure(inputs, labels)) if configure is not None and inputs else {}
    arguments = {**found, **(config or {})}
    with torch.random.fork_rng(devices=[]):  # the caller's own random numbers stay as they are
        if seed is not None:
            torch.manual_seed(seed)
        try:
            module = cls(**arguments)
        except AiaasError:
            raise
        except Exception as error:
            raise ConfigError(
                f"the architecture {architecture!r} doesn't take {sorted(arguments)} ({type(error).__name__}: {error})"
            ) from error
    return module, _example(architecture, module, inputs)


def _example(architecture: str, module: torch.nn.Module, inputs: Inputs | None) -> Any:
    if not inputs:
        shape = getattr(module, "example_shape", None)
        if shape is None:
            raise ConfigError(
                f"the architecture {architecture!r} doesn't say what it takes",
                hint='Give inputs={"NAME": ("FP32", [-1, ...])}',
            )
        return torch.zeros(shape)
    example = {name: _zeros(name, *spec) for name, spec in inputs.items()}
    return next(iter(example.values())) if len(example) == 1 else example


def _zeros(name: str, datatype: str, shape: Sequence[int]) -> torch.Tensor:
    if datatype not in DATATYPES or datatype == "BYTES":
        raise ConfigError(f"inputs: {name!r} has the datatype {datatype!r}", hint=f"One of {', '.join(DATATYPES)}")
    import numpy as np

    size = [1 if axis == -1 else axis for axis in shape]
    if datatype == "BF16":
        return torch.zeros(size, dtype=torch.bfloat16)
    return torch.from_numpy(np.zeros(size, DATATYPES[datatype].dtype))
