"""The doors: from an address and options to a model."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from os import PathLike
from typing import Any, Unpack

from aiaas_sdk.address import Address, parse
from aiaas_sdk.engine import Engine
from aiaas_sdk.errors import AddressError, ConfigError
from aiaas_sdk.flow import AsyncSender, Sender
from aiaas_sdk.model import AsyncModel, Model
from aiaas_sdk.policies import around_request
from aiaas_sdk.records.options import ENGINE_OPTIONS, OPTION_NAMES, Options
from aiaas_sdk.registry import backend_class

__all__ = ["load", "load_async"]


def load(address: str | PathLike[str], **options: Unpack[Options]) -> Model[Any, Any]:
    """A model from its address. No network and no weights are touched until it is opened.

    Raises:
        AddressError, ConfigError: the address or an option is wrong.
        BackendNotInstalledError, PluginLoadError: nothing usable serves the scheme.
    """
    return Model(_engine(parse(address), options), options, around_request, partial(_again, load, address))


def load_async(address: str | PathLike[str], **options: Unpack[Options]) -> AsyncModel[Any, Any]:
    """The awaited twin of `load`: `async with load_async(address) as model`, or use it at once."""
    engine = _engine(parse(address), options)
    return AsyncModel(engine, options, around_request, partial(_again, load_async, address))


def _again(door: Callable[..., Any], address: str | PathLike[str], options: Mapping[str, Any]) -> Any:
    return door(address, **options)


def _engine(address: Address, options: Mapping[str, Any]) -> Engine:
    _check_options(options)
    if address.scheme == "name":
        raise AddressError(f"{address.text!r} is a bare name, and no settings name it", hint="Give scheme:target")
    cls = backend_class(address.scheme, str(address))
    given = {name: value for name, value in options.items() if name in ENGINE_OPTIONS}
    backend = cls(address, given)
    backend.prepare()
    return Engine(backend, _sender, _async_sender)


def _check_options(options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in OPTION_NAMES:
            near = difflib.get_close_matches(name, OPTION_NAMES, 1)
            raise ConfigError(f"unknown option {name!r}", hint=f"Did you mean {near[0]!r}" if near else None)
    concurrency = options.get("concurrency", 1)
    if not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigError(f"concurrency is {concurrency!r}", hint="Give a whole number from 1 on")


def _sender() -> Sender:
    from aiaas_sdk.transport import HttpSender

    return HttpSender()


def _async_sender() -> AsyncSender:
    from aiaas_sdk.transport import AsyncHttpSender

    return AsyncHttpSender()
