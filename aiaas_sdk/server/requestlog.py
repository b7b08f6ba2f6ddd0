"""Every HTTP request, counted and, if the operator wants it, logged when it is over."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from functools import cache, cached_property
from typing import Any

from pydantic_core import to_json
from starlette.types import Scope

from aiaas_sdk.server.callers import request_id
from aiaas_sdk.server.ledger import NOW, Ledger
from aiaas_sdk.server.permissions import caller
from aiaas_sdk.server.room import Room
from aiaas_sdk.server.statistics import SECONDS, Histogram
from aiaas_sdk.server.visits import Visit, begun

__all__ = ["OTHER", "REQUESTS", "Requests"]

logger = logging.getLogger("aiaas_sdk.server.access")

OTHER = "other"
"""Stands for any word of a client that isn't one of ours: labels come from closed sets."""
REQUESTS = Histogram(0, SECONDS)
LEFT = 499
"""nginx's status for a client that went before its answer began."""
INFER = "/v2/models/{model}/infer"
_VERBS = (  # of a path, where no model was asked: what it was meant for
    ("/infer", "predict"),
    ("/invocations", "predict"),
    (":predict", "predict"),
    (":explain", "explain"),
    ("/explain", "explain"),
    ("/generate", "generate"),
    ("/generate_stream", "stream"),
    ("/completions", "generate"),
    ("/embeddings", "embed"),
    ("/metrics", "metrics"),
    ("/ready", "health"),
    ("/live", "health"),
    ("/livez", "health"),
    ("/readyz", "health"),
    ("/healthz", "health"),
    ("/health", "health"),
    ("/ping", "health"),
)


class Requests:
    """Begins and ends the visit of each request.

    Args:
        ledger: where they are counted.
        models: the names that are served.
        room: for their bodies.
        logged: write a line for each.
    """

    def __init__(self, ledger: Ledger, models: Collection[str], room: Room, *, logged: bool) -> None:
        self._ledger, self._models, self._room, self._logged = ledger, models, room, logged
        self._rows: dict[tuple[str, str, str, int], memoryview[float]] = {}

    @cached_property
    def _running(self) -> memoryview[float]:
        return self._ledger.row(NOW, "running")

    def begun(self) -> Visit:
        self._running[0] += 1
        return begun(self._room)

    def refused(self, scope: Scope, model: str, verb: str, size: int) -> None:
        """One more like that of this scope, which was refused for a full queue in so many bytes."""
        visit = Visit(self._room)
        visit.model, visit.verb, visit.status, visit.sent = model, verb, 503, size
        self._running[0] += 1
        self.ended(visit, scope)

    def ended(self, visit: Visit, scope: Scope) -> None:
        self._running[0] -= 1
        visit.end()
        verb = visit.verb or _verb(_template(scope))
        model = visit.model if visit.model in self._models else OTHER if visit.model else ""
        seconds = time.perf_counter() - visit.begun
        # a version stands here only where the model has answered, so that it is one that there is
        version = "" if visit.call is None else visit.version
        key = (model, version, verb, visit.status or LEFT)
        REQUESTS.add(self._rows.get(key) or self._row(key), seconds)
        if self._logged:
            logger.info("%s", _line(visit, scope, _template(scope), verb, model, seconds))

    def _row(self, key: tuple[str, str, str, int]) -> memoryview[float]:
        *words, status = key
        row = self._rows[key] = self._ledger.row("request", *words, str(status))
        return row


def _template(scope: Scope) -> str:
    """The path as its route is written, without what the client filled in."""
    route = scope.get("route")
    if route is not None:
        return str(route.path_format)
    return INFER if scope["path"].endswith("/infer") and scope["path"].startswith("/v2/models/") else OTHER


@cache
def _verb(path: str) -> str:
    """Of a path as its route is written: there are some tens of them."""
    return next((verb for ending, verb in _VERBS if path.endswith(ending)), OTHER)


def _line(visit: Visit, scope: Scope, path: str, verb: str, model: str, seconds: float) -> str:
    """The line of the access log: JSON, in which control characters are escaped. No body, key, or query."""
    call = visit.call
    told: dict[str, Any] = {
        "time": _now(),
        "method": scope["method"] if scope["method"] in _METHODS else OTHER,
        "path": path,
        "model": model or None,
        "version": None if call is None else call.version,
        "verb": verb,
        "status": visit.status or LEFT,
        "seconds": round(seconds, 6),
        "queue": None if call is None or call.queue is None else round(call.queue, 6),
        "compute": None if call is None or call.compute is None else round(call.compute, 6),
        "rows": None if call is None else call.rows,
        "input_tokens": None if call is None else call.input_tokens,
        "output_tokens": None if call is None else call.output_tokens,
        "received": visit.received,
        "sent": visit.sent,
        "caller": caller().name,
        "request_id": _id(scope),
    }
    return to_json(told, inf_nan_mode="null").decode()


_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


def _now() -> str:
    """UTC, to the millisecond (RFC 3339)."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"


def _id(scope: Scope) -> str:
    known = scope.get("aiaas.request_id")
    if known is not None:
        return str(known)
    told = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return request_id(told.decode("latin-1"))
