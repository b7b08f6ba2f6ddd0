"""What `load` checks of a `Network`."""

from __future__ import annotations

import socket

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import ConfigError
from aiaas_sdk.records.network import Network
from aiaas_sdk.transport import tls
from aiaas_sdk.transport.proxies import named

__all__ = ["check"]


def check(network: object) -> None:
    """That it can work, as far as that shows without a connection.

    Raises:
        ConfigError: it is no Network, a file is missing or wrong, the proxy's address is none, a package is missing,
            or the transport isn't one.
    """
    if not isinstance(network, Network):
        hint = "Write network=aiaas.Network(...)"
        raise ConfigError(f"the option network is {kind_of(network)}, and no Network", hint=hint)
    if network.ca is not None or network.certificate is not None:
        tls.context(network)
    if network.unix_socket is not None and not hasattr(socket, "AF_UNIX"):
        raise ConfigError("network.unix_socket is given, and this system has no Unix sockets")
    if network.http2 or network.proxy not in (None, "none"):
        from aiaas_sdk.transport.borrowed import transport

        transport(None if network.proxy in (None, "none") else named(network.proxy), network).close()
    if network.transport is not None:
        from aiaas_sdk.transport.handed import check as check_transport

        check_transport(network.transport)
