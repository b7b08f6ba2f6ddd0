"""Records of training and explaining."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict

from aiaas_sdk.records.prediction import Served

__all__ = ["Explanation", "Training", "TrainingRun"]


class Training(TypedDict, total=False):
    """Further options of `fit`."""

    schedule: str
    warmup_steps: int
    clip_norm: float
    accumulate: int
    mixed_precision: bool
    compile: bool
    early_stopping: int
    class_weights: Sequence[float]
    checkpoint: str | PathLike[str]


class Explanation(Served):
    """One attribution array per input, shaped like that input."""

    __slots__ = ("array", "completeness_error", "method")

    array: Any
    method: str
    completeness_error: float | None


class TrainingRun(Protocol):
    """A training run, here or as a job on an endpoint."""

    id: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    history: Mapping[str, Sequence[float]]

    def events(self) -> Iterator[Mapping[str, Any]]: ...
    def wait(self, timeout: float | None = None) -> TrainingRun: ...
    def cancel(self) -> None: ...
    def result(self) -> Any: ...
    def plot(self, path: str | PathLike[str]) -> Path: ...
