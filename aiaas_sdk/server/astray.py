"""Where a request belongs whose path lacks the API's prefix, or has another one: /chat/completions is at /v1/..."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from starlette.routing import BaseRoute, Route

__all__ = ["nothing_at"]

_PREFIXES = ("/v1", "/v2")
_LONGEST = 300  # characters of a path that is looked at


def nothing_at(method: str, path: str, routes: Sequence[BaseRoute]) -> str:
    """What is said of a path at which there is nothing: with the paths of these routes that may be meant."""
    meant = _meant(method, path, routes) if len(path) <= _LONGEST and path.isprintable() else []
    return f"there is nothing at this path, but at {' and '.join(meant)}" if meant else "there is nothing at this path"


def _meant(method: str, path: str, routes: Sequence[BaseRoute]) -> list[str]:
    found = [
        (method in (route.methods or ()), _told_by(route), other)
        for other in dict.fromkeys(_others(path.rstrip("/")))
        for route in routes
        if isinstance(route, Route) and route.path_regex.match(other)
    ]
    best = max(((takes, told) for takes, told, _ in found), default=None)
    return list(dict.fromkeys(other for takes, told, other in found if (takes, told) == best))


def _others(path: str) -> Iterator[str]:
    """The path itself without the slash at its end, and with prefixes put before it, taken away and exchanged."""
    if not path.startswith("/"):
        return
    yield path
    yield from (prefix + path for prefix in _PREFIXES)
    first, rest = re.fullmatch(r"(/[^/]*)(.*)", path, re.DOTALL).groups()  # type: ignore[union-attr]
    if first in _PREFIXES and rest:
        yield rest
        yield from (prefix + rest for prefix in _PREFIXES)
    elif rest.startswith(tuple(f"{prefix}/" for prefix in _PREFIXES)):
        yield rest


def _told_by(route: Route) -> int:
    """The characters that its paths must have; one of a model alone matches much that isn't meant."""
    return len(re.sub(r"\{[^}]*\}", "", route.path))
