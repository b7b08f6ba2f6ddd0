"""OpenTelemetry: spans, metrics and trace context, with the SDK's own exporters in memory."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.telemetry import MODELS, Telemetry

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

ROOT = Path(__file__).parent.parent
X = np.array([[31.25, 2.0, 3.0]], np.float32)


# ---------------------------------------------------------------- what was recorded
@dataclass
class Recorded:
    """What the SDK was given."""

    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    tracer: Any

    @property
    def spans(self) -> list[ReadableSpan]:
        """The ended ones, without those of opening."""
        return [span for span in self.exporter.get_finished_spans() if span.name != "open"]

    def points(self, metric: str) -> list[Any]:
        """The metric's data points, without those of opening."""
        data = self.reader.get_metrics_data()
        found = [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == metric
            for point in each.data.data_points
        ]
        return [point for point in found if point.attributes["aiaas.verb"] != "open"]


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    with aiaas.observe(Telemetry(tracers, meters)):
        yield Recorded(exporter, reader, tracers.get_tracer("test"))
    tracers.shutdown()
    meters.shutdown()


class Peer(BaseHTTPRequestHandler):
    """An endpoint that says the statuses of `plan` and then gives x back."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    plan: list[int]
    heard: list[Mapping[str, str]]

    def do_GET(self) -> None:
        specs = [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
        document: Any = {"name": "peer", "version": "1", "extensions": []}
        if "/models/" in self.path:
            document = {"name": "far", "versions": ["7"], "platform": "", "inputs": specs, "outputs": specs}
        self.answer(200, document)

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["content-length"])))["inputs"]
        self.heard.append({name.lower(): value for name, value in self.headers.items()})
        if self.plan:
            return self.answer(self.plan.pop(0), {"error": "not now"})
        self.answer(200, {"model_name": "far", "model_version": "7", "outputs": given})

    def answer(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def peer() -> Iterator[Any]:
    """The handler's class, with the model's address."""
    kind = type("Planned", (Peer,), {"plan": [], "heard": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        kind.port = server.server_port  # type: ignore[attr-defined]
        kind.address = f"http://127.0.0.1:{server.server_port}/v2/models/far"  # type: ignore[attr-defined]
        yield kind
        server.shutdown()


# ---------------------------------------------------------------- spans
def test_a_call_to_an_endpoint_is_one_span(load: Any, peer: Any, recorded: Recorded) -> None:
    with load(f"oip+{peer.address}") as model:
        answer = model.predict(np.concatenate([X, X]))
    (span,) = recorded.spans
    assert (span.name, span.kind, span.status.status_code) == ("predict far", SpanKind.CLIENT, StatusCode.UNSET)
    assert span.parent is None
    attributes = dict(span.attributes or {})
    assert attributes.pop("aiaas.seconds.network") > 0
    assert attributes == {
        "server.address": "127.0.0.1",
        "server.port": peer.port,
        "aiaas.verb": "predict",
        "aiaas.address": f"oip+{peer.address}",
        "aiaas.backend": "oip",
        "aiaas.model": "far",
        "aiaas.model.version": "7",
        "aiaas.attempts": 1,
        "aiaas.request_id": answer.request_id,
        "aiaas.rows": 2,
        "aiaas.input.names": ("x",),
        "aiaas.input.datatypes": ("FP32",),
        "aiaas.input.shapes": ("[2, 3]",),
        "aiaas.input.bytes": 24,
    }


def test_a_model_here_has_spans_without_a_server(load: Any, recorded: Recorded) -> None:
    with load("echo:?x=FP32[-1,3]") as model:
        model.predict(X)
    opening, predict = recorded.exporter.get_finished_spans()
    assert (opening.name, predict.name) == ("open", "predict echo")
    for span in (opening, predict):
        assert not {"server.address", "server.port", "error.type"} & (span.attributes or {}).keys()
    assert (predict.attributes or {})["aiaas.attempts"] == 0
    assert not [name for name in opening.attributes or {} if name.startswith("aiaas.input")]


def test_a_route_has_no_one_server(load: Any, peer: Any, recorded: Recorded) -> None:
    with load(["http://127.0.0.1:9/v2/models/none", peer.address], retry=None) as model:
        model.predict(X)
    (span,) = recorded.spans
    assert "server.address" not in (span.attributes or {})
    assert (span.attributes or {})["aiaas.backend"] == "oip"


def test_requests_that_failed_are_events_of_the_span(load: Any, peer: Any, recorded: Recorded) -> None:
    peer.plan[:] = [503, 429]
    with load(peer.address, retry=aiaas.Retry(wait=0.001)) as model:
        model.predict(X)
    (span,) = recorded.spans
    assert span.status.status_code is StatusCode.UNSET
    assert (span.attributes or {})["aiaas.attempts"] == 3
    facts = [dict(event.attributes or {}) for event in span.events]
    assert {event.name for event in span.events} == {"aiaas.attempt.failed"}
    assert all(fact.pop("aiaas.attempt.seconds") > 0 for fact in facts)
    assert facts == [
        {"aiaas.attempt.number": 1, "error.type": "UnavailableError", "http.response.status_code": 503},
        {"aiaas.attempt.number": 2, "error.type": "RateLimitedError", "http.response.status_code": 429},
    ]


def test_a_call_that_failed_says_so_without_the_words_of_the_error(load: Any, peer: Any, recorded: Recorded) -> None:
    peer.plan[:] = [422]
    with load(peer.address) as model:
        with pytest.raises(aiaas.InvalidRequestError):
            model.predict(X)
        with pytest.raises(aiaas.InputError):
            model.predict(X.astype(np.float64))
    refused, wrong = recorded.spans
    assert (refused.status.status_code, refused.status.description) == (StatusCode.ERROR, "InvalidRequestError")
    assert (refused.attributes or {})["error.type"] == "InvalidRequestError"
    assert (refused.attributes or {})["http.response.status_code"] == 422
    assert (wrong.attributes or {})["error.type"] == "InputError"
    assert "not now" not in refused.to_json() + wrong.to_json()


def test_an_endpoint_that_is_not_there_is_a_span_of_opening(load: Any, recorded: Recorded) -> None:
    model = load("http://127.0.0.1:9/v2/models/none", retry=None)
    with pytest.raises(aiaas.ConnectError):
        model.predict(X)
    model.close()
    (span,) = recorded.exporter.get_finished_spans()
    assert (span.name, (span.attributes or {})["error.type"]) == ("open", "ConnectError")
    assert (span.attributes or {})["server.port"] == 9


async def test_a_cancelled_call_ends_its_span(recorded: Recorded) -> None:
    async with aiaas.load_async("echo:?x=FP32[-1,3]") as model:
        task = asyncio.ensure_future(model.predict(X))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (span,) = recorded.spans
    assert (span.attributes or {})["error.type"] == "CancelledError"


def test_no_contents_and_no_key_get_in(load: Any, peer: Any, recorded: Recorded) -> None:
    with load(peer.address, api_key="sk-very-secret") as model:
        model.predict(X)
    with load("echo:?s=BYTES[-1]") as model:
        model.predict([b"the contents of a text"])
    assert peer.heard[0]["authorization"] == "Bearer sk-very-secret"
    shown = "".join(span.to_json() for span in recorded.exporter.get_finished_spans())
    shown += recorded.reader.get_metrics_data().to_json()  # type: ignore[union-attr]
    for content in ("31.25", "the contents", "very-secret"):
        assert content not in shown


# ---------------------------------------------------------------- traces
def test_the_callers_span_is_the_parent_and_stays_the_current_one(load: Any, recorded: Recorded) -> None:
    current = []

    class Looking:
        @hookimpl
        def aiaas_call_finished(self, call: aiaas.CallEvent, error: str | None) -> None:
            current.append(trace.get_current_span().get_span_context().span_id)

    with load("echo:?x=FP32[-1,3]") as model, aiaas.observe(Looking()):
        with recorded.tracer.start_as_current_span("caller") as caller:
            model.predict(X)
            model.predict(X, timeout=10)
            assert trace.get_current_span() is caller
        model.predict(X)
    *mine, alone = [span for span in recorded.spans if span.name == "predict echo"]
    assert [span.parent.span_id for span in mine if span.parent] == [caller.get_span_context().span_id] * 2
    assert alone.parent is None
    assert current == [caller.get_span_context().span_id] * 2 + [0]


@pytest.mark.parametrize("lanes", [1, 3])
def test_calls_of_map_belong_to_the_callers_span(load: Any, peer: Any, recorded: Recorded, lanes: int) -> None:
    with load(peer.address) as model, recorded.tracer.start_as_current_span("caller") as caller:
        assert len(list(model.map(np.zeros((6, 3), np.float32), batch_size=2, concurrency=lanes))) == 6
    mine = [span for span in recorded.spans if span.name == "predict far"]
    assert [span.parent.span_id for span in mine if span.parent] == [caller.get_span_context().span_id] * 3


async def test_calls_at_once_in_one_loop_have_parents_of_their_own(peer: Any, recorded: Recorded) -> None:
    async with aiaas.load_async(peer.address) as model:

        async def request(n: int) -> None:
            with recorded.tracer.start_as_current_span(f"caller {n}"):
                await model.predict(np.full((n, 3), n, np.float32))

        await asyncio.gather(*map(request, range(1, 9)))
    callers = {span.context.span_id: span.name for span in recorded.spans if span.name.startswith("caller")}
    mine = [span for span in recorded.spans if span.name == "predict far"]
    assert len(mine) == 8
    for span in mine:
        assert span.parent is not None
        assert callers[span.parent.span_id] == f"caller {(span.attributes or {})['aiaas.rows']}"


def test_the_trace_goes_on_to_the_endpoint_with_each_request(load: Any, peer: Any, recorded: Recorded) -> None:
    peer.plan[:] = [503]
    with load(peer.address, retry=aiaas.Retry(wait=0.001)) as model:
        model.predict(X)
    (span,) = recorded.spans
    wanted = f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}"
    assert [heard["traceparent"].rpartition("-")[0] for heard in peer.heard] == [wanted] * 2


def test_a_gateway_takes_part_in_the_trace(load: Any, peer: Any, recorded: Recorded) -> None:
    pytest.importorskip("starlette")
    from aiaas_sdk.server import serve_in_thread

    with serve_in_thread([peer.address]) as url, load(f"{url}/v2/models/far") as model:
        model.predict(X)
    behind, before = recorded.spans  # the gateway's call ends first
    assert behind.parent is not None
    assert behind.parent.span_id == before.context.span_id
    assert behind.context.trace_id == before.context.trace_id
    assert peer.heard[0]["traceparent"].split("-")[2] == f"{behind.context.span_id:016x}"


# ---------------------------------------------------------------- metrics
def test_calls_and_requests_are_measured(load: Any, peer: Any, recorded: Recorded) -> None:
    peer.plan[:] = [503, 422]
    with load(peer.address, retry=aiaas.Retry(wait=0.001)) as model:
        with pytest.raises(aiaas.InvalidRequestError):
            model.predict(X)
        model.predict(X)
        model.predict(X)
    labels = {"aiaas.verb": "predict", "aiaas.backend": "oip", "aiaas.model": "far"}
    durations = {point.attributes.get("error.type"): point for point in recorded.points("aiaas.client.call.duration")}
    assert {error: point.count for error, point in durations.items()} == {None: 2, "InvalidRequestError": 1}
    assert dict(durations[None].attributes) == labels
    assert 0 < durations[None].sum < 10
    assert durations[None].explicit_bounds[0] == 0.0001
    attempts = {point.attributes.get("error.type"): point.value for point in recorded.points("aiaas.client.attempts")}
    assert attempts == {None: 2, "UnavailableError": 1, "InvalidRequestError": 1}


def test_labels_come_from_closed_sets(recorded: Recorded, tmp_path: Path) -> None:
    from aiaas_sdk.records.call import Call
    from aiaas_sdk.telemetry import Instruments

    reader = InMemoryMetricReader()
    instruments = Instruments(None, MeterProvider([reader]))
    for n in range(MODELS + 50):
        event = aiaas.CallEvent(Call("predict", model=f"model-{n}", total=0.1), "echo:", error=f"Error{n}")
        instruments.started(event)
        instruments.finished(event, f"Error{n}")
    points = Recorded(recorded.exporter, reader, None).points("aiaas.client.call.duration")
    assert len(points) == MODELS + 1
    assert {point.attributes["error.type"] for point in points} == {"_OTHER"}
    assert max(point.count for point in points if point.attributes["aiaas.model"] == "_OTHER") == 50


# ---------------------------------------------------------------- installed
def run(tmp_path: Path, code: str, **variables: str) -> Any:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout.splitlines()[-1])


def _installed() -> bool:
    from aiaas_sdk.registry import observers

    return any(entry.value.startswith("aiaas_sdk.telemetry") for entry in observers())


installed = pytest.mark.skipif(not _installed(), reason="the package's metadata are older than its source")


@installed
def test_it_works_by_itself_once_the_application_has_set_a_provider(tmp_path: Path) -> None:
    code = """
        import json, sys
        import aiaas_sdk as aiaas
        model = aiaas.load("echo:?x=FP32[-1]")
        model.predict([1.0])
        before = [name for name in sys.modules if name.startswith("opentelemetry")]
        from opentelemetry import trace
        model.predict([1.0])
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        model.predict([1.0])
        model.predict([1.0], timeout=5)
        print(json.dumps([before, [span.name for span in exporter.get_finished_spans()]]))
        """
    assert run(tmp_path, code) == [[], ["predict echo", "predict echo"]]


@installed
def test_metrics_alone_are_enough(tmp_path: Path) -> None:
    code = """
        import json
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider([reader]))
        import aiaas_sdk as aiaas
        with aiaas.load("echo:?x=FP32[-1]") as model:
            model.predict([1.0])
        (resource,) = reader.get_metrics_data().resource_metrics
        (scope,) = resource.scope_metrics
        print(json.dumps([scope.scope.name, [metric.name for metric in scope.metrics]]))
        """
    assert run(tmp_path, code) == ["aiaas_sdk", ["aiaas.client.call.duration"]]


@installed
def test_the_api_without_an_sdk_changes_nothing(tmp_path: Path) -> None:
    code = """
        import json
        from opentelemetry import metrics, trace
        import aiaas_sdk as aiaas
        from aiaas_sdk.observing.observers import wanted
        with aiaas.load("echo:?x=FP32[-1]") as model:
            model.predict([1.0])
        assert wanted() == []
        trace.set_tracer_provider(trace.NoOpTracerProvider())
        metrics.set_meter_provider(metrics.NoOpMeterProvider())
        print(json.dumps(wanted()))
        """
    assert run(tmp_path, code) == []
