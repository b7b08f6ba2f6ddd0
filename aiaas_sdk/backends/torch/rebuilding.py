"""A module from a class, plain arguments and a bundle's weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from aiaas_sdk.articles import kind_of
from aiaas_sdk.backends.torch import chance
from aiaas_sdk.errors import AiaasError, BundleError

__all__ = ["rebuild"]


def rebuild(
    cls: Callable[..., torch.nn.Module],
    config: Mapping[str, Any],
    state: Mapping[str, torch.Tensor],
    dtype: str,
    where: str,
) -> torch.nn.Module:
    """The module with these weights, in eval mode.

    Args:
        cls, config: called to make the module. A class with `state_is_all = True` has no tensors but those of its
            state; its module takes the weights as they are, and none are drawn first.
        state: the weights by name.
        dtype: the floating dtype it was saved with, "" to leave the class's own.
        where: the bundle, for messages.

    Raises:
        BundleError: the class refuses the arguments, or a tensor is missing, extra, or of another shape or dtype.
            It is found on the meta device, before anything of the architecture's size is allocated.
    """
    with chance.apart():  # first weights are drawn, and nobody's random numbers may move on
        with torch.device("meta"):
            module = _made(cls, config, dtype, where)
            _check(module.state_dict(), state, where)
        whole = getattr(cls, "state_is_all", False)
        if not whole:
            module = _made(cls, config, dtype, where)
    module.load_state_dict(dict(state), assign=whole)
    return module.eval()


def _made(cls: Callable[..., torch.nn.Module], config: Mapping[str, Any], dtype: str, where: str) -> torch.nn.Module:
    name = getattr(cls, "__name__", "the class")
    try:
        module = cls(**config)
    except AiaasError as error:
        raise BundleError(f"{where}: {name}: {error.message}") from error
    except Exception as error:
        raise BundleError(
            f"{where}: {name} can't be made from the arguments {sorted(config)} ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise BundleError(f"{where}: {name} gives {kind_of(module)}, which is no torch.nn.Module")
    kind = getattr(torch, dtype, None) if dtype else None
    return module.to(kind) if isinstance(kind, torch.dtype) else module


def _check(wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], where: str) -> None:
    for name in state:
        if name not in wanted:
            raise BundleError(f"{where}: the weights have {name!r}, which the architecture hasn't")
    for name, tensor in wanted.items():
        found = state.get(name)
        if found is None:
            raise BundleError(f"{where}: the weights lack {name!r}, which the architecture has")
        if found.shape != tensor.shape or found.dtype != tensor.dtype:
            raise BundleError(
                f"{where}: {name!r} is {found.dtype} {list(found.shape)}; the architecture has {tensor.dtype} "
                f"{list(tensor.shape)}"
            )
