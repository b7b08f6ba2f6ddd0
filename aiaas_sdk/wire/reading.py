"""A JSON document of somebody else's: each part of it is what it should be, or a ProtocolError says where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from pydantic_core import from_json

from aiaas_sdk.errors import ProtocolError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.wire.status import clean, excerpt

__all__ = [
    "check_plain",
    "count_in",
    "flag_in",
    "list_of",
    "name_in",
    "object_of",
    "parameters_in",
    "parsed",
    "quoted",
    "text_in",
    "texts_in",
]

MAX_DEPTH = 100  # of a request's JSON; Triton's limit (src/common.h)


def parsed(head: Buffer) -> Any:
    try:
        # uncached: no two ids are alike, and the cache would keep 16,384 of them
        return from_json(bytes(head) if isinstance(head, memoryview) else head, cache_strings="none")
    except (ValueError, RecursionError) as error:
        _refuse_json(head, error)


def _refuse_json(head: Buffer, error: Exception) -> NoReturn:
    if not len(head):
        raise ProtocolError("the body is empty; JSON was expected") from None
    start = bytes(head[:64]).lstrip()[:1]
    # the text of a captive portal says where one is; a cut tensor says nothing that may be shown
    shown = "" if start in (b"{", b"[") else f": {excerpt(head)}"
    place = "" if shown else f" ({clean(str(error), 120)})"
    raise ProtocolError(f"the body isn't JSON{place}{shown}") from None


def check_plain(head: Buffer, document: dict[str, Any]) -> None:
    """Refuse a request with a key twice (RFC 8259 4 leaves its meaning open), or nested too deep."""
    strings = _STRING.findall(bytes(head))
    depth, distinct = 0, 0
    level: list[Any] = [document]
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ProtocolError(f"the request's JSON is nested more than {MAX_DEPTH} deep")
        below: list[Any] = []
        for node in level:
            if type(node) is dict:
                distinct += len(node)
                node = node.values()
            elif _CONTAINERS.isdisjoint(map(type, node)):  # long lists of numbers are passed over at C speed
                continue
            below += [child for child in node if type(child) in _CONTAINERS]
        level = below
    if len(strings) - strings.count(b"") != distinct:
        raise ProtocolError("the request's JSON has a key twice")


_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"([ \t\r\n]*:)?', re.DOTALL)
"""A JSON string, and the colon after it where it is a key."""


_CONTAINERS = {dict, list}


def object_of(value: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise ProtocolError(f"{where} isn't a JSON object")
    return value


def list_of(value: Any, where: str) -> list[Any]:
    if type(value) is not list:
        raise ProtocolError(f"{where} isn't a JSON array")
    return value


def text_in(document: dict[str, Any], member: str, where: str) -> str | None:
    value = document.get(member)
    if value is not None and type(value) is not str:
        raise ProtocolError(f"the {member} of {where} isn't text")
    return value


def texts_in(document: dict[str, Any], member: str, where: str) -> tuple[str, ...]:
    values = list_of(document.get(member) or [], f"the {member} of {where}")
    if any(type(value) is not str for value in values):
        raise ProtocolError(f"the {member} of {where} aren't text")
    return tuple(values)


def parameters_in(document: dict[str, Any], where: str) -> dict[str, Any]:
    value = document.get("parameters")
    return {} if value is None else object_of(value, f"the parameters of {where}")


def name_in(entry: dict[str, Any], member: str, found: Mapping[str, Any]) -> str:
    name = entry.get("name")
    if type(name) is not str or not name:
        raise ProtocolError(f"an entry of {member} has no name")
    if name in found:
        raise ProtocolError(f"the name {quoted(name)} stands twice in {member}")
    return name


def quoted(name: str) -> str:
    return f"'{name}'" if name.isascii() and name.isidentifier() and len(name) <= 80 else f"'{clean(name, 80)}'"


def flag_in(parameters: Mapping[str, Any], name: str, where: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and type(value) is not bool:
        raise ProtocolError(f"the parameter {name} of {where} is neither true nor false")
    return value


def count_in(parameters: Mapping[str, Any], name: str, where: str) -> int:
    value = parameters.get(name)
    if value is None:
        return 0
    if type(value) is not int or value < 0:
        raise ProtocolError(f"the parameter {name} of {where} isn't a whole number from 0 on")
    return value
