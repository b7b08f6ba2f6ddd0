"""Running the server: in the foreground until a signal, or in a thread beside the caller's own work."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, Unpack, cast

import uvicorn

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.server.app import App, create_app
from aiaas_sdk.server.beating import SILENCE, Beats, beating
from aiaas_sdk.server.beside import Beside, beside
from aiaas_sdk.server.collecting import rare_collections
from aiaas_sdk.server.connections import most_connections, protocol_class
from aiaas_sdk.server.exposure import hosts_of
from aiaas_sdk.server.hosting import Targets
from aiaas_sdk.server.listening import listening
from aiaas_sdk.server.serving import ServeOptions, Serving, parted
from aiaas_sdk.server.supervising import Job, supervise
from aiaas_sdk.server.tls import Door

__all__ = ["serve", "serve_in_thread"]

logger = logging.getLogger("aiaas_sdk.server")

KEEP_ALIVE = 60
"""Seconds for which a connection may be idle."""
_LINGER = 1.0  # seconds for which idle connections are kept at the end: a request may be under way on one
_BACKLOG = 2048
_LAST_WORDS = 1.0  # seconds for telling those whose requests run too long
_MARGIN = 3.0  # seconds in which the rest of the end must be done
_STDERR = 2  # the descriptor: `sys.stderr` may be anything


def serve(
    targets: Targets,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    announce: Callable[[str, tuple[str, ...]], None] | None = None,
    prepare: Callable[[], None] | None = None,
    **options: Unpack[ServeOptions],
) -> None:
    """Serve models until SIGTERM or SIGINT; running requests are then finished. A second signal kills.

    Args:
        targets: each a folder of bundles, one bundle, an address, or `name=address`; see `create_app`.
        host: the interface to listen on; "0.0.0.0" is all of them, and then anyone who reaches the port may call.
        port: 0 takes a free one.
        announce: told the server's URL and the models' names once it listens; without it, the log is.
        prepare: what each further process does first (of several workers, and of a training job): a function of a
            module that imports architectures, or sets up logging.
        options: those of the server (see `Serving`), and those of `load`, for each model whose backend takes them.
            A server on the loopback interface answers to that one's own names only, so that pages of other sites
            can't reach it, and to `hosts`; another answers to any, or to `hosts`.

    Raises:
        ConfigError: the port can't be listened on, two models have one name, or an option is wrong.
        AiaasError: a model that is here can't be opened. One behind an endpoint may come later.
    """
    serving, _ = parted(options)

    def listens(listener: socket.socket, names: tuple[str, ...]) -> None:
        url = _url(listener, serving)
        if announce is None:
            logger.info("serving %s at %s", ", ".join(names), url)
        else:
            announce(url, names)

    if serving.workers > 1:
        job = Job(targets, host, port, dict(options), prepare, serving.drain_delay + serving.grace, SILENCE)
        supervise(job, listens)
        return
    app = _app(targets, host, options, prepare)
    others = _others(app, host)
    listener = listening(host, port)
    server = _Server(app, lambda: listens(listener, tuple(app.hosting.models)), serving.drain_delay, others)
    server.watched = True
    with contextlib.closing(listener), _ending_while_loading(), rare_collections():
        _run(server, listener)


def serve_shared(job: Job, number: int, pages: Sequence[int], beats: Beats, channel: Connection) -> None:
    """Serve as one of several processes, until the channel says so or closes.

    Args:
        job: what to serve.
        number: of this process.
        pages: the files of what is counted, this process's first.
        beats: counted up for as long as this one serves.
        channel: to the process that started this one, which is told the models' names when this one listens.
    """
    app = _app(job.targets, job.host, cast(ServeOptions, job.options), job.prepare)
    app.hosting.ledger.share(number, pages[0], pages[1:])
    for page in pages:
        os.close(page)

    def listens() -> None:
        asyncio.get_running_loop().add_reader(channel.fileno(), ended)
        beating(beats, job.silence, lambda: server.ending)  # before anybody is told: it may hang from then on
        channel.send(tuple(app.hosting.models))

    def ended() -> None:
        asyncio.get_running_loop().remove_reader(channel.fileno())
        server.end()

    server = _Server(app, listens, app.serving.drain_delay, _others(app, job.host))
    server.watched = server.patient = True
    with contextlib.closing(listening(job.host, job.port, shared=True)) as listener, rare_collections():
        _run(server, listener)


def _run(server: _Server, listener: socket.socket) -> None:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(server.run_on(listener))
    faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def _ending_while_loading() -> Iterator[None]:
    """SIGTERM ends the process while models are loaded, too: the first process of a container isn't by itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def serve_in_thread(
    targets: Targets, *, host: str = "127.0.0.1", port: int = 0, **options: Unpack[ServeOptions]
) -> Iterator[str]:
    """Serve models in a thread of this process for the length of a `with`; it gives the server's URL.

    The arguments are those of `serve`, but for `workers`: a thread serves in this process.
    """
    if options.get("workers", 1) != 1:
        raise ConfigError("a thread serves in one process", hint="Give workers to `serve`, or to `aiaas serve`")
    app = _app(targets, host, options)
    others = _others(app, host)
    listener = listening(host, port)
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
            yield _url(listener, app.serving)
        finally:
            server.end()
            thread.join()


class _Server(uvicorn.Server):
    """uvicorn's server with an end that loses no request.

    Attributes:
        watched: the process is the server's, and ended if the server doesn't end.
        patient: somebody else kills it, and a second signal doesn't.
    """

    watched = patient = False

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
        certificate = self._app.certificate
        await super().startup(sockets if certificate is None else [])
        if certificate is not None:
            for listener in sockets or ():
                listener.listen(_BACKLOG)
                door = Door(listener, certificate.context, self._protocol, self._room)
                self.servers.append(cast(asyncio.Server, door))
        if self.started:
            self._on_start()

    @property
    def ending(self) -> bool:
        """Whether the end was asked for."""
        return self._end is not None

    def end(self) -> None:
        """Finish what runs, and end; from any thread."""
        if self._end is not None:
            return
        self._app.draining = True
        self._end = time.monotonic() + self._drain_delay
        if self.watched:
            # whatever hangs, the process ends, and says where it hung
            seconds = self._drain_delay + self._app.serving.grace + _MARGIN
            faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._end is not None and not self.patient:
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
        if self._app.certificate is not None and counter % 10 == 0:  # each second
            self._app.certificate.refresh()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        others = asyncio.ensure_future(self._end_others(self._app.serving.grace))
        held = [listener.dup() for listener in sockets or ()]
        for open_one in (*self.servers, *(sockets or ())):
            open_one.close()
        await asyncio.sleep(0.01)  # the loop lets go of its own handles
        for listener in held:
            await self._sweep(listener)
        end = time.monotonic() + _LINGER
        while self.server_state.connections and time.monotonic() < end:
            await asyncio.sleep(0.02)
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._finish(end - _LINGER + self._app.serving.grace)
        await others  # the models close with what follows
        await super().shutdown(sockets)

    async def _finish(self, end: float) -> None:
        """Wait for what runs until then; the rest is told that the server ends."""
        tasks = self.server_state.tasks
        while tasks and (left := end - time.monotonic()) > 0:
            await asyncio.wait(tasks, timeout=left)
            await asyncio.sleep(0)  # what has ended takes itself from the tasks
        if tasks:
            logger.error("%d requests didn't end in time; they are told so", len(tasks))
            self._app.cut_off = True
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_LAST_WORDS)

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
        secure: dict[str, Any] = {}
        if (certificate := self._app.certificate) is not None:
            secure = {"ssl": certificate.context, "ssl_handshake_timeout": _LINGER}
        for stream in waiting:
            stream.setblocking(False)
        await asyncio.gather(
            *(loop.connect_accepted_socket(self._protocol, stream, **secure) for stream in waiting),
            return_exceptions=True,  # of TLS handshakes
        )

    def _room(self) -> int:
        """Connections that may still be let in."""
        return most_connections(self._app.serving.max_connections) - len(self.server_state.connections)

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
        timeout_graceful_shutdown=int(_LAST_WORDS),  # after those of `grace`, which are over then
    )


def _app(targets: Targets, host: str, options: ServeOptions, prepare: Callable[[], None] | None = None) -> App:
    options["hosts"] = hosts_of(host, options)
    app = create_app(targets, **options)
    if app.training is not None:
        app.training.runner.prepare = prepare
    return app


def _others(app: App, host: str) -> list[Beside]:
    port = app.serving.grpc_port
    return [] if port is None else [beside("grpc", app, host, port, app.serving.max_body)]


def _url(listener: socket.socket, serving: Serving) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "http" if serving.tls_cert is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
