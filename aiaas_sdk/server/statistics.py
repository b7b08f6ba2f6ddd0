"""What was asked of each served model, how it went and how long it took.

Triton's shape of it: `docs/protocol/extension_statistics.md`. Counts are since the server's start, over all of its
processes. A call costs a few additions.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from aiaas_sdk.records.call import Call
from aiaas_sdk.records.prediction import Served
from aiaas_sdk.server.allowances import spent
from aiaas_sdk.server.ledger import NUMBERS, Ledger
from aiaas_sdk.server.visits import answered, visited
from aiaas_sdk.verbs import Verbs

__all__ = [
    "ANSWERED",
    "ANSWERED_ROWS",
    "COMPUTE",
    "FAILED",
    "INPUT_TOKENS",
    "OUTPUT_TOKENS",
    "PASSES",
    "QUEUE",
    "SECONDS",
    "Histogram",
    "Measured",
    "Statistics",
]

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""The bounds of a histogram of times."""
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""The bounds of the histogram of a forward pass's rows."""
_VERSIONS = 32
"""Of a model, which are counted by themselves: an endpoint behind it may name a new one with each answer."""
OTHERS = "other"
"""Stands for the versions beyond those."""


class Histogram:
    """Where in a row a histogram has its numbers: the sum, and a count for each bucket."""

    def __init__(self, start: int, bounds: Sequence[float]) -> None:
        self.bounds, self._start = bounds, start
        self.end = start + 2 + len(bounds)

    def add(self, row: memoryview[float], value: float) -> None:
        start = self._start
        row[start] += value
        row[start + 1 + bisect_left(self.bounds, value)] += 1

    def sum(self, row: Sequence[float]) -> float:
        return row[self._start]

    def count(self, row: Sequence[float]) -> int:
        return int(sum(self.buckets(row)))

    def buckets(self, row: Sequence[float]) -> Sequence[float]:
        """The count of each bucket by itself; the last is what is above all bounds."""
        return row[self._start + 1 : self.end]


# Where a version's row has what.
FAILED, FAILED_SECONDS, ANSWERED_ROWS, LAST, INPUT_TOKENS, OUTPUT_TOKENS = range(6)
ANSWERED = Histogram(6, ())  # no bounds: a sum and a count
QUEUE = Histogram(ANSWERED.end, SECONDS)
COMPUTE = Histogram(QUEUE.end, SECONDS)
PASSES = Histogram(COMPUTE.end, ROWS)
PASS_SECONDS = PASSES.end  # and one for each further bucket of PASSES


class Statistics:
    """The counts of one served model.

    Attributes:
        model: its name.
        ledger: where they stand; the hosting's.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.ledger = Ledger()
        self._rows: dict[str | None, memoryview[float]] = {}  # bound once: nothing is counted before all is set up

    def measured(self, verb: str, model: Verbs | None = None, *, shared: bool = False) -> Measured:
        """For the length of a call, in a `with`; it is told the result.

        Args:
            verb: "predict", "generate", "stream", "embed", "explain".
            model: that is called, or None where it is told later.
            shared: it may share a forward pass with others, and `passed` is told of that.
        """
        return Measured(self, verb, model, shared)

    def row(self, version: str | None) -> memoryview[float]:
        """The numbers of a version, to be written."""
        return self._rows.get(version) or self._bound(version)

    def _bound(self, version: str | None) -> memoryview[float]:
        key = self.counted_as(version)
        row = self.ledger.row("model", self.model, key)
        if key != OTHERS:
            self._rows[version] = row
        return row

    def counted_as(self, version: str | None) -> str:
        """The version's name in what is counted: itself, or `OTHERS`."""
        return version or "" if version in self._rows or len(self._rows) < _VERSIONS else OTHERS

    @property
    def versions(self) -> list[str]:
        """The versions that were asked for."""
        return [key[2] for key in self.ledger.totals() if key[:2] == ("model", self.model) and key[2]]

    def passed(self, version: str | None, rows: int, seconds: float) -> None:
        """A forward pass over so many rows, of one request or of several. From the event loop's thread."""
        row = self.row(version)
        PASSES.add(row, rows)
        row[PASS_SECONDS + bisect_left(ROWS, rows)] += seconds

    def to_dict(self, version: str | None) -> dict[str, Any]:
        """A version's, in Triton's shape.

        `batch_stats` has a row for the forward passes of each power of two, up to which its sizes are counted; what
        has more than 1024 rows stands at 2048. What preparing inputs and outputs takes isn't measured by itself: it
        is 0.
        """
        totals = self.ledger.totals()
        row = totals.get(("model", self.model, version or ""), [0.0] * NUMBERS)
        computed = COMPUTE.count(row)
        return {
            "name": self.model,
            "version": version or "",
            "last_inference": int(row[LAST]),
            "inference_count": int(row[ANSWERED_ROWS]),
            "execution_count": PASSES.count(row),
            "inference_stats": {
                "success": _stat(ANSWERED.count(row), ANSWERED.sum(row)),
                "fail": _stat(int(row[FAILED]), row[FAILED_SECONDS]),
                "queue": _stat(QUEUE.count(row), QUEUE.sum(row)),
                "compute_input": _stat(computed, 0.0),
                "compute_infer": _stat(computed, COMPUTE.sum(row)),
                "compute_output": _stat(computed, 0.0),
                "cache_hit": _stat(0, 0.0),
                "cache_miss": _stat(0, 0.0),
            },
            "response_stats": {},
            "batch_stats": _batches(row),
            "memory_usage": [],
        }


def _batches(row: Sequence[float]) -> list[dict[str, Any]]:
    sizes = (*ROWS, 2 * ROWS[-1])
    times = row[PASS_SECONDS : PASS_SECONDS + len(sizes)]
    return [
        {
            "batch_size": size,
            "compute_input": _stat(int(count), 0.0),
            "compute_infer": _stat(int(count), seconds),
            "compute_output": _stat(int(count), 0.0),
        }
        for size, count, seconds in zip(sizes, PASSES.buckets(row), times, strict=True)
        if count
    ]


def _stat(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(1e9 * seconds)}


class Measured:
    """One call of a served model: counted as answered or failed when it is left.

    Attributes:
        model: that is called. Where it fails, its version is the one that failed.
    """

    __slots__ = ("_begun", "_call", "_shared", "_statistics", "_verb", "model")

    def __init__(self, statistics: Statistics, verb: str, model: Verbs | None, shared: bool) -> None:
        self._statistics, self._verb, self.model, self._shared = statistics, verb, model, shared
        self._call: Call | None = None

    def __enter__(self) -> Measured:
        self._begun = time.perf_counter()
        visited(self._statistics.model, self._verb)
        return self

    def told(self, answer: Served) -> None:
        """What it came to."""
        self._call = answer._call  # `timing` and `usage` would be two records made for each request

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._begun
        if self._call is None:
            info = None if self.model is None else self.model._engine.info
            row = self._statistics.row(None if info is None else info.version)
            row[FAILED] += 1
            row[FAILED_SECONDS] += seconds
        else:
            self._answered(self._call, seconds)

    def _answered(self, call: Call, seconds: float) -> None:
        statistics, rows = self._statistics, call.rows or 1
        row = statistics.row(call.version)
        ANSWERED.add(row, seconds)
        row[ANSWERED_ROWS] += rows
        row[LAST] = 1000 * time.time()
        if call.queue is not None:
            QUEUE.add(row, call.queue)
        if call.compute is not None:
            COMPUTE.add(row, call.compute)
        if call.input_tokens is not None:
            row[INPUT_TOKENS] += call.input_tokens
        if call.output_tokens is not None:
            row[OUTPUT_TOKENS] += call.output_tokens
        if not self._shared:
            statistics.passed(call.version, rows, seconds if call.compute is None else call.compute)
        answered(call, statistics.counted_as(call.version))
        if call.input_tokens is not None or call.output_tokens is not None:
            spent((call.input_tokens or 0) + (call.output_tokens or 0))
