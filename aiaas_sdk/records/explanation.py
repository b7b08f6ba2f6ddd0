"""Records of explaining: what is asked, what comes back, and what a caller is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiaas_sdk.errors import InputError
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.records.prediction import Arrayed

if TYPE_CHECKING:
    from aiaas_sdk.tensors import Tensor

__all__ = [
    "AUTO",
    "METHODS",
    "PERTURBING",
    "Explained",
    "Explanation",
    "Question",
    "axis_of_rows",
    "explainable",
    "explained_output",
    "explained_outputs",
    "names_of",
    "with_explain",
]

AUTO = "auto"
METHODS = (
    "integrated_gradients",
    "saliency",
    "smoothgrad",
    "grad_cam",
    "attention_rollout",
    "occlusion",
    "shap",
)
PERTURBING = frozenset(("occlusion", "shap"))
"""Of these, those that need nothing but answers to other inputs."""
FEATURES = "features"
"""The member of a model's metadata with the names of the columns of its one input."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be explained, as backends are asked.

    Attributes:
        inputs: the rows; empty where `texts` are explained.
        texts: for a model with a tokenizer.
        targets: for each row what is explained; None for what the model predicts. A number counts through the row's
            answer; a text names the output, and the place in it, as `explaining.targets` spells them.
        method: of METHODS, or "auto".
        axes: of the inputs whose rows aren't the first axis, which it is; None where all rows share the whole of it.
    """

    inputs: Mapping[str, Tensor]
    texts: tuple[str, ...] | None
    targets: tuple[int | str, ...] | None
    method: str
    axes: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        if self.texts is not None:
            return len(self.texts)
        placed = ((tensor, self.axis(name)) for name, tensor in self.inputs.items() if tensor.shape)
        return next((int(tensor.shape[axis]) for tensor, axis in placed if axis is not None), 0)

    def axis(self, name: str) -> int | None:
        """The axis of an input that its rows are; None where it has none."""
        return self.axes.get(name, 0)


@dataclass(frozen=True, slots=True)
class Explained:
    """An answer, as backends give it.

    Attributes:
        attributions: for each input an array of its shape, FP32 or FP64; for texts one of (texts, tokens), "tokens".
        method: the one that was used.
        targets: for each row the index of the output that was explained; None where a row has one number.
        completeness_error: see `Explanation`.
        tokens: for each text its tokens; None where arrays were explained.
        target_tokens: for each text the next token that is explained, as it is written; None where that is none.
    """

    attributions: Mapping[str, Tensor]
    method: str
    targets: tuple[int, ...] | None
    completeness_error: float | None
    tokens: tuple[tuple[str, ...], ...] | None = None
    target_tokens: tuple[str, ...] | None = None


class Explanation(Arrayed):
    """What each element of the inputs did for the answer: input name -> attributions, shaped like that input.

    A positive number spoke for the target, a negative one against it. The arrays are float32 (float64 for a float64
    input): numpy where numpy went in, torch where torch did. For texts there is one array, "tokens", of (texts,
    tokens): beyond a text's own tokens it is 0.

    Attributes:
        method: the one that was used; of "auto" the one that it chose.
        output: the name of the output that is explained.
        target: for each row the index in that output of the number that is explained; None where the model gives a row
            one number. Where the output has more axes, it counts through all the row's numbers, the last axis fastest:
            `np.unravel_index(target[0], answer.shape[1:])`.
        completeness_error: for methods whose attributions add up to f(x) - f(baseline), by how much the worst row's
            miss that; None for the others. The baseline is zeros, and token 0.
        labels: the class names, where the targets are classes that have names.
        tokens: for each text its tokens; None where arrays were explained.
        target_tokens: for each text the next token that is explained, as it is written; None where that is none.
    """

    __slots__ = (
        "_inputs",
        "_names",
        "completeness_error",
        "labels",
        "method",
        "output",
        "target",
        "target_tokens",
        "tokens",
    )

    _kind, _called = "input", "explanation"

    _inputs: Mapping[str, Any]
    _names: tuple[str, ...] | None
    method: str
    output: str | None
    target: tuple[int, ...] | None
    completeness_error: float | None
    labels: tuple[str, ...] | None
    tokens: tuple[tuple[str, ...], ...] | None
    target_tokens: tuple[str, ...] | None

    def __init__(
        self,
        call: Call,
        arrays: Mapping[str, Any],
        inputs: Mapping[str, Any],
        *,
        method: str,
        target: tuple[int, ...] | None,
        completeness_error: float | None,
        labels: tuple[str, ...] | None = None,
        tokens: tuple[tuple[str, ...], ...] | None = None,
        names: tuple[str, ...] | None = None,
        output: str | None = None,
        target_tokens: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(call)
        put = object.__setattr__
        put(self, "_arrays", dict(arrays))
        put(self, "_inputs", dict(inputs))
        put(self, "_names", names)
        put(self, "method", method)
        put(self, "output", output)
        put(self, "target", target)
        put(self, "completeness_error", completeness_error)
        put(self, "labels", labels)
        put(self, "tokens", tokens)
        put(self, "target_tokens", target_tokens)

    @property
    def features(self) -> tuple[str, ...]:
        """The names of a table's columns: the inputs' own, "x[0]" for the columns of one; or the bundle's `features`.

        Raises:
            InputError: the inputs are no table.
        """
        found: list[str] = []
        for name, array in self._arrays.items():
            if self.tokens is not None or array.ndim not in (1, 2):
                raise InputError(f"{name!r} of {self.model} is no table, whose inputs are (rows,) or (rows, features)")
            one = array.ndim == 1 or array.shape[1] == 1
            found += [name] if one else [f"{name}[{column}]" for column in range(array.shape[1])]
        return self._names if self._names is not None and len(self._names) == len(found) else tuple(found)

    def importance(self) -> dict[str, float]:
        """How much each feature of a table matters over all rows: its mean absolute attribution, most first.

        Raises:
            InputError: the inputs are no table.
        """
        import numpy as np

        features = self.features
        columns = [np.abs(np.asarray(_plain(array), float)).reshape(len(array), -1) for array in self._arrays.values()]
        means = np.concatenate(columns, axis=1).mean(axis=0) if len(columns[0]) else np.zeros(len(features))
        ranked = sorted(zip(features, means.tolist(), strict=True), key=lambda pair: -pair[1])
        return dict(ranked)

    def plot(self, path: str | PathLike[str]) -> Path:
        """A picture: maps over images, bars for tables, coloured tokens for texts. At most 16 rows are shown.

        Args:
            path: a .png or a .html, without scripts. A .png, and maps in either, need pillow (the extra "plots").

        Raises:
            InputError: the file's name ends in something else, or the inputs have no picture.
            ConfigError: pillow isn't installed, or the file can't be written.
        """
        from aiaas_sdk.pictures import draw

        return draw(self, Path(path))

    def shown(self) -> dict[str, Any]:
        """What was explained, as it went in, as numpy arrays by input name."""
        return {name: _plain(array) for name, array in self._inputs.items()}

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in self._arrays.items())
        return f"<Explanation of {shapes} by {self.method}, of {self.model} ({self.backend})>"

    def __reduce__(self) -> tuple[Any, ...]:
        own = (self.method, self.target, self.completeness_error, self.labels, self.tokens, self._names, self.output)
        return _explanation, (self._call, self._arrays, self._inputs, *own, self.target_tokens)


def _explanation(
    call: Call,
    arrays: Any,
    inputs: Any,
    method: str,
    target: Any,
    error: Any,
    labels: Any,
    tokens: Any,
    names: Any,
    output: Any,
    target_tokens: Any = None,
) -> Explanation:
    return Explanation(
        call,
        arrays,
        inputs,
        method=method,
        target=target,
        completeness_error=error,
        labels=labels,
        tokens=tokens,
        names=names,
        output=output,
        target_tokens=target_tokens,
    )


def _plain(array: Any) -> Any:
    """As numpy: a torch tensor may be on a device, or of a dtype that numpy hasn't got."""
    return array.detach().float().cpu().numpy() if hasattr(array, "detach") else array


# ---------------------------------------------------------------- which models can be explained
_FLOATS = frozenset(("FP16", "BF16", "FP32", "FP64"))


def axis_of_rows(spec: TensorSpec) -> int | None:
    """The axis of an input that its rows are: the first where that is free, else the only one that is free.

    A state of (layers, rows, width) has them in the middle. None where there is no such axis: all rows share the input.
    """
    if spec.shape[:1] == (-1,):
        return 0
    free = [axis for axis, size in enumerate(spec.shape) if size == -1]
    return free[0] if len(free) == 1 else None


def explainable(info: ModelInfo) -> bool:
    """Whether a model can be explained: it predicts, and for rows of numbers it gives rows of numbers."""
    numbers = any(spec.datatype not in ("BYTES", "BOOL") and axis_of_rows(spec) is not None for spec in info.inputs)
    return "predict" in info.verbs and numbers and explained_output(info) is not None


def explained_output(info: ModelInfo) -> TensorSpec | None:
    """The output that is explained where the target names none.

    It is the only one of floats with rows; of several the one with a place for each label (along its last axis, or
    along the channels of a map), else the first that gives a row one number or a row of scores, else the first.
    """
    floats = explained_outputs(info)
    classes = len(info.labels or ())
    labelled = [spec for spec in floats if classes and classes in (spec.shape[-1], *spec.shape[1:2])]
    scores = [spec for spec in floats if len(spec.shape) <= 2]
    return next(iter((*labelled, *scores, *floats)), None)


def explained_outputs(info: ModelInfo) -> list[TensorSpec]:
    """The outputs whose numbers can be explained: floats, whose first axis is rows."""
    return [spec for spec in info.outputs if spec.datatype in _FLOATS and spec.shape[:1] == (-1,)]


def names_of(info: ModelInfo) -> tuple[str, ...] | None:
    """The names of a table's columns, where the model's metadata has them."""
    names: Sequence[Any] | Any = info.metadata.get(FEATURES)
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None


def with_explain(info: ModelInfo) -> ModelInfo:
    """What a model says of itself, with the verb where it can be explained."""
    return replace(info, verbs=info.verbs | {"explain"}) if explainable(info) else info
