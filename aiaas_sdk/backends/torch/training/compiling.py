"""`torch.compile` where it works on this machine."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aiaas_sdk.backends.torch import programs
from aiaas_sdk.backends.torch.probing import flat_outputs
from aiaas_sdk.backends.torch.training.randomness import Randomness

__all__ = ["compiled"]

logger = logging.getLogger("aiaas_sdk.training")


def compiled(module: torch.nn.Module, example: Mapping[str, Tensor]) -> tuple[Any, str | None]:
    """The module compiled, or itself and why it couldn't be (no C++ compiler, code that can't be traced).

    It is tried first, forwards and backwards, on a copy that is thrown away.
    """
    device = next(module.parameters()).device
    try:
        with Randomness(0, device, everything=False), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own words about its own insides
            trial = copy.deepcopy(module).train()
            given = [tensor.to(device) for tensor in example.values()]
            outputs = flat_outputs(programs.call(torch.compile(trial, dynamic=True), list(example), given))  # type: ignore[arg-type]
            sums = [output.float().sum() for output in outputs.values() if output.requires_grad]
            torch.stack(sums).sum().backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no message"])[0][:200]
        why = f"torch.compile doesn't work here ({type(error).__name__}: {first})"
        logger.warning("%s; the run goes on without", why)
        return module, why
    return torch.compile(module, dynamic=True), None
