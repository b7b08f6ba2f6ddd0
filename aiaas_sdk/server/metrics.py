"""`GET /metrics`: what the server counted, for Prometheus, as text 0.0.4 or as OpenMetrics by the header Accept.

Names end in their unit, and labels come from closed sets: the names of the served models and their versions, verbs and
statuses. What a client makes up is `other`. Where several processes serve, each tells the sums over all of them.

Source: Prometheus' "Exposition formats" and "Metric and label naming".
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiaas_sdk._version import __version__
from aiaas_sdk.server import statistics
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.hosting import Hosting
from aiaas_sdk.server.ledger import NOW, Key
from aiaas_sdk.server.permissions import caller
from aiaas_sdk.server.requestlog import OTHER, REQUESTS
from aiaas_sdk.server.statistics import Histogram

__all__ = ["Metrics"]

Totals = Mapping[Key, Sequence[float]]


class Metrics:
    """The endpoint, for the models of a hosting."""

    def __init__(self, hosting: Hosting) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Counted(hosting))
        self._registry.register(_Processes(hosting))

    def routes(self) -> list[Route]:
        return [Route("/metrics", self.metrics)]

    async def metrics(self, request: Request) -> Response:
        if not caller().metrics:
            raise RefusedError(403, "this key may not read the metrics")
        encode, kind = _encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"content-type": kind})


def _encoder(accept: str) -> tuple[Any, str]:
    """How it is written, and the media type of that; as for nobody in particular where the header makes no sense."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is no number
        return choose_encoder("")


class _Counted(Collector):
    """Families of metrics, made from the ledger's rows when they are asked for."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting

    def collect(self) -> Iterator[Metric]:
        totals = self._hosting.ledger.totals()
        build = GaugeMetricFamily("aiaas_build_info", "The version of the server.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield from _requests(totals)
        yield from _models({key[1:]: row for key, row in totals.items() if key[0] == "model"})
        yield from self._states()

    def _states(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily("aiaas_model_ready", "1 where the version is loaded.", labels=["model", "version"])
        for name, hosted in self._hosting.models.items():
            loaded = hosted.loaded
            if not loaded:
                ready.add_metric([name, ""], 0)
            for version in sorted(loaded, key=str):
                ready.add_metric([name, version or ""], 1)
        yield ready


def _requests(totals: Totals) -> Iterator[Metric]:
    count = CounterMetricFamily(
        "aiaas_requests", "HTTP requests by their answer's status.", labels=["model", "version", "verb", "code"]
    )
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0] * REQUESTS.end)
    for key, row in totals.items():
        if key[0] == "request":
            count.add_metric(key[1:], REQUESTS.count(row))
        if key[0] == "request" and key[1] not in ("", OTHER):
            mine = sums[key[1], key[3]]
            mine[:] = [a + b for a, b in zip(mine, row, strict=False)]
    yield count
    seconds = HistogramMetricFamily(
        "aiaas_request_seconds",
        "From the head of a request for a served model to the end of its answer.",
        labels=["model", "verb"],
    )
    for labels, row in sums.items():
        _add(seconds, labels, REQUESTS, row)
    yield seconds
    running = GaugeMetricFamily("aiaas_requests_running", "HTTP requests that are being answered.")
    running.add_metric([], totals.get((NOW, "running"), [0.0])[0])
    yield running


def _models(rows: Totals) -> Iterator[Metric]:
    labels = ["model", "version"]
    calls = CounterMetricFamily("aiaas_calls", "Calls of a model, over any protocol.", labels=[*labels, "outcome"])
    items = CounterMetricFamily("aiaas_rows", "Rows that were answered.", labels=labels)
    tokens = CounterMetricFamily("aiaas_tokens", "Tokens read and written.", labels=[*labels, "direction"])
    queue = HistogramMetricFamily("aiaas_queue_seconds", "Waiting for the model.", labels=labels)
    compute = HistogramMetricFamily("aiaas_compute_seconds", "Computing, of a call's forward pass.", labels=labels)
    batch = HistogramMetricFamily("aiaas_batch_rows", "Rows that shared a forward pass.", labels=labels)
    for key, row in rows.items():
        calls.add_metric([*key, "answered"], statistics.ANSWERED.count(row))
        calls.add_metric([*key, "failed"], row[statistics.FAILED])
        items.add_metric(key, row[statistics.ANSWERED_ROWS])
        for direction, place in (("input", statistics.INPUT_TOKENS), ("output", statistics.OUTPUT_TOKENS)):
            if row[place]:
                tokens.add_metric([*key, direction], row[place])
        _add(queue, key, statistics.QUEUE, row)
        _add(compute, key, statistics.COMPUTE, row)
        _add(batch, key, statistics.PASSES, row)
    yield from (calls, items, tokens, queue, compute, batch)


def _add(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram, row: Sequence[float]) -> None:
    found, sum_so_far = [], 0.0
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.buckets(row), strict=True):
        sum_so_far += count
        found.append((bound, sum_so_far))
    family.add_metric(labels, found, histogram.sum(row))


class _Processes(Collector):
    """Memory, processor time and open files of all the processes that serve, as sums; their first start."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting

    def collect(self) -> Iterator[Metric]:
        totals = self._hosting.ledger.totals()
        pids = [int(row[0]) for key, row in totals.items() if key[:2] == (NOW, "process") and row[0]]
        found: dict[str, Any] = {}
        for pid in pids or [os.getpid()]:
            for family in ProcessCollector(pid=partial(int, pid), registry=CollectorRegistry()).collect():
                found.setdefault(family.name, (family, []))[1].extend(sample.value for sample in family.samples)
        for name, (family, values) in found.items():
            together = min if name == "process_start_time_seconds" else sum
            made = type(family)(name, family.documentation)
            made.add_metric([], together(values))
            yield made
