"""What is known about a model, a call and a backend: frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BackendInfo", "ModelInfo", "Stats", "TensorSpec", "Timing", "Usage"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: its name, its Open Inference Protocol datatype ("FP32"), its shape (-1 = any)."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where the time of a call went, in seconds; None where nobody measured it."""

    total: float
    queue: float | None = None
    compute: float | None = None
    network: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a call used; None is unknown, never 0."""

    rows: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What a model says of itself.

    Attributes:
        name, version: as its bundle or its server names them.
        versions: all that are there, oldest first.
        inputs, outputs: the signature.
        verbs: what it can do ("predict", ...).
        labels: the class names, in the order of the last axis.
        platform: what runs it ("pytorch_module", "pytorch_exported", a server's own word).
        device: where it runs ("cpu", "cuda:0"), where that is known.
        metadata: anything else, with `digest`, `dtype` and `precision` where they are known.
    """

    name: str
    version: str | None = None
    versions: tuple[str, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    verbs: frozenset[str] = frozenset()
    labels: tuple[str, ...] | None = None
    platform: str = ""
    device: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows_free(self) -> bool:
        """The first axis is free in every input and output: the model takes any number of rows."""
        specs = self.inputs + self.outputs
        return bool(specs) and all(spec.shape[:1] == (-1,) for spec in specs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Counts since a model was loaded; a view made by `with_options` counts into the same numbers.

    Attributes:
        calls, failures: calls that ended, and those of them that raised; a stream that its reader left didn't.
        attempts: requests sent (0 for a local model).
        rows: rows answered.
        seconds: time spent in calls, summed.
    """

    calls: int = 0
    failures: int = 0
    attempts: int = 0
    rows: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendInfo:
    """An installed backend: its scheme, who brought it, and whether it can be used.

    `state` is "ready", "missing extra: NAME" or "broken: why" (the last one once a `load` has tried).
    """

    scheme: str
    distribution: str
    version: str
    state: str = "ready"
