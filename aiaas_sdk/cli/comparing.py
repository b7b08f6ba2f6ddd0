"""`aiaas compare`: the inputs of a file, given to two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from aiaas_sdk.api import load
from aiaas_sdk.cli.reading import read
from aiaas_sdk.errors import UnsupportedOperationError
from aiaas_sdk.model import Model
from aiaas_sdk.parity import compare
from aiaas_sdk.records.comparison import Comparison

__all__ = ["compared"]


def compared(
    a: str,
    b: str,
    paths: Sequence[str],
    name: str | None,
    options: Mapping[str, Any],
    *,
    rtol: float,
    atol: float,
    repeat: int,
    resize: bool,
) -> Comparison:
    """`compare` with inputs from files, read as the first model wants them. `options` go to whom they concern."""
    with _loaded(a, options) as first, _loaded(b, options) as second:
        inputs = read(paths, first.info(), name, resize=resize)
        given: Any = next(iter(inputs.values())) if len(inputs) == 1 else inputs
        found = compare(first, second, given, rtol=rtol, atol=atol, repeat=repeat)
        return replace(found, a=a, b=b)


def _loaded(address: str, options: Mapping[str, Any]) -> Model[Any, Any]:
    given: Any = dict(options)
    try:
        return load(address, **given)
    except UnsupportedOperationError:  # a device is nothing to a model behind an endpoint
        given.pop("device", None)
        return load(address, **given)
