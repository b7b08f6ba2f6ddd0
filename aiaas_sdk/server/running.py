"""uvicorn around the application."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.server.app import create_app
from aiaas_sdk.server.hosting import Hosting

__all__ = ["serve"]

GRACE = 25
"""Seconds for requests that run when the server is asked to stop."""


def serve(
    targets: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    announce: Callable[[str, tuple[str, ...]], None] | None = None,
) -> None:
    """Serve models until SIGTERM or SIGINT; requests that run then are finished.

    Args:
        targets: folders, addresses, names or NAME=ADDRESS; see `Hosting`.
        host, port: where to listen; port 0 takes a free one.
        announce: told the server's URL and the models' names once it answers.

    Raises:
        ConfigError: the port is taken, or two models have one name.
        AiaasError: a model here can't be opened.
    """
    hosting = Hosting(targets)
    listening = _bound(host, port)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(hosting, listening, announce))


async def _serve(
    hosting: Hosting, listening: socket.socket, announce: Callable[[str, tuple[str, ...]], None] | None
) -> None:
    try:
        await hosting.open()  # before anybody is let in, so that what can't be opened is told as it is
        config = uvicorn.Config(
            create_app(hosting),
            log_config=None,
            access_log=False,
            ws="none",
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        await _Server(config, lambda: announce and announce(_url(listening), hosting.names)).serve([listening])
    finally:
        await hosting.close()
        listening.close()


class _Server(uvicorn.Server):
    """Ends by returning, where uvicorn's own raises the signal again and the process dies of it."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], object]) -> None:
        super().__init__(config)
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._started()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self.handle_exit) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"can't listen on {host}:{port}: {reason}", hint="Choose another port; 0 takes a free one"
        ) from None
    return found


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop
