"""Plain values, as TOML and the environment have them, made into options and the records of the policies."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from aiaas_sdk.errors import AiaasError
from aiaas_sdk.records.hidden import Hidden
from aiaas_sdk.records.options import Options

__all__ = ["NONE", "MisfitError", "fit", "nearest", "option", "parsed", "what"]

NONE = "none"
"""How a text says None: TOML and the environment have no word for it."""

_WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text that isn't blank"}
_SECONDS = frozenset(("timeout", "attempt_timeout", "gap_timeout"))
_SECONDS_HINT = f'Give seconds, or "{NONE}" for no limit'
_COUNTS = frozenset(("concurrency", "batch_size"))


@dataclass(eq=False)
class MisfitError(Exception):
    """A value that doesn't fit. Never leaves this package: whoever knows file and table makes a ConfigError of it.

    Attributes:
        problem: completes "FILE [TABLE] KEY ...".
        key: the keys below the one that was asked for, as in "attempts".
        hint: what to do.
    """

    problem: str
    key: str = ""
    hint: str | None = None


def what(value: Any) -> str:
    """The sort of a TOML value, never the value itself."""
    names = {bool: "a truth value", int: "a whole number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "a table" if isinstance(value, Mapping) else "a date or time")


def nearest(name: str, known: Collection[str]) -> str:
    """A hint: the known name that is meant, or all of them."""
    import difflib  # only where something is wrong

    near = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(sorted(known)) or 'none'}"


@cache
def _hints(record: Any) -> Mapping[str, Any]:
    return get_type_hints(record)


# ---------------------------------------------------------------- options
def option(name: str, value: Any, folder: Path) -> Any:
    """A value as the option `name` of `records.options.Options` takes it; paths are relative to `folder`."""
    fitted = fit(value, _hints(Options)[name], folder)
    if name in _SECONDS and fitted is not None and not fitted > 0:
        raise MisfitError("isn't above 0", hint=_SECONDS_HINT)
    if name in _COUNTS and fitted < 1:
        raise MisfitError("isn't 1 or more")
    return fitted


def parsed(name: str, text: str) -> Any:
    """The text of an environment variable as the value that TOML would have for the option `name`."""
    hint = _hints(Options)[name]
    kinds = get_args(hint) or (hint,)
    if NoneType in kinds and text.lower() == NONE:
        return NONE
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                raise MisfitError(f"isn't {_WANTED[kind]}", hint=_SECONDS_HINT if name in _SECONDS else None) from None
    return text


# ---------------------------------------------------------------- any annotated value
def fit(value: Any, hint: Any, folder: Path) -> Any:
    """A TOML value as an annotation has it: numbers, text, paths, lists, tables, and the records of the policies."""
    if hint is Any or isinstance(value, Hidden):  # a header's value, which was text
        return value
    if hint in _WANTED:
        return _fit_scalar(value, hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _fit_union(value, arguments, folder)
    if origin is Literal:
        if not any(type(value) is type(known) and value == known for known in arguments):
            raise MisfitError(f"is none of {', '.join(map(str, arguments))}")
        return value
    if isinstance(hint, type) and is_dataclass(hint):
        return _fit_record(value, hint, folder)
    if hint is bytes:
        return _fit_scalar(value, str)
    if hint is Path or origin is os.PathLike:
        return folder / os.path.expanduser(_fit_scalar(value, str))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _fit_mapping(value, arguments[1], folder)
    if isinstance(origin, type) and issubclass(origin, Collection):
        return _fit_list(value, origin, arguments, folder)
    raise MisfitError("can't be given here", hint="Give it in code, to load")


def _fit_scalar(value: Any, kind: Any) -> Any:
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 1e300 else math.inf
    right = type(value) is kind and not (kind is float and not math.isfinite(value))
    if not right or (kind is str and not value.strip()):
        raise MisfitError(f"wants {_WANTED[kind]} and has {what(value)}")
    return value


def _fit_union(value: Any, kinds: tuple[Any, ...], folder: Path) -> Any:
    """The first kind that fits; else the misfit that names a key goes on, or the first one."""
    own = any(NONE in get_args(kind) for kind in kinds)  # Literal["none"]: the word means something else there
    if NoneType in kinds and ((value == NONE and not own) or (value is False and any(map(is_dataclass, kinds)))):
        return None  # `retry = false` switches a policy off
    misfit: MisfitError | None = None
    for kind in _plainest_first(kinds):
        try:
            return fit(value, kind, folder)
        except MisfitError as error:
            if misfit is None or error.key:
                misfit = error
    raise misfit or MisfitError("can't be given here")


@cache
def _plainest_first(kinds: tuple[Any, ...]) -> list[Any]:
    """Scalars before text (an annotation's own order says nothing), what no file can hold last."""
    order = {bool: 0, int: 1, float: 2, str: 4}
    return sorted(
        (kind for kind in kinds if kind is not NoneType),
        key=lambda kind: order.get(kind, 3 if get_origin(kind) or is_dataclass(kind) else 5),
    )


def _fit_record(value: Any, record: Any, folder: Path) -> Any:
    """A policy: a table of its fields, or `true` for one with its defaults."""
    if value is True:
        value = {}
    if not isinstance(value, Mapping):
        raise MisfitError(f"wants a table and has {what(value)}", hint=f"Its keys: {', '.join(_hints(record))}")
    fields = {}
    for key, entry in value.items():
        if key not in _hints(record):
            raise MisfitError("is unknown", key, nearest(key, _hints(record)))
        if _hints(record)[key] is Any:  # an object of somebody's, which no file can hold
            raise MisfitError("can't be given here", key, hint="Give it in code, to load")
        fields[key] = _below(key, entry, _hints(record)[key], folder)
    try:
        return record(**fields)
    except (ValueError, TypeError, AiaasError) as error:
        problem = error.message if isinstance(error, AiaasError) else str(error)
    raise MisfitError(f"doesn't fit: {problem}")


def _fit_mapping(value: Any, kind: Any, folder: Path) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise MisfitError(f"wants a table and has {what(value)}")
    return {key: _below(key, entry, kind, folder) for key, entry in value.items()}


def _fit_list(value: Any, origin: type[Any], kinds: tuple[Any, ...], folder: Path) -> Any:
    if not isinstance(value, list):
        raise MisfitError(f"wants a list and has {what(value)}")
    fixed = origin is tuple and kinds[-1] is not Ellipsis
    if fixed and len(value) != len(kinds):
        raise MisfitError(f"wants a list of {len(kinds)}")
    each = kinds if fixed else (kinds[0],) * len(value)
    fitted = [_below(str(i), entry, kind, folder) for i, (entry, kind) in enumerate(zip(value, each, strict=True))]
    return frozenset(fitted) if issubclass(origin, frozenset | set) else tuple(fitted)


def _below(key: str, value: Any, hint: Any, folder: Path) -> Any:
    try:
        return fit(value, hint, folder)
    except MisfitError as error:
        error.key = f"{key}.{error.key}" if error.key else key
        raise
