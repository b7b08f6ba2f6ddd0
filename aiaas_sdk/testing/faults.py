"""A server that is wrong on purpose, to test what your code does when an endpoint is.

It speaks HTTP/1.1 over plain sockets and serves one model over the Open Inference Protocol, y = 2 x, rightly,
until a script says otherwise. It logs what it saw.

    with FaultServer() as server, load(server.address, timeout=5) as model:
        server.on("predict", status(503, retry_after=0.2), reset("body"))
        assert model.predict(x).attempts == 3
        assert len(server.of("predict")) == 3

The faults are functions of this module, named in `aiaas_sdk.testing.fault_kinds`: `refuse`, `reset`, `cut`,
`stall`, `drip`, `slow`, `status`, `page`, `content`, `edited`, ...
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from aiaas_sdk.policies.tokens import forget
from aiaas_sdk.testing.fault_exchange import PATIENCE, Exchange, hang_up, read_request
from aiaas_sdk.testing.fault_kinds import (
    Fault,
    answer,
    chunked,
    claim,
    content,
    cut,
    drip,
    edited,
    endless,
    page,
    raw,
    refuse,
    reset,
    slow,
    stall,
    status,
)
from aiaas_sdk.testing.fault_log import Connected, Seen
from aiaas_sdk.testing.fault_model import Doubling, verb_of
from aiaas_sdk.transport.origin import origin_of

__all__ = [
    "Connected",
    "Exchange",
    "Fault",
    "FaultServer",
    "Seen",
    "answer",
    "chunked",
    "claim",
    "content",
    "cut",
    "drip",
    "edited",
    "endless",
    "page",
    "raw",
    "refuse",
    "reset",
    "slow",
    "stall",
    "status",
]

VERBS = ("server", "metadata", "ready", "predict")
MOST = 100_000  # connections of a server, and requests of a connection


class _Script:
    """Faults in order, then one for ever; None where another script decides."""

    def __init__(self, faults: Sequence[Fault], then: Fault | None) -> None:
        self.faults, self.then = deque(faults), then

    @property
    def first(self) -> Fault | None:
        return self.faults[0] if self.faults else self.then

    def take(self) -> Fault | None:
        return self.faults.popleft() if self.faults else self.then


class FaultServer:
    """A model at `address`, on 127.0.0.1, whose answers follow a script.

    Args:
        name: of the model.
        datatype, shape: of its input x and its output y = 2 x.
        binary: it announces that tensors may travel as bytes.
        tls: what it speaks TLS with; None for plain HTTP.
        idle: seconds after which it closes a connection that carries no further request, without a word; None for 30,
            which is what a first request has too.
    """

    def __init__(
        self,
        *,
        name: str = "double",
        datatype: str = "FP32",
        shape: Sequence[int] = (-1, 3),
        binary: bool = True,
        tls: ssl.SSLContext | None = None,
        idle: float | None = None,
    ) -> None:
        self._model = Doubling(name, datatype, shape, binary)
        self._tls, self._idle = tls, PATIENCE if idle is None else idle
        self._guard = threading.Lock()
        self._closing = threading.Event()
        self._plan, self._plans = _Script((), answer()), dict[str, _Script]()
        self._requests, self._connections = list[Seen](), list[Connected]()
        self._count = 0
        self._open: dict[int, socket.socket] = {}
        self._busy: set[int] = set()
        self._threads: set[threading.Thread] = set()
        self._timer: threading.Timer | None = None
        self._held: socket.socket | None = None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.address = f"{self.url}/v2/models/{name}"
        forget(origin_of(self.url))  # whatever failed on this port before wasn't this server
        self._start(self._accept, self._listener)

    # ------------------------------------------------------------ the script
    def script(self, faults: Sequence[Fault] = (), *, then: Fault | None = None) -> None:
        """The faults for the next requests, whatever they ask for; after them `then`, or right answers."""
        self._check(faults, then)
        with self._guard:
            self._plan = _Script(faults, then or answer())
        self._advance()

    def on(self, verb: str, *faults: Fault, then: Fault | None = None) -> None:
        """The faults for the next requests of a verb ("server", "metadata", "ready", "predict"), ahead of `script`.

        After them comes `then`; where it is None, what `script` says.
        """
        if verb not in VERBS:
            raise ValueError(f"there is no verb {verb!r}; there are {', '.join(VERBS)}")
        for fault in (*faults, *([then] if then else [])):
            if fault.on != "request":
                raise ValueError(f"{fault.name} acts before a verb is known; give it to script()")
        with self._guard:
            self._plans[verb] = _Script(faults, then)

    def _check(self, faults: Sequence[Fault], then: Fault | None) -> None:
        for fault in (*faults, *([then] if then else [])):
            if not isinstance(fault, Fault):
                raise TypeError(f"{fault!r} is no fault; call the function that makes it, as in reset()")
        if then is not None and then.on == "port":
            raise ValueError("a port can't stay closed for ever; use down()")

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Within it the port is closed, and so are the connections that carried no request."""
        self._go_down()
        try:
            yield
        finally:
            self._come_up()

    # ------------------------------------------------------------ the log
    @property
    def requests(self) -> tuple[Seen, ...]:
        """The requests since `clear`, in the order in which they came."""
        with self._guard:
            return tuple(self._requests)

    @property
    def connections(self) -> tuple[Connected, ...]:
        """The connections since `clear`."""
        with self._guard:
            return tuple(self._connections)

    def of(self, verb: str) -> tuple[Seen, ...]:
        """The requests of one verb."""
        return tuple(seen for seen in self.requests if seen.verb == verb)

    @property
    def gaps(self) -> tuple[float, ...]:
        """Seconds between each request and the one after it."""
        times = [seen.time for seen in self.requests]
        return tuple(after - before for before, after in itertools.pairwise(times))

    @property
    def duplicates(self) -> tuple[Seen, ...]:
        """The predict requests that had come before: those with the same id, or else the same body."""
        known: set[str | bytes] = set()
        again = []
        for seen in self.of("predict"):
            key = seen.id or seen.body
            if key in known:
                again.append(seen)
            known.add(key)
        return tuple(again)

    def clear(self) -> None:
        """Forget what was seen. The script stays."""
        with self._guard:
            self._requests.clear()
            self._connections.clear()

    # ------------------------------------------------------------ the port
    def _go_down(self) -> None:
        with self._guard:
            if self._held is not None or self._closing.is_set():
                return
            _end(self._listener)
            # bound and deaf: nobody else gets the port, and who connects is refused
            self._held = socket.socket()
            self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._held.bind(("127.0.0.1", self.port))
            for number, sock in self._open.items():
                if number not in self._busy:
                    _shut(sock)

    def _come_up(self) -> None:
        with self._guard:
            if self._held is None or self._closing.is_set():
                return
            self._listener, self._held = self._held, None
            self._listener.listen(128)
        self._start(self._accept, self._listener)
        self._advance()

    def _advance(self) -> None:
        """Close the port if that is what comes next."""
        with self._guard:
            first = self._plan.first
            if first is None or first.on != "port" or self._closing.is_set():
                return
            self._plan.take()
            self._timer = threading.Timer(first.seconds, self._come_up)
            self._timer.daemon = True
        self._go_down()
        self._timer.start()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(MOST):
            try:
                sock, _ = listener.accept()
            except OSError:  # it was closed
                return
            with self._guard:
                self._count += 1
                connected = Connected(self._count, time.monotonic())
                self._connections.append(connected)
                self._open[connected.number] = sock
            self._start(self._serve, sock, connected)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="aiaas-faults", daemon=True)
        with self._guard:  # or `close` finds a thread that it can't join yet
            thread.start()
            self._threads = {known for known in self._threads if known.is_alive()} | {thread}

    # ------------------------------------------------------------ a connection
    def _serve(self, sock: socket.socket, connected: Connected) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            fault = self._for_connection()
            if fault is not None:
                fault.act(Exchange(sock, connected, self._closing))
                return
            if self._tls is not None:
                sock.settimeout(PATIENCE)
                sock = self._tls.wrap_socket(sock, server_side=True)
                with self._guard:
                    self._open[connected.number] = sock
            self._exchange(sock, connected)
        except OSError:  # the client has gone
            if connected.ended is None:
                connected.ended = time.monotonic()
        finally:
            sock.close()
            with self._guard:
                del self._open[connected.number]

    def _exchange(self, sock: socket.socket, connected: Connected) -> None:
        for _ in range(MOST):
            try:
                read = read_request(sock, self._idle if connected.requests else PATIENCE)
            except TimeoutError:
                break
            if read is None:
                connected.ended = time.monotonic()
                break
            moment, method, path, headers, body = read
            verb = verb_of(path)
            connected.requests += 1
            with self._guard:
                self._busy.add(connected.number)
                fault = self._for_request(verb)
                seen = Seen(moment, connected.number, verb, method, path, headers, body, fault.name)
                self._requests.append(seen)
            exchange = Exchange(sock, connected, self._closing, seen, self._model.answer(seen))
            try:
                fault.act(exchange)
            finally:
                self._busy.discard(connected.number)
                self._advance()
            if not exchange.kept:
                return
        hang_up(sock, connected)

    def _for_connection(self) -> Fault | None:
        with self._guard:
            first = self._plan.first
            return self._plan.take() if first is not None and first.on == "connection" else None

    def _for_request(self, verb: str) -> Fault:
        own = self._plans.get(verb)
        fault = own.take() if own is not None else None
        if fault is None and (first := self._plan.first) is not None and first.on == "request":
            fault = self._plan.take()
        return fault or answer()

    # ------------------------------------------------------------ the end
    def close(self) -> None:
        """Close the port and every connection; harmless when done twice."""
        self._closing.set()
        with self._guard:
            if self._timer is not None:
                self._timer.cancel()
            _end(self._listener)
            if self._held is not None:
                self._held.close()
            for sock in self._open.values():
                _shut(sock)
            threads = list(self._threads)
        for thread in threads:
            thread.join(2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _shut(sock: socket.socket) -> None:
    """Whoever reads or writes comes back."""
    with contextlib.suppress(OSError):  # it has ended already
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _end(listener: socket.socket) -> None:
    _shut(listener)  # on Linux closing alone leaves `accept` waiting, and the port open with it
    listener.close()
