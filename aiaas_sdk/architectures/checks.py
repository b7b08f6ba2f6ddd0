"""Checks that the architectures share. Their arguments may come from a file, so they bound what is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from aiaas_sdk.errors import ConfigError

__all__ = [
    "FLOATS",
    "LARGEST",
    "LAYERS",
    "TOKENS",
    "Inputs",
    "choice",
    "share",
    "sizes",
    "some_sizes",
    "truth",
    "unfit",
]

LARGEST = 1 << 24
"""No layer and no image is wider."""
LAYERS = 1024
"""No module is deeper: each layer costs memory before a weight is looked at."""
FLOATS = ("FP32",)
"""Datatypes of an input of numbers: that of the weights which `create` makes."""
TOKENS = ("INT64", "INT32")
"""Datatypes of an input of token ids."""
Inputs = Mapping[str, tuple[str, Sequence[int]]]
"""Name -> (datatype, shape), as `create` takes it."""


def sizes(**named: int) -> None:
    """Each is a whole number from 1 to LARGEST, else ConfigError with its name."""
    for name, size in named.items():
        if type(size) is not int or not 1 <= size <= LARGEST:
            raise ConfigError(f"{name} is {size!r:.80}; it is a whole number from 1 to {LARGEST}")


def some_sizes(name: str, values: Any, least: int = 1) -> list[int]:
    """A list of such numbers, of at most LAYERS; ConfigError with the name."""
    if isinstance(values, str) or not isinstance(values, Sequence) or not least <= len(values) <= LAYERS:
        raise ConfigError(f"{name} is {values!r:.80}; it is a list of {least} to {LAYERS} whole numbers")
    sizes(**{f"{name}[{index}]": size for index, size in enumerate(values)})
    return list(values)


def choice(name: str, value: Any, known: Iterable[str]) -> None:
    """It is one of these, else ConfigError that lists them."""
    if not isinstance(value, str) or value not in tuple(known):
        raise ConfigError(f"{name} is {value!r:.80}", hint=f"One of {', '.join(known)}")


def share(name: str, value: Any) -> None:
    """A number from 0 on and below 1, else ConfigError."""
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise ConfigError(f"{name} is {value!r:.80}; it is a number from 0 on and below 1")


def truth(name: str, value: Any) -> None:
    """True or false, else ConfigError."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r:.80}; it is true or false")


def unfit(architecture: str, inputs: Inputs, *fitting: str) -> NoReturn:
    """ConfigError: the architecture doesn't take this signature; `fitting` are those that it takes."""
    came = ", ".join(f"{name} {datatype} {list(shape)}" for name, (datatype, shape) in inputs.items())
    raise ConfigError(
        f"the architecture {architecture!r} doesn't take {came}", hint=f"It takes {'; or '.join(fitting)}"
    )
