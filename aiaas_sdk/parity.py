"""Two models, the same inputs: do they say the same, if not why, and how fast is each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from aiaas_sdk.api import load
from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import AiaasError, ConfigError, InputError
from aiaas_sdk.finding import Where
from aiaas_sdk.model import Model
from aiaas_sdk.records.arrays import Arrays
from aiaas_sdk.records.comparison import Comparison, Fact, OutputDifference
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.tensors import Kind

__all__ = ["compare"]

Numbers: TypeAlias = "npt.NDArray[Any]"
Outputs: TypeAlias = "Mapping[str, Numbers]"
INFINITE = float("inf")
DIGITS = 16
"""Hexadecimal digits of a digest that are shown."""


def compare(
    a: Where | Model[Any, Any],
    b: Where | Model[Any, Any],
    inputs: Arrays,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    repeat: int = 20,
) -> Comparison:
    """Give two models the same inputs; tell whether the answers are equal, why not, and how fast each is.

    Args:
        a, b: addresses, or models. `b` is the reference for relative differences. A model that is given stays
            open; what an address names is opened and closed here.
        inputs: as for `predict`. Where a model takes fewer rows at once, they are sent in parts.
        rtol, atol: two numbers are equal where `|a - b| <= atol + rtol * |b|`, and NaN equals NaN.
        repeat: timed calls of each model, a and b in turn; 0 for none. What warms up (the comparison itself) isn't
            timed.

    Raises:
        InputError: a model doesn't take these inputs.
        AiaasError: whatever opening and calling the models raises.
    """
    _check(rtol, atol, repeat)
    with ExitStack() as stack:
        sides = (_Side.of(a, stack), _Side.of(b, stack))
        parts = list(_parts(inputs, sides))
        answers = [[_asked(side, _shielded(part), sides) for part in parts] for side in sides]
        latency = _timed(sides, parts, repeat)
        return _compared(sides, answers, (rtol, atol), latency, repeat)


def _check(rtol: float, atol: float, repeat: int) -> None:
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not 0 <= value < INFINITE:
            raise ConfigError(f"{name} is {value!r}", hint="Give a number from 0 on")
    if type(repeat) is not int or repeat < 0:
        raise ConfigError(f"repeat is {repeat!r}", hint="Give a whole number from 0 on")


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two: its model, what it says of itself, and how it is called in the report."""

    model: Model[Any, Any]
    info: ModelInfo
    name: str

    @classmethod
    def of(cls, given: Any, stack: ExitStack) -> _Side:
        if isinstance(given, Model):
            info = given.info()
            return cls(given, info, f"{info.name}@{info.version}" if info.version else info.name)
        if not isinstance(given, str | os.PathLike | Sequence):
            raise InputError(f"compare was given {kind_of(given)}", hint="Give an address or a Model")
        model = stack.enter_context(load(given))
        return cls(model, model.info(), _shown(given))


def _shown(where: Any) -> str:
    if isinstance(where, str | os.PathLike):
        return str(os.fspath(where))
    return ", ".join(str(os.fspath(part)) for part in where)


# ---------------------------------------------------------------- calling
def _parts(inputs: Any, sides: Sequence[_Side]) -> Iterator[Any]:
    """The inputs, cut where a model says how many rows it takes at once."""
    values = list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]
    limits = [side.info.metadata.get("max_batch_size") for side in sides if side.info.rows_free]
    limit = min((most for most in limits if isinstance(most, int) and most > 0), default=None)
    lengths = {len(value) for value in values if hasattr(value, "__len__") and hasattr(value, "__getitem__")}
    if limit is None or len(lengths) != 1 or max(lengths) <= limit:
        yield inputs
        return
    for start in range(0, max(lengths), limit):
        rows = slice(start, start + limit)
        yield _each(inputs, itemgetter(rows))


def _each(inputs: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(inputs, Mapping):
        return {name: change(value) for name, value in inputs.items()}
    return change(inputs)


def _shielded(inputs: Any) -> Any:
    """The inputs so that a model that writes into its input can't change what the other one is given."""
    return _each(inputs, _shield)


def _shield(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        view = value.view()
        view.flags.writeable = False
        return view
    return value.detach().clone() if hasattr(value, "detach") and hasattr(value, "clone") else value


def _asked(side: _Side, inputs: Any, sides: Sequence[_Side]) -> Prediction:
    try:
        answer: Any = side.model.predict(inputs)
    except InputError as error:
        raise _explained(error, sides) from error.__cause__
    if not isinstance(answer, Prediction):
        raise InputError(f"{side.name} answers in records", hint="Load it without input= and output=")
    return answer


def _explained(error: AiaasError, sides: Sequence[_Side]) -> AiaasError:
    """One set of inputs can't fit two models that take different things; the message says so."""
    a, b = (_signature(side.info.inputs) for side in sides)
    if a and b and a != b:
        error.hint = f"The inputs of the two differ: a takes {a}, b takes {b}"
    return error


def _numpy(answer: Prediction) -> Outputs:
    kind = Kind.numpy()
    return {name: kind.give(tensor) for name, tensor in answer.tensors.items()}


def _timed(sides: Sequence[_Side], parts: Sequence[Any], repeat: int) -> Mapping[str, Mapping[str, float]]:
    if not repeat:
        return {}
    seconds: tuple[list[float], list[float]] = ([], [])
    rows = 0
    for turn in range(repeat):
        part = parts[turn % len(parts)]
        for side, times in zip(sides, seconds, strict=True):
            begun = time.perf_counter()
            answer = side.model.predict(part)
            _numpy(answer)  # an answer on a GPU may not be computed before it is looked at
            times.append(time.perf_counter() - begun)
        rows += _rows(answer, sides)
    return {name: _speed(times, rows) for name, times in zip("ab", seconds, strict=True)}


def _rows(answer: Prediction, sides: Sequence[_Side]) -> int:
    """Rows of a call; a model whose first axis isn't rows is called whole, which counts as one."""
    whole = any(side.info.inputs and not side.info.rows_free for side in sides)
    return 1 if whole else answer.usage.rows or 0


def _speed(seconds: Sequence[float], rows: int) -> Mapping[str, float]:
    p50, p99 = np.percentile(seconds, (50, 99))
    return {"p50": float(p50), "p99": float(p99), "rows_per_s": rows / max(sum(seconds), 1e-9)}


# ---------------------------------------------------------------- the answers
def _compared(
    sides: Sequence[_Side],
    answers: Sequence[Sequence[Prediction]],
    tolerances: tuple[float, float],
    latency: Mapping[str, Mapping[str, float]],
    repeat: int,
) -> Comparison:
    a, b = (_joined([_numpy(answer) for answer in found]) for found in answers)
    rtol, atol = tolerances
    b, renamed = _paired(a, b)
    outputs = tuple(_output(name, a.get(name), b.get(name), rtol, atol) for name in dict.fromkeys([*a, *b]))
    if renamed is not None:
        outputs = (replace(outputs[0], equal=False, problem=outputs[0].problem or f"b calls it {renamed!r}"),)
    first, second = (replace(s.info, version=found[0].version) for s, found in zip(sides, answers, strict=True))
    facts = tuple(_facts(first, second))
    labels_differ = any(fact.name == "labels" and fact.state == "differs" for fact in facts)
    equal = all(output.equal for output in outputs) and not labels_differ
    return Comparison(
        equal=equal,
        max_abs=max((_or_infinite(output, output.max_abs) for output in outputs), default=0.0),
        max_rel=max((_or_infinite(output, output.max_rel) for output in outputs), default=0.0),
        label_agreement=_agreement(a, b, sides[0].info.labels, sides[1].info.labels),
        causes=() if equal else _causes(facts),
        latency=latency,
        a=sides[0].name,
        b=sides[1].name,
        outputs=outputs,
        facts=facts,
        rows=sum(_rows(answer, sides) for answer in answers[0]),
        repeat=repeat,
        rtol=rtol,
        atol=atol,
    )


def _joined(found: Sequence[Outputs]) -> Outputs:
    if len(found) == 1:
        return found[0]
    return {name: np.concatenate([outputs[name] for outputs in found]) for name in found[0]}


def _paired(a: Outputs, b: Outputs) -> tuple[Outputs, str | None]:
    """The only output of b under the name of a's only one, and its own name where that is another."""
    if len(a) == len(b) == 1 and a.keys() != b.keys():
        return dict(zip(a, b.values(), strict=True)), next(iter(b))
    return b, None


def _or_infinite(output: OutputDifference, value: float | None) -> float:
    return (0.0 if output.equal else INFINITE) if value is None else value


def _output(name: str, a: Numbers | None, b: Numbers | None, rtol: float, atol: float) -> OutputDifference:
    if a is None or b is None:
        return OutputDifference(name=name, equal=False, problem=f"only {'b' if a is None else 'a'} has it")
    if a.shape != b.shape:
        problem = f"shapes differ: {list(a.shape)} and {list(b.shape)}"
        return OutputDifference(name=name, equal=False, problem=problem)
    if "O" in (a.dtype.kind, b.dtype.kind):
        differing = int(np.count_nonzero(a != b))
        return OutputDifference(name=name, equal=not differing, differing=differing, elements=a.size)
    exact = a.dtype.kind in "biu" and b.dtype.kind in "biu"
    absolute, reference = _exact_distance(a, b) if exact else _distance(a, b)
    wrong = absolute > (0.0 if exact else atol + rtol * reference)
    return OutputDifference(
        name=name,
        equal=not wrong.any(),
        max_abs=float(absolute.max(initial=0.0)),
        max_rel=_relative(absolute, reference, 0.0 if exact else atol),
        differing=int(np.count_nonzero(wrong)),
        elements=a.size,
    )


def _exact_distance(a: Numbers, b: Numbers) -> tuple[Numbers, Numbers]:
    """|a - b| and |b| as float64. What float64 can't tell apart is still not 0."""
    if np.result_type(a, b).kind == "f":  # int64 and uint64 have no common whole type
        a, b = a.astype(object), b.astype(object)
    unequal = np.asarray(a != b, dtype=bool)
    x, y = a.astype(np.float64), b.astype(np.float64)
    return np.where(unequal, np.maximum(np.abs(x - y), 1.0), 0.0), np.abs(y)


def _distance(a: Numbers, b: Numbers) -> tuple[Numbers, Numbers]:
    """|a - b| and |b| as float64; equal infinities and NaNs are 0 apart, unequal ones infinitely far."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        absolute = np.abs(x - y)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    absolute = np.where(same, 0.0, np.where(np.isnan(absolute), INFINITE, absolute))
    return absolute, np.where(np.isfinite(y), np.abs(y), 0.0)


def _relative(absolute: Numbers, reference: Numbers, atol: float) -> float:
    ratio = np.where(absolute > atol, INFINITE, 0.0)  # for b = 0
    with np.errstate(over="ignore"):
        np.divide(absolute, reference, out=ratio, where=reference > 0)
    return float(ratio.max(initial=0.0))


def _agreement(a: Outputs, b: Outputs, labels_a: Sequence[str] | None, labels_b: Sequence[str] | None) -> float | None:
    scores = [name for name in a if _is_scores(a[name]) and name in b and b[name].shape == a[name].shape]
    if len(scores) != 1:
        return None
    best_a, best_b = a[scores[0]].argmax(axis=1), b[scores[0]].argmax(axis=1)
    classes = a[scores[0]].shape[1]
    if labels_a and labels_b and len(labels_a) == len(labels_b) == classes:
        return float(np.mean(np.asarray(labels_a)[best_a] == np.asarray(labels_b)[best_b]))
    return float(np.mean(best_a == best_b))


def _is_scores(array: Numbers) -> bool:
    return array.ndim == 2 and array.dtype.kind == "f" and array.shape[0] > 0 and array.shape[1] > 1


# ---------------------------------------------------------------- why
def _facts(a: ModelInfo, b: ModelInfo) -> Iterator[Fact]:
    yield Fact(name="version", a=a.version, b=b.version)
    yield Fact(name="digest", a=_digest(a), b=_digest(b))
    yield Fact(name="dtype", a=_text(a.metadata.get("dtype")), b=_text(b.metadata.get("dtype")))
    yield Fact(name="device", a=a.device, b=b.device)
    yield Fact(name="platform", a=a.platform or None, b=b.platform or None)
    yield from _precision(a.metadata.get("precision"), b.metadata.get("precision"))
    yield Fact(name="labels", a=_labels(a, b), b=_labels(b, a))
    yield Fact(name="inputs", a=_signature(a.inputs), b=_signature(b.inputs))
    yield Fact(name="outputs", a=_signature(a.outputs), b=_signature(b.outputs))


def _precision(a: Any, b: Any) -> Iterator[Fact]:
    """The precision flags one by one, where they are told as a mapping."""
    if not isinstance(a, Mapping | None) or not isinstance(b, Mapping | None) or not (a or b):
        yield Fact(name="precision", a=_text(a), b=_text(b))
        return
    for name in dict.fromkeys([*(a or {}), *(b or {})]):
        yield Fact(name=f"precision {name}", a=_text((a or {}).get(name)), b=_text((b or {}).get(name)))


def _digest(info: ModelInfo) -> str | None:
    digest = _text(info.metadata.get("digest"))
    if digest is None:
        return None
    kind, mark, rest = digest.rpartition(":")
    return f"{kind}{mark}{rest[:DIGITS]}"


def _labels(info: ModelInfo, other: ModelInfo) -> str | None:
    """The label map, or where there are many the first that differs."""
    if info.labels is None:
        return None
    mine, theirs = info.labels, other.labels or ()
    at = next((i for i, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]), None)
    shown = f"{len(mine)} labels"
    return shown if at is None else f"{shown}, [{at}] = {mine[at]}"


def _signature(specs: Sequence[TensorSpec]) -> str | None:
    return ", ".join(f"{s.name} {s.datatype} [{','.join(map(str, s.shape))}]" for s in specs) or None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _causes(facts: Sequence[Fact]) -> tuple[str, ...]:
    found = tuple(f"{fact.name}: a has {fact.a}, b has {fact.b}" for fact in facts if fact.state == "differs")
    if found:
        return found
    unknown = ", ".join(fact.name for fact in facts if fact.state == "unknown")
    untold = f"not told by both: {unknown}" if unknown else "the model may not be deterministic"
    return (f"nothing that the models say of themselves differs; {untold}",)
