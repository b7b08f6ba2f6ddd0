"""What a user hands over, by input name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiaas_sdk.errors import InputError
from aiaas_sdk.records.model import ModelInfo

__all__ = ["given", "records_in"]


def given(inputs: Any, info: ModelInfo) -> Mapping[str, Any]:
    """Inputs by name: a bare array is the only one. InputError names what is unknown or missing."""
    names = [spec.name for spec in info.inputs]
    if not isinstance(inputs, Mapping):
        if len(names) > 1:
            raise InputError(f"{info.name} has {len(names)} inputs: {', '.join(names)}", hint="Give {NAME: array, ...}")
        return {names[0] if names else "input": inputs}
    unknown = [name for name in inputs if names and name not in names]
    missing = [name for name in names if name not in inputs]
    if unknown or missing:
        import difflib

        near = difflib.get_close_matches(str(unknown[0]), names, 1) if unknown else []
        what = f"unknown input {str(unknown[0])[:80]!r}" if unknown else f"input {missing[0]!r} is missing"
        raise InputError(
            f"{info.name}: {what}; its inputs are {', '.join(names)}",
            hint=f"Did you mean {near[0]!r}?" if near else None,
        )
    return inputs


def records_in(inputs: Any, kind: type[Any] | None) -> list[Any] | None:
    """The records among what `predict` was given; None where these are arrays.

    A mapping alone is arrays by name; in a list it is a record.
    """
    if kind is None:
        return None
    if not isinstance(inputs, list | tuple):
        return [inputs] if isinstance(inputs, kind) or hasattr(inputs, "model_dump") else None
    return list(inputs) if all(isinstance(i, Mapping) or hasattr(i, "model_dump") for i in inputs) else None
