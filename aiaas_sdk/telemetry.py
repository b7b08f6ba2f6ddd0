"""The observer that speaks OpenTelemetry: a span and two metrics for each call, and the trace goes on to the peer.

It works by itself where the extra `otel` is installed, from the moment at which the application has set a tracer or
meter provider. Until then it costs a look into `sys.modules`, and imports nothing.

Names follow the semantic conventions where these have one (`server.address`, `server.port`, `error.type`,
`http.response.status_code`); the others begin with `aiaas.`. Contents never get in, only names, datatypes, shapes and
sizes of inputs.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiaas_sdk import errors
from aiaas_sdk._version import __version__
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.observing import passed_on
from aiaas_sdk.records.events import AttemptEvent, CallEvent

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["Telemetry", "observer"]

BOUNDS = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds: about those of the conventions for HTTP, and wider: a model here may take 0.1 ms, a large one a minute."""
MODELS = 100
"""How many models metrics are kept apart for: a peer says what its models are called, and each name costs memory."""
OTHER = "_OTHER"
"""The conventions' word for what isn't in a closed set."""
ERRORS = frozenset((*errors.__all__, "CancelledError", "GeneratorExit", "KeyboardInterrupt", "MemoryError"))
_PORTS = {"http": 80, "https": 443}
_API = ("opentelemetry.trace", "opentelemetry.metrics")


class Telemetry:
    """The observer, for `aiaas_sdk.observe` where the providers aren't the global ones.

    Args:
        tracer_provider: of the spans; None for the global one.
        meter_provider: of the metrics; None for the global one.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._providers = tracer_provider, meter_provider
        self._guard = threading.Lock()
        self._instruments: Instruments | None = None
        if tracer_provider is not None or meter_provider is not None:
            self._awake()

    def _awake(self) -> None:
        with self._guard:
            self._instruments = self._instruments or Instruments(*self._providers)

    @hookimpl
    def aiaas_observes(self) -> bool:
        if self._instruments is None:
            if "opentelemetry" not in sys.modules or not _provided():
                return False
            self._awake()
        return True

    @hookimpl
    def aiaas_call_started(self, call: CallEvent) -> Mapping[str, str]:
        assert self._instruments is not None  # it observes
        return self._instruments.started(call)

    @hookimpl
    def aiaas_attempt_finished(self, call: CallEvent, attempt: AttemptEvent) -> None:
        assert self._instruments is not None
        self._instruments.attempted(call, attempt)

    @hookimpl
    def aiaas_call_finished(self, call: CallEvent, error: str | None) -> None:
        assert self._instruments is not None
        self._instruments.finished(call, error)


observer = Telemetry()
"""The installed one, with the global providers."""


def _provided() -> bool:
    """Whether the application has set a provider. For that it has imported the API, so that this needn't."""
    return _is_set("opentelemetry.trace", "get_tracer_provider") or _is_set(
        "opentelemetry.metrics", "get_meter_provider"
    )


def _is_set(module: str, getter: str) -> bool:
    provider = getattr(sys.modules.get(module), getter, lambda: None)()
    # what there is where nothing was set comes from the API itself, and does nothing
    return provider is not None and not type(provider).__module__.startswith(_API)


class Instruments:
    """The tracer and the metrics, and the spans of the calls in flight."""

    def __init__(self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> None:
        from opentelemetry import metrics, trace

        self._tracer = trace.get_tracer("aiaas_sdk", __version__, tracer_provider)
        meter = metrics.get_meter("aiaas_sdk", __version__, meter_provider)
        self._duration = meter.create_histogram(
            "aiaas.client.call.duration",
            unit="s",
            description="What calls took, retries and the pauses between them included",
            explicit_bucket_boundaries_advisory=BOUNDS,
        )
        self._attempts = meter.create_counter(
            "aiaas.client.attempts", unit="{attempt}", description="Requests sent to endpoints"
        )
        self._spans: dict[CallEvent, Span] = {}
        self._models: set[str] = set()

    def started(self, call: CallEvent) -> Mapping[str, str]:
        """Begin the span, and give the headers that carry it on.

        It is never made the current one: a call may be left and taken up again, and others run in between.
        """
        from opentelemetry import propagate, trace

        parent = _parent()
        name = f"{call.verb} {call.model}".rstrip()
        span = self._tracer.start_span(name, parent, trace.SpanKind.CLIENT, _at_start(call))
        self._spans[call] = span
        headers: dict[str, str] = {}
        propagate.inject(headers, trace.set_span_in_context(span, parent))
        return headers

    def attempted(self, call: CallEvent, attempt: AttemptEvent) -> None:
        """Count it, and note on the span which of them failed."""
        self._attempts.add(1, self._labels(call, attempt.error))
        if attempt.error is not None and (span := self._spans.get(call)) is not None:
            facts = {
                "aiaas.attempt.number": attempt.number,
                "aiaas.attempt.seconds": attempt.seconds,
                "error.type": attempt.error,
                "http.response.status_code": attempt.status,
            }
            span.add_event("aiaas.attempt.failed", _known(facts))

    def finished(self, call: CallEvent, error: str | None) -> None:
        from opentelemetry import trace

        span = self._spans.pop(call)
        span.set_attributes(_at_end(call))
        if error is not None:
            span.set_status(trace.Status(trace.StatusCode.ERROR, error))
        span.end()
        self._duration.record(call.timing.total, self._labels(call, error), trace.set_span_in_context(span))

    def _labels(self, call: CallEvent, error: str | None) -> Mapping[str, str]:
        """Of closed sets, or a peer could make as many series as it likes."""
        if call.model not in self._models and len(self._models) < MODELS:
            self._models.add(call.model)
        labels = {"aiaas.verb": call.verb, "aiaas.backend": call.backend}
        labels["aiaas.model"] = call.model if call.model in self._models else OTHER
        if error is not None:
            labels["error.type"] = error if error in ERRORS else OTHER
        return labels


def _parent() -> Context:
    """The current span's context; where there is none, that of the request that a server is answering."""
    from opentelemetry import context, propagate, trace

    current = context.get_current()
    if trace.get_current_span(current).get_span_context().is_valid:
        return current
    return propagate.extract(passed_on(), current)


def _at_start(call: CallEvent) -> Mapping[str, Any]:
    host, port = _server(call.address)
    return _known(
        {
            "aiaas.verb": call.verb,
            "aiaas.address": call.address,
            "server.address": host,
            "server.port": port,
            "aiaas.input.names": [spec.name for spec in call.inputs] or None,
            "aiaas.input.datatypes": [spec.datatype for spec in call.inputs] or None,
            "aiaas.input.shapes": [str(list(spec.shape)) for spec in call.inputs] or None,
            "aiaas.input.bytes": call.input_bytes,
            "aiaas.rows": call.usage.rows,
        }
    )


def _at_end(call: CallEvent) -> Mapping[str, Any]:
    timing = call.timing
    return _known(
        {
            "aiaas.model": call.model or None,
            "aiaas.model.version": call.version,
            "aiaas.backend": call.backend,
            "aiaas.attempts": call.attempts,
            "aiaas.request_id": call.request_id,
            "aiaas.seconds.queue": timing.queue,
            "aiaas.seconds.compute": timing.compute,
            "aiaas.seconds.network": timing.network,
            "error.type": call.error,
            "http.response.status_code": call.status,
        }
    )


def _server(address: str) -> tuple[str | None, int | None]:
    """Host and port of an address that has them."""
    try:
        parts = urlsplit(address)
        return parts.hostname, parts.port or (_PORTS.get(parts.scheme.rpartition("+")[2]) if parts.hostname else None)
    except ValueError:  # a route's text
        return None, None


def _known(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}
