"""Draws the timelines of docs/policies from real calls.

    .venv/bin/python scripts/timelines.py           # all of them, half a minute
    .venv/bin/python scripts/timelines.py hedge     # that one

Each picture is one function here: it starts an endpoint that behaves as the scene says, makes calls with aiaas_sdk,
and draws when each call and each of its requests began and ended, as this process and the endpoint saw it. Two runs
differ by milliseconds, so draw a picture again where its scene or what it shows has changed, look at it on a light
and on a dark page, and commit it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from timelines_svg import Bar, Lane, Picture, Scene

import aiaas_sdk as aiaas
from aiaas_sdk.policies.tokens import tokens_of
from aiaas_sdk.transport.origin import origin_of

FOLDER = Path(__file__).parent.parent / "docs" / "policies"
X = [[1.0, 2.0, 3.0]]
PAUSE = 0.02
"""Seconds between two requests of a call from which on they count as a pause."""


# ---------------------------------------------------------------- the endpoint
@dataclass(frozen=True, slots=True)
class Act:
    """What the endpoint does with a request: after `seconds` it answers, or cuts the connection within the answer."""

    seconds: float = 0.12
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass(slots=True)
class Note:
    """A request as the endpoint saw it; seconds since the scene began."""

    verb: str
    begin: float
    attempt: int
    left_ms: str
    end: float = 0.0
    kind: str = "ok"
    outcome: str = "answered"

    def bar(self, label: str | None = None) -> Bar:
        return Bar(self.begin, self.end, self.kind, self.outcome if label is None else label)


class Endpoint:
    """Doubles x over the Open Inference Protocol; `behave` says how, given the request's number and the moment."""

    def __init__(self, behave: Callable[[int, float], Act], opening: Callable[[float], int] = lambda now: 200) -> None:
        self.behave, self.opening = behave, opening
        self.notes: list[Note] = []
        self.zero = time.monotonic()
        self._guard = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.endpoint = self
        self.address = f"http://127.0.0.1:{self._server.server_port}/v2/models/m"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def now(self) -> float:
        return time.monotonic() - self.zero

    def begin(self) -> None:
        """The scene begins now."""
        with self._guard:
            self.notes.clear()
            self.zero = time.monotonic()

    def note(self, verb: str, headers: Mapping[str, str]) -> tuple[int, Note]:
        told = headers.get("aiaas-timeout-ms", "")
        with self._guard:
            noted = Note(verb, self.now, int(headers.get("aiaas-attempt", 1)), told)
            self.notes.append(noted)
            return len(self.notes) - 1, noted

    @property
    def bars(self) -> list[Bar]:
        return [note.bar() for note in self.notes]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    endpoint: Endpoint

    def handle_error(self, *_: Any) -> None:
        """The client hung up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        endpoint = self.server.endpoint
        _, note = endpoint.note("open", self.headers)
        specs = [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
        document = {"name": "m", "versions": ["1"], "platform": "", "inputs": specs, "outputs": specs}
        if self.path == "/v2":
            document = {"name": "scene", "version": "1", "extensions": []}
        self._say(note, endpoint.opening(endpoint.now), document, {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        endpoint = self.server.endpoint
        number, note = endpoint.note("predict", self.headers)
        act = endpoint.behave(number, note.begin)
        if self._left(act.seconds):
            note.end, note.kind, note.outcome = endpoint.now, "left", "given up by the caller"
            self.close_connection = True
        elif act.cut:
            note.end, note.kind, note.outcome = endpoint.now, "failed", "connection lost"
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            x = asked["inputs"][0]
            answer = {"model_name": "m", "id": asked["id"], "outputs": [{**x, "name": "x"}]}
            self._say(note, act.status, answer, act.headers)

    def _left(self, seconds: float) -> bool:
        """Wait so long; whether the caller hung up meanwhile."""
        return bool(select.select([self.connection], [], [], seconds)[0])

    def _say(self, note: Note, status: int, document: Any, headers: Mapping[str, str]) -> None:
        body = json.dumps(document if status < 300 else {"error": "as the scene says"}).encode()
        note.end = self.server.endpoint.now
        if status >= 300:
            note.kind, note.outcome = "failed", str(status)
            if headers:
                note.outcome += ", " + ", ".join(f"{name}: {value}" for name, value in headers.items())
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def opened(behave: Callable[[int, float], Act], **options: Any) -> Iterator[tuple[Endpoint, aiaas.Model[Any, Any]]]:
    """An endpoint and an opened model of it; the scene's time begins with the block."""
    endpoint = Endpoint(behave)
    try:
        with aiaas.load(endpoint.address, **options) as model:
            time.sleep(0.25)  # opening it counts for limits too
            endpoint.begin()
            yield endpoint, model
            time.sleep(0.1)  # a request that was given up shows at the endpoint a moment later
    finally:
        endpoint.close()


def called(endpoint: Endpoint, model: aiaas.Model[Any, Any], **options: Any) -> Bar:
    """One call, as its caller sees it."""
    begin = endpoint.now
    try:
        attempts = model.predict(X, **options).attempts
    except aiaas.AiaasError as error:
        kind = "refused" if isinstance(error, aiaas.CircuitOpenError) else "failed"
        return Bar(begin, endpoint.now, kind, f"{type(error).__name__} after {_counted(error.attempts)}")
    return Bar(begin, endpoint.now, "call", f"predict, answered after {_counted(attempts)}")


def _counted(requests: int) -> str:
    return "1 request" if requests == 1 else f"{requests} requests"


# ---------------------------------------------------------------- lanes
def stairs(notes: Sequence[Note], told: bool = False) -> list[Lane]:
    """A lane for each request, with the pause before it."""
    lanes, end = [], None
    for number, note in enumerate(notes, 1):
        bars = [note.bar(f"told {note.left_ms} ms" if told else None)]
        if end is not None and note.begin - end > PAUSE:
            bars.insert(0, Bar(end, note.begin, "gap", f"pause {note.begin - end:.2f} s"))
        lanes.append(Lane(f"request {number}", bars))
        end = note.end
    return lanes


def ticks(bars: Sequence[Bar]) -> list[Bar]:
    """Bars without words, for lanes where there are many."""
    return [Bar(bar.begin, bar.end, bar.kind) for bar in bars]


def by_number(acts: Sequence[Act]) -> Callable[[int, float], Act]:
    return lambda number, now: acts[min(number, len(acts) - 1)]


# ---------------------------------------------------------------- the pictures
def one_call(title: str, acts: Sequence[Act], **options: Any) -> Scene:
    """A call of an opened model, and its requests; the endpoint goes through the acts."""
    with opened(by_number(acts), **{"timeout": 5, **options}) as (endpoint, model):
        call = called(endpoint, model)
    return Scene(title, [Lane("the call", [call]), *stairs(endpoint.notes)])


def index() -> list[Scene]:
    acts = [Act(status=503, headers={"retry-after": "0.4"}), Act(2.0), Act(0.2)]
    title = "Retry around hedge: a refusal, a pause, then a slow request and a second one beside it"
    return [one_call(title, acts, hedge=aiaas.Hedge(delay=0.3))]


def retry() -> list[Scene]:
    passing = [Act(status=503, headers={"retry-after": "0.4"}), Act(cut=True), Act()]
    later = Act(status=429, headers={"retry-after": "30"})
    return [
        one_call("What may pass is asked again: retry-after is waited for; without it the pause is random", passing),
        one_call("A 500 is the model's own failure: asked once", [Act(status=500)]),
        one_call("timeout=5: a pause that would end after the deadline isn't begun", [later]),
    ]


def retry_budget() -> list[Scene]:
    """An outage, and its end; the breaker is off, which would end it for the endpoint much sooner."""
    ends = 2.9
    behave = lambda number, now: Act(0.01, 504 if now < ends else 200)  # noqa: E731
    calls, levels = list[Bar](), list[tuple[float, float]]()
    quick = aiaas.Retry(wait=0.05, max_wait=0.05)
    with opened(behave, timeout=5, retry=quick, breaker=None) as (endpoint, model):
        tokens = tokens_of(origin_of(endpoint.address))
        levels.append((0.0, tokens.left))
        while endpoint.now < ends + 1.2:
            calls.append(called(endpoint, model))
            levels.append((endpoint.now, tokens.left))
            time.sleep(max(0.0, len(calls) * 0.08 - endpoint.now))
    lanes = [Lane("calls", ticks(calls))]
    for attempt in (1, 2, 3):
        bars = [note.bar("") for note in endpoint.notes if note.attempt == attempt]
        lanes.append(Lane(f"attempt {attempt}", bars))
    legend = [("call", "call that passed"), ("failed", "failed: 504"), ("ok", "answered")]
    title = f"An outage of {ends:g} s: {len(calls)} calls, {len(endpoint.notes)} requests"
    return [Scene(title, lanes, [(ends, "ok", "it works again")], legend, ("tokens", levels))]


def breaker() -> list[Scene]:
    """Calls all the time; the endpoint fails for a while. Its rest is shorter than the default, to fit the page."""
    begins, ends, rest = 0.8, 3.6, 1.0
    behave = lambda number, now: Act(0.01, 500 if begins < now < ends else 200)  # noqa: E731
    calls = list[Bar]()
    with opened(behave, timeout=5, retry=None, breaker=aiaas.Breaker(rest=rest)) as (endpoint, model):
        while endpoint.now < 5.2:
            calls.append(called(endpoint, model))
            time.sleep(max(0.0, len(calls) * 0.05 - endpoint.now))
    bars, rests = endpoint.bars, list[Bar]()
    for before, after in itertools.pairwise(bars):
        if after.begin - before.end > rest * 0.9:
            rests.append(Bar(before.end, after.begin, "rest", f"open, {after.begin - before.end:.2f} s"))
    refused = sum(bar.kind == "refused" for bar in calls)
    legend = [
        ("call", "call that passed"),
        ("failed", "failed at the endpoint"),
        ("refused", "CircuitOpenError, nothing sent"),
        ("ok", "answered"),
    ]
    title = f"{len(calls)} calls, {len(bars)} requests: {refused} calls didn't reach an endpoint that fails"
    marks = [(begins, "failed", "it fails"), (ends, "ok", "it works again")]
    lanes = [Lane("calls", ticks(calls)), Lane("requests", ticks(bars)), Lane("breaker", rests)]
    return [Scene(title, lanes, marks, legend)]


def hedge() -> list[Scene]:
    hedging, slow, quick = aiaas.Hedge(delay=0.3), Act(1.2), Act(0.15)
    return [
        one_call("Without a hedge: as slow as the slowest", [slow]),
        one_call("hedge=Hedge(delay=0.3): the first request is slow", [slow, quick], hedge=hedging),
        one_call("hedge=Hedge(delay=0.3): the first request is quick", [quick], hedge=hedging),
    ]


def limits() -> list[Scene]:
    scenes = []
    for title, chosen in (
        ("Limits(concurrency=2): six calls at once", aiaas.Limits(concurrency=2)),
        ("Limits(requests_per_second=5): six calls at once", aiaas.Limits(requests_per_second=5)),
    ):
        lanes = list[Lane]()
        with opened(by_number([Act(0.3)]), timeout=5, limits=chosen) as (endpoint, model):
            for number, (call, request) in enumerate(_at_once(endpoint, model, 6), 1):
                waited = request.begin - call.begin
                wait = [Bar(call.begin, request.begin, "gap", f"waits {waited:.2f} s")] if waited > PAUSE else []
                lanes.append(Lane(f"call {number}", [*wait, Bar(request.begin, request.end, "ok", "its request")]))
        scenes.append(Scene(title, lanes))
    return scenes


def _at_once(endpoint: Endpoint, model: aiaas.Model[Any, Any], count: int) -> list[tuple[Bar, Note]]:
    """Calls in so many threads, each with the request that was its own, in the order of the requests."""
    calls = list[Bar]()
    threads = [threading.Thread(target=lambda: calls.append(called(endpoint, model))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return list(zip(sorted(calls, key=lambda bar: bar.end), sorted(endpoint.notes, key=lambda n: n.end), strict=True))


def deadline() -> list[Scene]:
    options: dict[str, Any] = {"timeout": 2, "attempt_timeout": 0.7}
    with opened(by_number([Act(5.0)]), **options) as (endpoint, model):
        late = called(endpoint, model)
    lanes = [Lane("the call", [late]), *stairs(endpoint.notes, told=True)]
    legend = [("left", "given up by the caller; what is left of the deadline travels with each request")]
    first = Scene(
        "timeout=2, attempt_timeout=0.7: an endpoint that says nothing", lanes, [(2.0, "failed", "deadline")], legend
    )
    return [first, _loading()]


def _loading() -> Scene:
    """The first call opens the model, which isn't there yet."""
    ready = 3.2
    endpoint = Endpoint(by_number([Act(0.05)]), opening=lambda now: 200 if now > ready else 503)
    try:
        with contextlib.closing(aiaas.load(endpoint.address, timeout=10)) as model:
            endpoint.begin()
            call = called(endpoint, model)
    finally:
        endpoint.close()
    bars = list[Bar]()
    for note in endpoint.notes:
        if bars and note.begin - bars[-1].end > PAUSE:
            bars.append(Bar(bars[-1].end, note.begin, "gap", f"{note.begin - bars[-1].end:.1f} s"))
        bars.append(note.bar(""))
    lanes = [Lane("the first call", [Bar(call.begin, call.end, "call", "predict, answered")]), Lane("requests", bars)]
    legend = [("failed", "503, it still loads"), ("ok", "answered: what the server is, what the model is, predict")]
    return Scene("timeout=10: the first call opens a model that still loads", lanes, [(ready, "ok", "loaded")], legend)


PICTURES: Mapping[str, Callable[[], list[Scene]]] = {
    "index": index,
    "retry": retry,
    "retry-budget": retry_budget,
    "breaker": breaker,
    "hedge": hedge,
    "limits": limits,
    "deadline": deadline,
}


def main(names: Sequence[str]) -> None:
    if unknown := set(names) - set(PICTURES):
        sys.exit(f"there is no picture {', '.join(sorted(unknown))}; there are {', '.join(PICTURES)}")
    for name in names or PICTURES:
        random.seed(4)  # full jitter: the same pauses in each run
        path = FOLDER / f"{name}.svg"
        path.write_text(Picture(PICTURES[name]()).text())
        print(path.relative_to(FOLDER.parent.parent))


if __name__ == "__main__":
    main(sys.argv[1:])
