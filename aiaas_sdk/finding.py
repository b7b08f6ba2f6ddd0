"""From what `load` was given to addresses with all their options: arguments, settings, credentials, trust."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, TypeAlias

from aiaas_sdk.address import Address, parse
from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import AddressError, ConfigError
from aiaas_sdk.records.options import OPTION_NAMES
from aiaas_sdk.records.secret import hide
from aiaas_sdk.records.trusted import Trusted
from aiaas_sdk.settings import Settings, read

__all__ = ["Found", "Member", "Where", "check_options", "find"]

Where: TypeAlias = "str | PathLike[str] | Sequence[str | PathLike[str]]"


@dataclass(frozen=True, slots=True)
class Member:
    """One address and its options. `asked` are those that the caller named; the others may not concern it."""

    address: Address
    options: Mapping[str, Any]
    asked: frozenset[str]
    sources: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """The members of a route, or the only one; `options` are the model's own."""

    members: tuple[Member, ...]
    options: Mapping[str, Any]
    sources: Mapping[str, str]
    text: str
    route: bool


def find(where: Where, options: Mapping[str, Any]) -> Found:
    """Every setting that concerns an address, a name or a list of them.

    An argument goes before the entry of a name, that before the environment, that before the settings' defaults.

    Raises:
        AddressError, ConfigError: something of it is wrong.
    """
    hide(options)
    check_options(options)
    settings = read()
    if isinstance(where, str | PathLike):
        return _one(where, options, settings)
    if not isinstance(where, Sequence) or isinstance(where, bytes):
        raise AddressError(f"the address is {kind_of(where)}", hint="Give text, a path, or a list of them")
    return _route(tuple(where), options, settings, *_general(options, settings))


def _general(options: Mapping[str, Any], settings: Settings) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    defaults, sources = settings.defaults
    return {**defaults, **options}, {**sources, **dict.fromkeys(options, "argument")}


def _one(where: str | PathLike[str], options: Mapping[str, Any], settings: Settings) -> Found:
    address = parse(where)
    if address.scheme != "name":
        merged, sources = _general(options, settings)
        member = _member(address, merged, frozenset(options), sources, settings)
        return Found((member,), merged, member.sources, str(address), route=False)
    resolved = settings.resolve(address.target)
    merged = {**resolved.options, **options}
    sources = {**resolved.sources, **dict.fromkeys(options, "argument")}
    if not isinstance(resolved.address, str):
        return _route(resolved.address, options, settings, merged, sources)
    member = _member(parse(resolved.address), merged, frozenset(options), sources, settings)
    return Found((member,), merged, member.sources, str(member.address), route=False)


def _route(
    addresses: Sequence[str | PathLike[str]],
    options: Mapping[str, Any],
    settings: Settings,
    merged: Mapping[str, Any],
    sources: Mapping[str, str],
) -> Found:
    if not addresses:
        raise AddressError("the list of addresses is empty", hint='Give addresses: load(["https://...", "torch:..."])')
    members: list[Member] = []
    for text in addresses:
        if not isinstance(text, str | PathLike):
            raise AddressError(f"a route's members are addresses, not {type(text).__name__}")
        inner = _one(text, options, settings)
        if inner.route:
            raise AddressError(f"{text!r} is a route itself", hint="Write its addresses into this one")
        # what the route's own entry says goes before what the member's settings say
        own = {**inner.members[0].options, **merged}
        members.append(_member(inner.members[0].address, own, frozenset(options), sources, settings))
    shown = ", ".join(str(member.address) for member in members)
    return Found(tuple(members), merged, sources, f"[{shown}]", route=True)


def _member(
    address: Address, options: Mapping[str, Any], asked: frozenset[str], sources: Mapping[str, str], settings: Settings
) -> Member:
    found, told = dict(options), dict(sources)
    if found.get("api_key") is None and address.origin and (key := settings.credential(address.origin)) is not None:
        found["api_key"], told["api_key"] = key, key.source
    given = found.get("verify", True)
    if settings.trust and (verify := _besides(settings.trust, given)) is not None:
        found["verify"] = verify
        told.setdefault("verify", "[trust] in the settings")
    return Member(address, found, asked, told)


def _besides(trust: Sequence[str], given: Any) -> Sequence[str | bytes] | None:
    """The option `verify` with the keys of [trust] besides; None where it stays as it is, right or wrong."""
    if given is None or given is True or isinstance(given, Trusted):
        return Trusted(dict.fromkeys((*trust, *(given if isinstance(given, Trusted) else ()))))
    if isinstance(given, str | bytes) or not isinstance(given, Sequence) or not given:
        return None
    return [*given, *trust]


def check_options(options: Mapping[str, Any]) -> None:
    """The names are known and the plain values possible; ConfigError says which isn't."""
    for name in options:
        if name not in OPTION_NAMES:
            near = difflib.get_close_matches(name, OPTION_NAMES, 1)
            raise ConfigError(f"unknown option {name!r}", hint=f"Did you mean {near[0]!r}?" if near else None)
    for name in ("concurrency", "batch_size"):
        value = options.get(name)
        if value is not None and (type(value) is not int or value < 1):
            raise ConfigError(f"{name} is {value!r}", hint="Give a whole number from 1 on")
    for name in ("timeout", "attempt_timeout", "gap_timeout"):
        _check_seconds(name, options.get(name))


def _check_seconds(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise ConfigError(f"{name} is {value!r}", hint="Give seconds above 0, or None for no limit")
