"""Proxies and HTTP/2, which httpx's own transport knows how to speak. httpx2 is used instead where it is installed."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.records.network import Network
from aiaas_sdk.transport import tls
from aiaas_sdk.transport.connection import readable
from aiaas_sdk.transport.foreign import Foreign
from aiaas_sdk.transport.origin import Origin
from aiaas_sdk.transport.proxies import Proxy

if TYPE_CHECKING:
    import httpx
else:
    try:
        import httpx2 as httpx
    except ModuleNotFoundError:
        import httpx

__all__ = ["Borrowed", "listed_context", "transport"]


def listed_context() -> ssl.SSLContext:
    """Trusts the list of authorities that comes with httpx, for systems that have none."""
    return httpx.create_ssl_context()


class Borrowed(Foreign):
    """A transport of httpx's with at most one connection, which carries one request at a time.

    A call that gives up shuts the socket under it. With HTTP/2 too: of several requests on one connection the
    slowest to be left would decide for all.
    """

    def __init__(self, proxy: Proxy | None, origin: Origin, network: Network) -> None:
        super().__init__(transport(proxy, network), origin, _through(proxy, network))
        self._socket: socket.socket | None = None  # a duplicate, so that it stays ours whatever httpx does

    def _extensions(self) -> dict[str, Any]:
        return {"trace": self._trace}

    def _trace(self, event: str, details: dict[str, Any]) -> None:
        """httpcore tells what it does: the socket as soon as there is one, and whether the request went out."""
        if event.endswith(("connect_tcp.complete", "connect_unix_socket.complete")):
            self._hold(details["return_value"].get_extra_info("socket"))
        elif event.endswith("send_request_headers.started") and details["request"].method != b"CONNECT":
            self.sent = 1
        elif event.endswith("send_request_headers.complete") and self.sent:
            self.sent = 2

    def _hold(self, made: socket.socket) -> None:
        with self._guard:
            if self._socket is not None:
                self._socket.close()
            self._socket = socket.socket(fileno=os.dup(made.fileno()))
            if self._gone:
                self._shut()

    # ------------------------------------------------------------ between requests
    def usable(self) -> bool:
        return self._socket is not None and not readable(self._socket)

    def _shut(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it has ended already
                self._socket.shutdown(socket.SHUT_RDWR)

    def _end(self) -> None:
        super()._end()
        self._transport.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _through(proxy: Proxy | None, network: Network) -> str:
    if proxy is not None:
        return f" through the proxy {proxy.where} ({proxy.variable})"
    return "" if network.unix_socket is None else f" through the Unix socket {network.unix_socket}"


def transport(proxy: Proxy | None, network: Network) -> httpx.HTTPTransport:
    """httpx's transport for requests through the proxy, if there is one.

    Raises:
        ConfigError: a package is missing, a file is wrong, or the proxy's address is none.
    """
    context = tls.context(network)
    if network.http2 and find_spec("h2") is None:
        raise ConfigError("HTTP/2 needs the package h2", hint='Install it: pip install "aiaas-sdk[http2]"')
    path: Any = network.unix_socket
    through = None if proxy is None else _named(proxy, network)
    try:
        return httpx.HTTPTransport(verify=context, trust_env=False, proxy=through, http2=network.http2, uds=path)
    except ImportError:
        variable = "the environment" if proxy is None else proxy.variable
        raise ConfigError(
            f"the proxy of {variable} speaks SOCKS, for which a package is missing",
            hint=f'Install it: pip install "{httpx.__name__}[socks]"',
        ) from None


def _named(proxy: Proxy, network: Network) -> httpx.Proxy:
    """A proxy that is reached by TLS sees neither the client certificate nor HTTP/2."""
    context = tls.context(Network(ca=network.ca)) if proxy.url.startswith("https:") else None
    try:
        return httpx.Proxy(proxy.url, ssl_context=context)
    except (httpx.InvalidURL, ValueError):
        raise ConfigError(
            f"{proxy.variable} holds no address of a proxy", hint="Write http://HOST:PORT, or unset it"
        ) from None
