"""Whether a backend's class can be called as it will be: told when it is loaded, not at the first call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from aiaas_sdk.articles import kind_of, with_article

__all__ = ["check_backend"]

_BASE = "aiaas_sdk.backends.base"
_LOCAL: Mapping[str, tuple[str, ...]] = {
    "open": (),
    "predict": ("inputs", "outputs"),
    "generate": ("chat",),
    "stream": ("chat",),
    "embed": ("texts", "dimensions"),
    "close": (),
}
_REMOTE: Mapping[str, tuple[str, ...]] = {
    "opening": ("call",),
    "readiness": ("call",),
    "predict": ("call", "inputs", "outputs"),
    "generate": ("call", "chat"),
    "stream": ("call", "chat"),
    "embed": ("call", "texts", "dimensions"),
    "close": (),
}
_NEEDED = {"LocalBackend": ("open",), "RemoteBackend": ("opening", "readiness")}


def check_backend(cls: Any) -> None:
    """Raise TypeError, which says what is wrong, unless the class can serve.

    Its bases are told by name: whoever looks has no need to import them.
    """
    if not inspect.isclass(cls):
        raise TypeError(f"its hook aiaas_backend gave {_called(cls)}, which is no class")
    known = {base.__name__: base for base in cls.__mro__ if base.__module__ == _BASE}
    if "Backend" not in known:
        raise TypeError(f"its class {cls.__name__} is neither a LocalBackend nor a RemoteBackend")
    kinds = sorted(known.keys() & _NEEDED.keys())
    if len(kinds) > 1:
        raise TypeError(f"its class {cls.__name__} is both a LocalBackend and a RemoteBackend; it can be one")
    for kind in kinds:
        _check_methods(cls, kind, known[kind])


def _check_methods(cls: type[Any], kind: str, base: type[Any]) -> None:
    for name in _NEEDED[kind]:
        if getattr(cls, name) is getattr(base, name):
            raise TypeError(f"its class {cls.__name__} has no method {name}, which a {kind} needs")
    for name, arguments in (_LOCAL if kind == "LocalBackend" else _REMOTE).items():
        if (method := getattr(cls, name, None)) is not None:
            _check_method(cls, name, method, arguments)


def _check_method(cls: type[Any], name: str, method: Any, arguments: tuple[str, ...]) -> None:
    where = f"its class {cls.__name__} has"
    wanted = f"def {name}({', '.join(('self', *arguments))})"
    if not callable(method):
        raise TypeError(f"{where} {name} = {_called(method)}; write {wanted}")
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        raise TypeError(f"{where} an async {name}; a backend is written without async: {wanted}")
    try:
        inspect.signature(method).bind(None, *arguments)
    except TypeError as error:
        raise TypeError(f"{where} {with_article(name)} that can't be called as {wanted}: {error}") from None
    except ValueError:  # in C, and without a signature
        return


def _called(value: Any) -> str:
    return "nothing" if value is None else kind_of(value)
