"""Pages of other sites: which may call the server, and that no other makes a browser do it (CORS, CSRF).

Sources: the Fetch standard (CORS protocol); the check of requests that aren't safe is that of Go's
`net/http.CrossOriginProtection`: `Sec-Fetch-Site` where the browser sends it, else Origin against Host.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.types import Scope

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.server.errors import RefusedError

__all__ = ["Origins"]

_SAFE = ("GET", "HEAD", "OPTIONS")
_METHODS = b"GET, HEAD, POST, DELETE"
_AGE = b"600"  # seconds for which a browser needn't ask again
_TOLD = b"x-request-id, retry-after, inference-header-content-length, openai-processing-ms, " + b", ".join(
    b"x-ratelimit-%s-%s" % (what, unit)
    for what in (b"limit", b"remaining", b"reset")
    for unit in (b"requests", b"tokens")
)
Lines = list[tuple[bytes, bytes]]


class Origins:
    """The origins whose pages may call; each exactly as a browser sends it.

    Raises:
        ConfigError: one is no origin. `*` isn't one: then any page that somebody has open could use a server that
            only he can reach.
    """

    def __init__(self, origins: Collection[str]) -> None:
        for origin in origins:
            _check(origin)
        self._origins = frozenset(origin.encode() for origin in origins)

    def check(self, scope: Scope) -> None:
        """Refuse what a page of another site makes a browser send.

        Raises:
            RefusedError: 403.
        """
        if scope["method"] in _SAFE or (origin := _header(scope, b"origin")) is None or origin in self._origins:
            return
        site = _header(scope, b"sec-fetch-site")
        if site is not None:
            own = site in (b"same-origin", b"none")
        else:
            own = origin.partition(b"://")[2] == (_header(scope, b"host") or b"")
        if not own:
            raise RefusedError(403, "pages of other origins may not call this server", unread=True)

    def preflight(self, scope: Scope) -> Lines | None:
        """The headers of the answer, where a browser asks whether a page may; None where it is no such question."""
        if scope["method"] != "OPTIONS" or _header(scope, b"access-control-request-method") is None:
            return None
        if _header(scope, b"origin") not in self._origins:
            return None
        asked = _header(scope, b"access-control-request-headers")
        lines = [
            (b"vary", b"Access-Control-Request-Headers"),
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-max-age", _AGE),
        ]
        return lines if asked is None else [*lines, (b"access-control-allow-headers", asked)]

    def added(self, scope: Scope) -> Lines:
        """What every answer says to a browser: nothing, unless the page is of an allowed origin."""
        if not self._origins:
            return []
        lines = [(b"vary", b"Origin")]
        origin = _header(scope, b"origin")
        if origin in self._origins:
            lines += [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _TOLD)]
        return lines


def _header(scope: Scope, name: bytes) -> bytes | None:
    value: bytes
    for key, value in scope["headers"]:
        if key == name:
            return value
    return None


def _check(origin: str) -> None:
    try:
        parts = urlsplit(origin)
        plain = f"{parts.scheme}://{parts.netloc}" == origin == origin.lower() and parts.hostname is not None
        usual = (parts.scheme, parts.port) in (("http", 80), ("https", 443))  # a browser leaves them out
        fits = plain and parts.scheme in ("http", "https") and "@" not in origin and not usual
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(
            f"cors holds {origin!r}, which is no origin", hint="Write it as a browser sends it: https://example.com"
        )
