"""What `compare` found: numbers, causes and speed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Comparison", "Fact", "OutputDifference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDifference:
    """One output of both models.

    Attributes:
        name: the output's.
        equal: within the tolerances; exactly the same for whole numbers, truth values and BYTES.
        max_abs, max_rel: the largest differences; None where there are no numbers to subtract.
        differing, elements: how many elements are out of tolerance, and how many there are.
        problem: why it is unequal whatever its elements are (it is missing, has another shape or name), or None.
    """

    name: str
    equal: bool
    max_abs: float | None = None
    max_rel: float | None = None
    differing: int = 0
    elements: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What both models say of one thing ("version", "device"); None where one doesn't tell."""

    name: str
    a: str | None
    b: str | None

    @property
    def state(self) -> str:
        """ "same", "differs", or "unknown" where a side doesn't tell."""
        if self.a is None or self.b is None:
            return "unknown"
        return "same" if self.a == self.b else "differs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models that were given the same inputs. `str()` is a table of it.

    Attributes:
        equal: every output is there on both sides by the same name, has the same shape, and all
            `|a - b| <= atol + rtol * |b|` (NaN equals NaN; whole numbers, truth values and BYTES exactly); and the
            label maps don't differ.
        max_abs: the largest `|a - b|` of all outputs; inf where something can't be subtracted.
        max_rel: the largest `|a - b| / |b|`; where b is 0, inf if the difference is above atol, else left out.
        label_agreement: the share of rows for which both name the same class, by its label where both have
            labels; None where no single output has scores of shape (rows, classes).
        causes: what differs between what the models say of themselves; empty where `equal`.
        latency: "a" and "b" -> "p50" and "p99" of a call in seconds, and "rows_per_s"; empty without timing.
        a, b: the addresses, or name@version of models that were handed in.
        outputs: each output by itself.
        facts: all that was looked at for causes.
        rows, repeat: rows compared, and timed calls of each model.
        rtol, atol: the tolerances.
    """

    equal: bool
    max_abs: float
    max_rel: float
    label_agreement: float | None
    causes: tuple[str, ...]
    latency: Mapping[str, Mapping[str, float]]
    a: str
    b: str
    outputs: tuple[OutputDifference, ...]
    facts: tuple[Fact, ...]
    rows: int
    repeat: int
    rtol: float
    atol: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON. JSON has no inf: it is null, as what can't be subtracted."""
        document = asdict(self)
        document["facts"] = [{**asdict(fact), "state": fact.state} for fact in self.facts]
        found: dict[str, Any] = _finite(document)
        return found

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"a  {self.a}"
        yield f"b  {self.b}"
        yield ""
        yield f"{'equal' if self.equal else 'NOT EQUAL'} within rtol {self.rtol:g}, atol {self.atol:g} ({self._size()})"
        yield from (f"  cause: {cause}" for cause in self.causes)
        if self.label_agreement is not None:
            yield f"  labels agree for {self.label_agreement:.2%} of the rows"
        yield ""
        yield from _table([("output", "max abs", "max rel", "differing"), *map(_output_line, self.outputs)])
        if self.latency:
            yield ""
            yield from _table([("", "p50 ms", "p99 ms", "rows/s"), *(_speed(s, self.latency[s]) for s in ("a", "b"))])
        if self.facts:
            yield ""
            told = [(fact.name, fact.a or "-", fact.b or "-", fact.state) for fact in self.facts]
            yield from _table([("fact", "a", "b", ""), *told])

    def _size(self) -> str:
        timed = f", {self.repeat} timed calls each" if self.repeat else ""
        return f"{self.rows} row{'' if self.rows == 1 else 's'}{timed}"


def _output_line(output: OutputDifference) -> tuple[str, ...]:
    found = output.problem or f"{output.differing} of {output.elements}"
    return (output.name, _number(output.max_abs), _number(output.max_rel), found)


def _speed(side: str, found: Mapping[str, float]) -> tuple[str, ...]:
    return (side, f"{found['p50'] * 1e3:.3f}", f"{found['p99'] * 1e3:.3f}", f"{found['rows_per_s']:.0f}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
