"""Checks that the architectures share. Their arguments may come from a file, so they bound what is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiaas_sdk.errors import ConfigError

__all__ = ["LARGEST", "one_input", "sizes"]

LARGEST = 1 << 24
"""No layer and no image is wider."""


def sizes(**named: int) -> None:
    """Each is a whole number from 1 to LARGEST, else ConfigError with its name."""
    for name, size in named.items():
        if type(size) is not int or not 1 <= size <= LARGEST:
            raise ConfigError(f"{name} is {size!r}; it is a whole number from 1 to {LARGEST}")


def one_input(name: str, inputs: Mapping[str, tuple[str, Sequence[int]]], rank: int) -> Sequence[int]:
    """The shape of the only input, all of whose axes but the first are known."""
    shapes = [shape for _, shape in inputs.values()]
    if len(shapes) != 1 or len(shapes[0]) != rank or any(size < 1 for size in shapes[0][1:]):
        raise ConfigError(
            f"the architecture {name!r} takes one input of {rank} axes",
            hint='Give inputs={"NAME": ("FP32", [-1, ...])} with the sizes of one row',
        )
    return shapes[0]
