"""Running the server: in the foreground until a signal, or in a thread beside the caller's own work."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from types import FrameType
from typing import Any, Unpack

import uvicorn

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.records.options import Options
from aiaas_sdk.server.app import App, create_app
from aiaas_sdk.server.beside import Beside, beside
from aiaas_sdk.server.bodies import MAX_BODY, MAX_INFLATED
from aiaas_sdk.server.connections import protocol_class
from aiaas_sdk.server.hosting import QUEUE, Targets

__all__ = ["serve", "serve_in_thread"]

logger = logging.getLogger("aiaas_sdk.server")

GRACE = 25.0
"""Seconds for which running requests may go on once the server ends; Kubernetes kills after 30."""
KEEP_ALIVE = 60
"""Seconds for which a connection may be idle."""
_LINGER = 1.0  # seconds for which idle connections are kept at the end: a request may be under way on one
_BACKLOG = 2048


def serve(
    targets: Targets,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    announce: Callable[[str, tuple[str, ...]], None] | None = None,
    drain_delay: float = 0.0,
    max_body: int = MAX_BODY,
    max_inflated: int = MAX_INFLATED,
    queue: int = QUEUE,
    hosts: Collection[str] = (),
    grpc_port: int | None = None,
    **options: Unpack[Options],
) -> None:
    """Serve models until SIGTERM or SIGINT; running requests are then finished. A second signal kills.

    Args:
        targets: each a folder of bundles, one bundle, an address, or `name=address`; see `create_app`.
        host: the interface to listen on; "0.0.0.0" is all of them, and then anyone who reaches the port may call.
        port: 0 takes a free one.
        announce: told the server's URL and the models' names once it listens; without it, the log is.
        drain_delay: seconds for which the server goes on accepting after a signal, not ready any more. Behind a
            load balancer it is the time until that has noticed.
        max_body: bytes of a request's body that are taken; max_inflated: bytes that a compressed one may become.
        queue: calls of one model that may wait or run at once.
        hosts: further names under which it may be called. A server on the loopback interface answers to that
            one's own names only, so that pages of other sites can't reach it; another answers to any, or to these.
        grpc_port: the port of the same protocol over gRPC, from the plugin aiaas-grpc; None for none.
        options: those of `load`, for each model whose backend takes them.

    Raises:
        ConfigError: the port can't be listened on, two models have one name, or an option is wrong.
        AiaasError: a model that is here can't be opened. One behind an endpoint may come later.
    """
    app = _app(targets, host, max_body, max_inflated, queue, hosts, options)
    others = [] if grpc_port is None else [beside("grpc", app, host, grpc_port, max_body)]
    listener = _listening(host, port)

    def started() -> None:
        names = tuple(app.hosting.models)
        logger.info("serving %s at %s", ", ".join(names), _url(listener))
        if announce is not None:
            announce(_url(listener), names)

    with contextlib.closing(listener), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_Server(app, started, drain_delay, others).run_on(listener))


@contextlib.contextmanager
def serve_in_thread(
    targets: Targets,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    max_body: int = MAX_BODY,
    max_inflated: int = MAX_INFLATED,
    queue: int = QUEUE,
    hosts: Collection[str] = (),
    grpc_port: int | None = None,
    **options: Unpack[Options],
) -> Iterator[str]:
    """Serve models in a thread of this process for the length of a `with`; it gives the server's URL.

    The arguments are those of `serve`.
    """
    app = _app(targets, host, max_body, max_inflated, queue, hosts, options)
    others = [] if grpc_port is None else [beside("grpc", app, host, grpc_port, max_body)]
    listener = _listening(host, port)
    listens = threading.Event()
    server = _Server(app, listens.set, 0.0, others)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(server.run_on(listener))
        except BaseException as error:
            failures.append(error)
        finally:
            listens.set()

    thread = threading.Thread(target=run, name="aiaas-server")
    with contextlib.closing(listener):
        thread.start()
        listens.wait()
        try:
            if failures:
                raise failures[0]
            yield _url(listener)
        finally:
            server.end()
            thread.join()


class _Server(uvicorn.Server):
    """uvicorn's server with an end that loses no request."""

    def __init__(self, app: App, on_start: Callable[[], None], drain_delay: float, others: Sequence[Beside]) -> None:
        super().__init__(_config(app))
        self._others = others
        self._app, self._on_start, self._drain_delay = app, on_start, drain_delay
        self._end: float | None = None

    async def run_on(self, listener: socket.socket) -> None:
        """Open the models that are here, before anybody is let in, and serve."""
        try:
            await self._app.hosting.open()
            for other in self._others:
                await other.start()
        except BaseException:
            await self._app.hosting.close()
            raise
        try:
            await self.serve(sockets=[listener])
        finally:
            await self._end_others(0)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()

    def end(self) -> None:
        """Finish what runs, and end; from any thread."""
        self._app.draining = True
        self._end = time.monotonic() + self._drain_delay

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._end is not None:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.end()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # uvicorn would raise them again: the end that was asked for is status 0

    async def on_tick(self, counter: int) -> bool:
        if self._end is not None and time.monotonic() >= self._end:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        others = asyncio.ensure_future(self._end_others(GRACE))
        held = [listener.dup() for listener in sockets or ()]
        for listening in (*self.servers, *(sockets or ())):
            listening.close()
        await asyncio.sleep(0.01)  # the loop lets go of its own handles
        for listener in held:
            await self._sweep(listener)
        end = time.monotonic() + _LINGER
        while self.server_state.connections and time.monotonic() < end:
            await asyncio.sleep(0.02)
        await others  # the models close with what follows
        await super().shutdown(sockets)

    async def _end_others(self, seconds: float) -> None:
        await asyncio.gather(*(other.stop(seconds) for other in self._others))

    async def _sweep(self, listener: socket.socket) -> None:
        """Take in who has connected already, and close: the kernel resets those who are left waiting."""
        waiting = []
        listener.setblocking(False)
        with contextlib.suppress(OSError):
            while True:
                waiting.append(listener.accept()[0])
        listener.close()
        loop = asyncio.get_running_loop()
        for stream in waiting:
            stream.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, stream)

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        made: asyncio.Protocol = make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        return made


def _config(app: App) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=protocol_class(),
        ws="none",
        loop="none",  # the runner makes it
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(GRACE),
    )


def _app(
    targets: Targets,
    host: str,
    max_body: int,
    max_inflated: int,
    queue: int,
    hosts: Collection[str],
    options: Any,
) -> App:
    known: set[str] | None = None
    if _is_loopback(host):
        known = {"localhost", "127.0.0.1", "[::1]", host.lower(), *hosts}
    else:
        known = set(hosts) or None
        logger.warning("listening on %s: anyone who reaches the port may use the models", host)
    return create_app(targets, max_body=max_body, max_inflated=max_inflated, queue=queue, hosts=known, **options)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        # bound, and not listening: who comes while models are opened is refused at once, and doesn't wait in vain
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        except BaseException:
            listener.close()
            raise
        return listener
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"can't listen on {host}:{port}: {why}", hint="Choose another port, or 0 for a free one"
        ) from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
