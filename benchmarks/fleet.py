"""200 clients and a server that is offered three times what it can do for a while: with the retry budget and without.

The server has a queue of one second, and works on its requests in the order in which they came, also on those whose
client has given up; while the queue is full it answers 503. A client calls at random moments, whatever became of its
earlier calls, and waits for an answer for half a second; so work that waited longer is lost, and every retry takes the
place of another call. The budget belongs to a process (and an origin): the clients live in a few processes, as the
users of a few services do.

    python benchmarks/fleet.py --picture docs/fleet.svg      # writes benchmarks/results/fleet.json too
    python benchmarks/fleet.py --cases "a budget for each client" --seconds 4 15 60
"""

from __future__ import annotations

import asyncio
import heapq
import json
import multiprocessing
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from chart import Line, Panel, drawn
from report import add_picture, draw, parser, written

import aiaas_sdk as aiaas
from aiaas_sdk.errors import AiaasError

PATIENCE, TIMEOUT = 0.5, 5.0
"""Seconds for one attempt, and for a call."""
WORKERS, QUEUE = 10, 1.0
"""Requests that are worked on at once, and the seconds that a request waits at most for its turn."""
ORDINARY, OVERLOAD = 0.7, 3.0
"""Offered load, as a share of what the server can do."""
BIN = 0.5
"""Seconds of a point of the curves."""
BACK = 0.9
"""Goodput is back when this share of the offered calls gets its answer."""

spawning = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Plan:
    """Who calls how much, for how many seconds."""

    capacity: float
    before: float
    overload: float
    after: float
    clients: int = 200
    processes: int = 4
    alone: bool = False
    """Whether each client has a budget of its own, as if it were the only one of its process."""

    @property
    def seconds(self) -> float:
        return self.before + self.overload + self.after

    @property
    def relief(self) -> float:
        """The moment when the overload ends."""
        return self.before + self.overload

    def rate(self, moment: float) -> float:
        """Calls per second of all clients."""
        return self.capacity * (OVERLOAD if self.before <= moment < self.relief else ORDINARY)


CASES: Mapping[str, tuple[Mapping[str, Any], bool]] = {
    "with the retry budget": ({"retry": aiaas.Retry(), "breaker": None}, False),
    "without it": ({"retry": aiaas.Retry(budget=None), "breaker": None}, False),
    "all defaults: budget and breaker": ({}, False),
    "a budget for each client": ({"retry": aiaas.Retry(), "breaker": None}, True),
    "all defaults for each client": ({}, True),
}
"""The options, and whether each client is alone in its process."""


# ---------------------------------------------------------------- the server
TENSOR = {"name": "x", "datatype": "FP32", "shape": [1]}
DOCUMENTS = {
    "/v2": {"name": "fleet", "version": "1", "extensions": []},
    "/v2/models/m/ready": {},
    "/v2/models/m": {"name": "m", "versions": ["1"], "platform": "", "inputs": [TENSOR], "outputs": [TENSOR]},
}
ANSWER = {"model_name": "m", "outputs": [{**TENSOR, "data": [1.0]}]}


def _http(status: str, document: Any) -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


class Queue:
    """When a request that comes now will be done: workers that take the oldest one each."""

    def __init__(self, capacity: float) -> None:
        self._free, self._work = [0.0] * WORKERS, WORKERS / capacity

    def place(self, now: float) -> float | None:
        begin = max(now, self._free[0])
        if begin - now > QUEUE:
            return None
        heapq.heapreplace(self._free, begin + self._work)
        return begin + self._work


class Peer(asyncio.Protocol):
    """One connection."""

    def __init__(self, queue: Queue, seen: list[float]) -> None:
        self._queue, self._seen = queue, seen
        self._data = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        _, length, rest = head.lower().partition(b"content-length:")
        if not end or len(body) < (int(rest.split(b"\r\n")[0]) if length else 0):
            return
        self._data = b""
        method, path, _ = head.decode("latin-1").split(" ", 2)
        if method == "GET":
            self._say(_http("200 OK", DOCUMENTS[path]))
            return
        now = time.monotonic()
        self._seen.append(now)
        done = self._queue.place(now)
        if done is None:
            self._say(_http("503 Service Unavailable", {"error": "the queue is full"}))
        else:
            asyncio.get_running_loop().call_later(done - now, self._say, _http("200 OK", ANSWER))

    def _say(self, data: bytes) -> None:
        if not self._transport.is_closing():  # its client may have gone; the work was done all the same
            self._transport.write(data)


def serve(pipe: Any, plan: Plan) -> None:
    """A process: tells its ports, and in the end when each request came."""

    async def serving() -> None:
        queue, seen = Queue(plan.capacity), list[float]()
        loop = asyncio.get_running_loop()
        ports = plan.clients if plan.alone else 1
        listening = [
            await loop.create_server(lambda: Peer(queue, seen), "127.0.0.1", 0, backlog=1024) for _ in range(ports)
        ]
        pipe.send([server.sockets[0].getsockname()[1] for server in listening])
        await asyncio.to_thread(pipe.recv)
        pipe.send(seen)

    asyncio.run(serving())


# ---------------------------------------------------------------- the clients
def call(pipe: Any, plan: Plan, ports: Sequence[int], options: Mapping[str, Any], seed: int) -> None:
    """A process: some of the clients. Tells begin, end and success of each call."""

    async def calling() -> None:
        calls: list[tuple[float, float, bool]] = []
        models = [
            aiaas.load_async(
                f"http://127.0.0.1:{port}/v2/models/m", attempt_timeout=PATIENCE, timeout=TIMEOUT, **options
            )
            for port in ports
        ]
        for model in models:
            await model.wait_ready(30)
        pipe.send("ready")
        start = await asyncio.to_thread(pipe.recv)
        clients = (client(model, plan, start, random.Random(f"{seed} {n}"), calls) for n, model in enumerate(models))
        await asyncio.gather(*clients)
        pipe.send(calls)

    asyncio.run(calling())


async def client(model: Any, plan: Plan, start: float, chance: random.Random, calls: list[Any]) -> None:
    """Calls at random moments (a Poisson process), however the calls before have ended."""
    moment, running, most = 0.0, set[asyncio.Task[None]](), plan.capacity * OVERLOAD
    while True:
        moment += chance.expovariate(most / plan.clients)
        if moment > plan.seconds:
            break
        if chance.random() * most > plan.rate(moment):  # thinned out to the rate of the moment
            continue
        await asyncio.sleep(start + moment - time.monotonic())
        task = asyncio.ensure_future(one_call(model, calls))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)


async def one_call(model: Any, calls: list[Any]) -> None:
    begun = time.monotonic()
    try:
        await model.predict([1.0])
        good = True
    except AiaasError:
        good = False
    calls.append((begun, time.monotonic(), good))


# ---------------------------------------------------------------- a run
@dataclass
class Outcome:
    """What one case gave. The curves are per second, a point for each `BIN`."""

    case: str
    plan: Plan
    offered: list[float]
    seen: list[float]
    good: list[float]
    amplification: float
    """Requests that the server saw while it was overloaded, over the calls that were begun."""
    amplification_after: float
    back: float | None
    """Seconds after the overload's end from which on the calls get their answers; None: not within the run."""


def run(case: str, plan: Plan, options: Mapping[str, Any]) -> Outcome:
    server, serving = _started(serve, plan)
    ports = server.recv()
    share = plan.clients // plan.processes
    fleet = [
        _started(call, plan, (ports * plan.clients)[n * share : (n + 1) * share], dict(options), n)
        for n in range(plan.processes)
    ]
    for pipe, _ in fleet:
        assert pipe.recv() == "ready"
    start = time.monotonic() + 0.2
    for pipe, _ in fleet:
        pipe.send(start)
    calls = [(begun - start, ended - start, good) for pipe, _ in fleet for begun, ended, good in pipe.recv()]
    server.send("over")
    seen = [moment - start for moment in server.recv()]
    for process in (serving, *(process for _, process in fleet)):
        process.join(10)
    return outcome(case, plan, calls, seen)


def _started(work: Any, *arguments: Any) -> tuple[Any, Any]:
    mine, its = spawning.Pipe()
    process = spawning.Process(target=work, args=(its, *arguments), daemon=True)
    process.start()
    its.close()
    return mine, process


def outcome(case: str, plan: Plan, calls: Sequence[tuple[float, float, bool]], seen: Sequence[float]) -> Outcome:
    begun = [begin for begin, _, _ in calls]
    good = [end for _, end, right in calls if right]
    end = plan.seconds

    def between(moments: Sequence[float], first: float, last: float) -> int:
        return sum(first <= moment < last for moment in moments)

    def answered(first: float, last: float) -> bool:
        return between(good, first, last) >= BACK * between(begun, first, last)

    def back() -> float | None:
        """From when on there are answers, in the next second and in all that follows."""
        waits = (tenth / 10 for tenth in range(int(10 * (plan.after - 1))))
        firsts = ((wait, plan.relief + wait) for wait in waits)
        return next((wait for wait, first in firsts if answered(first, first + 1) and answered(first, end)), None)

    def amplified(first: float, last: float) -> float:
        return between(seen, first, last) / between(begun, first, last)

    bins = range(int(plan.seconds / BIN))
    return Outcome(
        case=case,
        plan=plan,
        offered=[between(begun, n * BIN, (n + 1) * BIN) / BIN for n in bins],
        seen=[between(seen, n * BIN, (n + 1) * BIN) / BIN for n in bins],
        good=[between(good, n * BIN, (n + 1) * BIN) / BIN for n in bins],
        amplification=amplified(plan.before, plan.relief),
        amplification_after=amplified(plan.relief, end),
        back=back(),
    )


def shown(outcomes: Sequence[Outcome]) -> str:
    lines = [f"{'':36}{'requests / calls, overloaded':>30}{'after':>8}{'goodput back after':>20}"]
    for found in outcomes:
        back = "not in " + f"{found.plan.after:.0f} s" if found.back is None else f"{found.back:.1f} s"
        lines.append(f"{found.case:36}{found.amplification:>30.2f}{found.amplification_after:>8.2f}{back:>20}")
    return "\n".join(lines)


COLOURS = {"without it": "#d55e00", "all defaults: budget and breaker": "#009e73", "with the retry budget": "#0072b2"}


def picture(outcomes: Sequence[Outcome]) -> str:
    """Requests and goodput over time, of the cases that have a colour."""
    plan = outcomes[0].plan
    told = [found for case in COLOURS for found in outcomes if found.case == case]

    def curve(name: str, values: Sequence[float], dash: str) -> Line:
        return Line(name, "#777777", values, BIN / 2, BIN, dash, 1.5)

    def curves(what: str) -> list[Line]:
        return [Line(found.case, COLOURS[found.case], getattr(found, what), BIN / 2, BIN) for found in told]

    capacity = curve("capacity", [plan.capacity] * len(told[0].offered), "2 4")
    calls = curve("calls", told[-1].offered, "6 3")
    panels = [
        Panel("Requests that the server sees, per second", [capacity, *curves("seen"), calls]),
        Panel("Calls that get their answer, per second", [capacity, *curves("good")]),
    ]
    return drawn(panels, "seconds", plan.seconds, (plan.before, plan.relief, f"{OVERLOAD:g} times the capacity"))


def main() -> None:
    made = parser(__doc__, "fleet")
    made.add_argument("--capacity", type=float, default=100.0, help="requests per second that the server can do")
    made.add_argument("--seconds", type=float, nargs=3, default=(4.0, 15.0, 12.0), help="before, in and after it")
    made.add_argument("--processes", type=int, default=4)
    made.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES)[:3])
    add_picture(made)
    options = made.parse_args()
    outcomes = []
    for case in options.cases:
        settings, alone = CASES[case]
        plan = Plan(options.capacity, *options.seconds, processes=options.processes, alone=alone)
        outcomes.append(run(case, plan, settings))
    print(shown(outcomes))
    written(options.json, [asdict(found) for found in outcomes])
    draw(options.picture, lambda: picture(outcomes))


if __name__ == "__main__":
    main()
