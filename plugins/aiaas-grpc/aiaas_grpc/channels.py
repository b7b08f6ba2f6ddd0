"""Channels: connections to one origin, which calls from any thread or event loop share.

Both faces use gRPC's plain channels. Those of `grpc.aio` belong to one event loop each, and several loops in a process
get in each other's way there (grpc/grpc issue 25364); a plain one's calls can be awaited in any.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from aiaas_grpc.forking import check_process, grpc
from aiaas_grpc.trust import credentials
from aiaas_sdk._version import __version__
from aiaas_sdk.errors import ClosedError, ConfigError
from aiaas_sdk.records.network import PLAIN, Network
from aiaas_sdk.transport.origin import Origin
from aiaas_sdk.transport.proxies import proxy_for

__all__ = ["Channel", "Channels"]

CONNECT_LIMIT = 5_000
"""Milliseconds for one connection to be made, as over HTTP."""


class Channel:
    """One channel. It closes once it is retired and no call runs on it."""

    def __init__(self, made: Any) -> None:
        self._made, self._methods, self._streams = made, dict[str, Any](), dict[str, Any]()
        self._calls, self._retired, self._guard = 0, False, threading.Lock()

    def method(self, path: str) -> Any:
        """What calls a method; messages are bytes on both sides."""
        found = self._methods.get(path)
        if found is None:
            found = self._methods[path] = self._made.unary_unary(path)
        return found

    def stream(self, path: str) -> Any:
        """What calls a method that answers one request with many responses."""
        found = self._streams.get(path)
        if found is None:
            found = self._streams[path] = self._made.unary_stream(path)
        return found

    def enter(self) -> bool:
        """Count a call in; False where it is retired."""
        with self._guard:
            if not self._retired:
                self._calls += 1
            return not self._retired

    def leave(self) -> None:
        with self._guard:
            self._calls -= 1
            over = self._retired and not self._calls
        if over:
            self._made.close()

    def retire(self) -> None:
        with self._guard:
            over = not self._retired and not self._calls
            self._retired = True
        if over:
            self._made.close()


class Channels:
    """The channel to an origin, made when it is first needed; a forked child makes its own."""

    def __init__(self, origin: Origin, network: Network | None) -> None:
        self._origin, self._network = origin, network or PLAIN
        self.through = ""
        """What completes "can't connect to HOST:PORT ..." where a proxy is on the way."""
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._process, self._guard = os.getpid(), threading.Lock()
        self._channel: Channel | None = None

    def enter(self) -> Channel:
        """A channel for one call, which leaves it at its end.

        Raises:
            ClosedError: the model was closed.
            ConfigError: a file of the network's is wrong, or the proxy's address.
        """
        if self._process != os.getpid():
            self._left_to_parent = self._channel  # its end would wait for threads that aren't here
            self._begin()
        channel = self._channel
        if channel is None or not channel.enter():
            with self._guard:
                if self._closed:
                    raise ClosedError(f"the model at {self._origin.where} was closed", hint="Load it again")
                channel = self._channel
                if channel is None or not channel.enter():
                    channel = self._channel = self._made()
                    channel.enter()
        return channel

    def retire(self, channel: Channel) -> None:
        """Let later calls connect anew: a call on this one had no answer.

        After a connection that failed, gRPC would fail calls at once for a while, where our policies say how long to
        wait. And a call that ran out of time may be the fault of the connection: a router that forgets an idle one
        drops what is sent on it, for as long as the kernel sends it again, a quarter of an hour. Over HTTP, too, a
        connection ends with a call that ran out of time on it.
        """
        with self._guard:
            if self._channel is channel:
                self._channel = None
        channel.retire()

    def close(self) -> None:
        with self._guard:
            self._closed = True
            channel, self._channel = self._channel, None
        if channel is not None and self._process == os.getpid():
            channel.retire()

    # ------------------------------------------------------------ making one
    def _made(self) -> Channel:
        check_process()
        socket = self._network.unix_socket
        target = f"unix:{socket}" if socket is not None else f"dns:///{self._origin.where}"
        options = [*_OPTIONS, *self._proxy()]
        if socket is not None:
            options.append(("grpc.default_authority", self._origin.where))
        if self._origin.secure:
            return Channel(grpc.secure_channel(target, credentials(self._network), options))
        return Channel(grpc.insecure_channel(target, options))

    def _proxy(self) -> list[tuple[str, Any]]:
        found = proxy_for(self._origin, self._network)
        if found is None:
            return [("grpc.enable_http_proxy", 0)]
        if not found.url.startswith("http://"):
            raise ConfigError(
                f"{found.variable} names a proxy that gRPC can't go through",
                hint='It takes http://HOST:PORT; Network(proxy="none") goes straight to the endpoint',
            )
        self.through = f" through {found.where}"
        return [("grpc.http_proxy", found.url)]


_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.primary_user_agent", f"aiaas-sdk/{__version__}"),
    # a retired channel's connection mustn't be taken up by the next one
    ("grpc.use_local_subchannel_pool", 1),
    # our policies retry, and nobody's DNS entry says how
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.min_reconnect_backoff_ms", CONNECT_LIMIT),
)
