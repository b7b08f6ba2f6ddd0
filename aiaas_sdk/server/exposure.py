"""To whom a server is open: under which names, and to nobody by accident."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.server.listening import is_loopback

__all__ = ["hosts_of"]

logger = logging.getLogger("aiaas_sdk.server")

_OWN = frozenset(("localhost", "127.0.0.1", "[::1]"))


def hosts_of(host: str, options: Mapping[str, Any]) -> Collection[str] | None:
    """The names under which a server on this interface may be called; None for any.

    Only what nothing else protects needs that: on the loopback interface a page of another site could reach it under
    a name of its own (DNS rebinding). With keys or tokens such a page has none, and a proxy before the server may
    call it by the name that the world knows.

    Args:
        host: the interface.
        options: those of the server, as they were given.

    Raises:
        ConfigError: others reach the interface, and nothing was said of who may ask.
    """
    given, guarded = options.get("hosts"), bool(options.get("api_keys") or options.get("jwt"))
    if is_loopback(host):
        return given if guarded else {*_OWN, host.lower(), *(given or ())}
    if not guarded and not options.get("public"):
        raise ConfigError(
            f"others reach {host}, and nobody would have to say who they are",
            hint="Give api_keys (`aiaas keys add NAME --file FILE` makes one) or jwt; "
            "or say public (--public), if anybody may use the models",
        )
    if not guarded:
        logger.warning("listening on %s: anyone who reaches the port may use the models", host)
    elif not options.get("tls_cert"):
        logger.warning("listening on %s without TLS: keys can be read on the way; give tls_cert, or a proxy", host)
    return given or None
