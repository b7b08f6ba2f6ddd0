"""What may stand where an array is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Numbers: TypeAlias = list[float] | list[list[float]] | list[list[list[float]]] | list[list[list[list[float]]]]
    Texts: TypeAlias = list[str] | list[bytes] | list[list[str]] | list[list[bytes]]

__all__ = ["Array", "Arrays", "SupportsArray", "SupportsDlpack"]


class SupportsArray(Protocol):
    """Anything with `__array__`, torch tensors among them."""

    def __array__(self) -> npt.NDArray[Any]: ...


class Datatyped(Protocol):
    """A tensor as it travels (`aiaas_sdk.tensors.Tensor`), taken as it is."""

    @property
    def datatype(self) -> str: ...
    @property
    def array(self) -> Any: ...


class SupportsDlpack(Protocol):
    """Anything with `__dlpack__`."""

    def __dlpack__(self) -> Any: ...


Array: TypeAlias = "npt.NDArray[Any] | np.generic | SupportsArray | SupportsDlpack | Numbers | Texts | Datatyped"
Arrays: TypeAlias = "Array | Mapping[str, Array]"
"""A bare array where the model has one input, else a mapping from input name to array."""
