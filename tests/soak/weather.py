"""The fault server of the soak, as a process of its own: one request in ten meets a fault, chosen at random.

A line on stdin asks for what it saw: a line of JSON, from the number of a call to the faults that its requests met, in
order. The number of a call is the first float of its input.
"""

from __future__ import annotations

import json
import random
import struct
import sys
import threading
from collections import defaultdict
from typing import Any, NamedTuple

from aiaas_sdk.testing import faults
from aiaas_sdk.testing.faults import Exchange, Fault, FaultServer

SHARE = 0.1
"""Of the requests for a prediction; new connections and the port meet faults of their own."""
FIRST = struct.Struct("<f")
ROW = 12  # bytes of an input


class Kind(NamedTuple):
    """A fault, and what may come of a call whose last request met it."""

    fault: Fault
    errors: tuple[str, ...] = ()
    """Classes of our errors; none where the answer is right all the same."""
    again: bool = False
    """Whether a verb that may be repeated is sent again for it."""
    any_verb: bool = False
    """Whether every verb is."""


LOST, LATE, BUSY, GIBBERISH = "ConnectionLostError", "DeadlineExceededError", "UnavailableError", "ProtocolError"


def _lost(fault: Fault) -> Kind:
    return Kind(fault, (LOST,), again=True)


def _late(fault: Fault) -> Kind:
    return Kind(fault, (LATE,), again=True)


def _gibberish(fault: Fault) -> Kind:
    return Kind(fault, (GIBBERISH,))


def _closed_unasked(exchange: Exchange) -> None:
    """The right answer, and the end of the connection, of which it says nothing."""
    exchange.send(exchange.answer.head() + exchange.answer.body)
    exchange.hang_up()


def _hints_first(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 103 Early Hints\r\nlink: </style>; rel=preload\r\n\r\n")
    exchange.send(exchange.answer.head() + exchange.answer.body)


def _other_id(document: dict[str, Any]) -> None:
    document["id"] = "another"


def _no_outputs(document: dict[str, Any]) -> None:
    document["outputs"] = None


UNHEARD = "unheard"
"""What a request met whose connection was closed, with the port, while it was being read."""
MANY = [(f"x-{number}", "y") for number in range(2000)]
KINDS: dict[str, Kind] = {
    # nothing is wrong, or nothing that a caller should notice
    "answer": Kind(faults.answer()),
    "slow": Kind(faults.slow(0.05)),
    "chunked": Kind(faults.chunked(7)),
    "interim": Kind(Fault("interim", _hints_first)),
    "closes": Kind(faults.answer({"connection": "close"})),
    "closes unasked": Kind(Fault("closes unasked", _closed_unasked)),
    "drip body, in time": Kind(faults.drip("body", size=64, every=0.01)),
    # the port is closed, and with it what happened to be open
    UNHEARD: Kind(faults.answer(), (LOST,), again=True),
    # N07..N09
    **{f"reset {at}": _lost(faults.reset(at)) for at in ("request", "head", "body")},  # type: ignore[arg-type]
    **{
        f"cut {at}": _lost(faults.cut(at))  # type: ignore[arg-type]
        for at in ("request", "head", "body", "chunk header", "chunk", "last chunk")
    },
    # N10, N11
    **{f"stall {at}": _late(faults.stall(at)) for at in ("request", "head", "body")},  # type: ignore[arg-type]
    **{f"drip {at}": _late(faults.drip(at)) for at in ("head", "body", "chunk header")},  # type: ignore[arg-type]
    # N05, N12..N15
    "no HTTP": _gibberish(faults.raw(b"SSH-2.0-OpenSSH_9.6\r\n")),
    "TLS": _gibberish(faults.raw(b"\x15\x03\x01\x00\x02\x02\x46")),
    "redirect": Kind(faults.status(307, headers={"location": "http://127.0.0.1:9/"}), ("StatusError",)),
    "claim": _gibberish(faults.claim(70368744177664)),
    "zipped": _gibberish(faults.content(b"\x1f\x8b\x08", {"content-encoding": "gzip"})),
    "endless head": _gibberish(faults.endless("head")),
    "many headers": _gibberish(faults.answer(MANY)),
    # S01
    **{
        f"status {code}": Kind(faults.status(code), (error,))
        for code, error in {
            400: "InvalidRequestError",
            401: "AuthenticationError",
            403: "PermissionDeniedError",
            404: "ModelNotFoundError",
            409: "InvalidRequestError",
            413: "PayloadTooLargeError",
            415: "InvalidRequestError",
            422: "InvalidRequestError",
            500: "ModelError",
            501: "ServerError",
        }.items()
    },
    # S02..S06
    "status 408": Kind(faults.status(408), ("StatusError",), again=True),
    "status 429": Kind(faults.status(429), ("RateLimitedError",), again=True, any_verb=True),
    "status 502": Kind(faults.status(502), (BUSY,), again=True),
    "status 503": Kind(faults.status(503), (BUSY,), again=True, any_verb=True),
    "status 504": Kind(faults.status(504), (BUSY,), again=True),
    "429, in 20 ms": Kind(
        faults.status(429, headers={"retry-after-ms": "20"}), ("RateLimitedError",), again=True, any_verb=True
    ),
    "503, in 0.02 s": Kind(faults.status(503, retry_after="0.02"), (BUSY,), again=True, any_verb=True),
    "503, soon": Kind(faults.status(503, retry_after="soon"), (BUSY,), again=True, any_verb=True),
    "503, in a day": Kind(faults.status(503, retry_after="86400"), (BUSY,)),
    "503, never": Kind(faults.status(503, headers={"x-should-retry": "false"}), (BUSY,)),
    # S11, S12, and answers that are none
    "portal": _gibberish(faults.page()),
    "gateway": Kind(faults.page(502), (BUSY,), again=True),
    "long gateway": Kind(faults.status(502, "<p>\x1b[31mfailed</p>\r\n" * 9000), (BUSY,), again=True),
    "garbage": _gibberish(faults.content(b"\x00\xff" * 500)),
    "empty": _gibberish(faults.content(b"")),
    "no outputs": _gibberish(faults.edited(_no_outputs)),
    "another's answer": _gibberish(faults.edited(_other_id)),
    "bytes left over": _gibberish(faults.edited(lambda document: None, tail=b"1234")),
}
STALE = ("reset request", "cut request", UNHEARD)
"""What lets a request on a kept connection go out once more, at once, over a new one (N07)."""
UNSEEN = ("ConnectError", LOST, LATE)
"""What may come of a call whose last request the server never read."""
_GATES = (faults.reset("accept"), faults.cut("accept"), faults.stall("accept"), faults.refuse(0.02))
"""Faults of new connections, and of the port."""


class Weather:
    """Chooses the faults, and knows which call met which."""

    def __init__(self, seed: int) -> None:
        self._random, self._guard = random.Random(seed), threading.Lock()
        self._bad = [name for name in KINDS if name not in ("answer", UNHEARD)]
        self.met: dict[int, list[str]] = defaultdict(list)

    def act(self, exchange: Exchange) -> None:
        assert exchange.seen is not None
        with self._guard:
            name = self._random.choice(self._bad) if self._random.random() < SHARE else "answer"
        met = self.met[int(FIRST.unpack(exchange.seen.body[-ROW : FIRST.size - ROW])[0])]
        try:
            exchange.send(b"")
        except OSError:
            met.append(UNHEARD)
            raise
        met.append(name)
        KINDS[name].fault.act(exchange)

    def gust(self) -> Fault:
        return self._random.choice(_GATES)


def main() -> None:
    weather, over = Weather(seed=7), threading.Event()
    with FaultServer() as server:
        server.on("predict", then=Fault("weather", weather.act))

        def gusts() -> None:
            while not over.wait(0.2):
                server.script([weather.gust()])

        print(server.address, flush=True)
        sys.stdin.readline()  # the first line starts the gusts, so that opening a model isn't a matter of luck
        threading.Thread(target=gusts, daemon=True).start()
        for _ in sys.stdin:
            print(json.dumps(weather.met), flush=True)
        over.set()


if __name__ == "__main__":
    main()
