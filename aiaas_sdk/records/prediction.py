"""The answer of `predict`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from aiaas_sdk.errors import InputError
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.model import Timing, Usage

__all__ = ["Arrayed", "Prediction", "RowOf", "Served", "rows_of"]


class Served:
    """Who answered, and what it took: the common part of every result. Frozen; can be pickled."""

    __slots__ = ("_call",)

    _call: Call

    def __init__(self, call: Call) -> None:
        object.__setattr__(self, "_call", call)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen; {name!r} can't be set")

    @property
    def model(self) -> str:
        """The model's name."""
        return self._call.model

    @property
    def version(self) -> str | None:
        """The version that answered, where the peer says so."""
        return self._call.version

    @property
    def backend(self) -> str:
        """The scheme of the backend that answered ("torch", "oip")."""
        return self._call.backend or ""

    @property
    def attempts(self) -> int:
        """How many requests were sent; 0 for a local model."""
        return self._call.attempts

    @property
    def request_id(self) -> str | None:
        """The request's id, as the peer knows it."""
        return self._call.request_id

    # These two are made when they are asked for: a small local model is called in less time than they cost.
    @property
    def timing(self) -> Timing:
        """Seconds in all, and where they went as far as that is known."""
        call = self._call
        return Timing(total=call.total, queue=call.queue, compute=call.compute, network=call.network)

    @property
    def usage(self) -> Usage:
        """What was used; None in a field is unknown."""
        call = self._call
        return Usage(rows=call.rows, input_tokens=call.input_tokens, output_tokens=call.output_tokens)


class Arrayed(Served, Mapping[str, Any]):
    """A result that is a mapping from name to array."""

    __slots__ = ("_arrays",)

    _arrays: Mapping[str, Any]
    _kind: ClassVar[str]
    """What an array of it is."""
    _called: ClassVar[str]
    """What a result is called in a hint."""

    def __getitem__(self, name: str) -> Any:
        try:
            return self._arrays[name]
        except KeyError:
            raise KeyError(f"no {self._kind} {name!r}; {self.model} gave {', '.join(self._arrays)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @property
    def array(self) -> Any:
        """The only one. InputError, with the names, where there are several."""
        arrays = self._arrays
        if len(arrays) != 1:
            raise InputError(
                f"{self.model} has {len(arrays)} {self._kind}s: {', '.join(arrays)}",
                hint=f"Take one by name: {self._called}[NAME]",
            )
        return next(iter(arrays.values()))


class Prediction(Arrayed):
    """The model's outputs by name, and who gave them.

    A mapping from output name to array: numpy where numpy went in, torch tensors on the same device where
    those did. BF16 comes to a numpy caller as float32 (the same numbers exactly), BYTES as object arrays of
    `bytes`.
    """

    __slots__ = ("labels", "tensors")

    _kind, _called = "output", "prediction"

    labels: tuple[str, ...] | None
    tensors: Mapping[str, Any]
    """The outputs as they travelled (`aiaas_sdk.tensors.Tensor`), with their protocol datatypes."""

    def __init__(
        self, call: Call, arrays: dict[str, Any], tensors: Mapping[str, Any], labels: tuple[str, ...] | None = None
    ) -> None:
        put = object.__setattr__
        put(self, "_call", call)
        put(self, "_arrays", arrays)
        put(self, "tensors", tensors)
        put(self, "labels", labels)

    def top(self, k: int = 1) -> list[list[tuple[str, float]]]:
        """The k best classes of each row, best first, as (label, probability).

        Scores that aren't probabilities yet go through softmax. A class without a label has its index as
        one. InputError where the only output isn't (rows, classes) or (classes,).
        """
        import numpy as np

        from aiaas_sdk.records.probabilities import probabilities

        scores = self.array
        scores = np.asarray(scores.detach().float().cpu() if hasattr(scores, "detach") else scores)
        if scores.ndim not in (1, 2) or scores.dtype.kind not in "fiu":
            raise InputError(
                f"top() needs scores of shape (rows, classes); {self.model} gave {scores.dtype} {scores.shape}"
            )
        if k < 1:
            raise InputError(f"top({k}): k is at least 1")
        rows = probabilities(np.atleast_2d(scores))
        best = np.argsort(-rows, axis=1, kind="stable")[:, :k]
        return [[(self._label(i), float(row[i])) for i in order] for row, order in zip(rows, best, strict=True)]

    def _label(self, index: Any) -> str:
        known = self.labels is not None and index < len(self.labels)
        return self.labels[index] if known and self.labels else str(index)

    def row(self, index: int) -> RowOf:
        """One row's answer: the same outputs without the batch axis."""
        return RowOf(self, index)

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name}={_shape(array)}" for name, array in self._arrays.items())
        return f"<Prediction {outputs} from {self.model}@{self.version} by {self.backend}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Prediction, (self._call, self._arrays, dict(self.tensors), self.labels)


class RowOf(Prediction):
    """One row of an answer. Its arrays are cut when they are asked for: `map` makes one of these for each row."""

    __slots__ = ("_index", "_whole")

    _index: int
    _whole: Prediction

    def __init__(self, whole: Prediction, index: int) -> None:
        put = object.__setattr__
        put(self, "_whole", whole)
        put(self, "_index", index)

    @property
    def _arrays(self) -> dict[str, Any]:  # type: ignore[override]
        return {name: array[self._index] for name, array in self._whole._arrays.items()}

    def __getitem__(self, name: str) -> Any:
        return self._whole._arrays[name][self._index]

    def as_batch(self) -> dict[str, Any]:
        """The arrays with the batch axis, of one row."""
        return {name: array[self._index : self._index + 1] for name, array in self._whole._arrays.items()}

    @property
    def _call(self) -> Call:  # type: ignore[override]
        return self._whole._call

    @property
    def labels(self) -> tuple[str, ...] | None:  # type: ignore[override]
        return self._whole.labels

    @property
    def tensors(self) -> Mapping[str, Any]:  # type: ignore[override]
        return {}


def rows_of(whole: Prediction, places: Iterable[int]) -> Iterator[RowOf]:
    """Rows of an answer, one after the other. Setting the slots without __init__ makes one in half the time."""
    make: Any = object.__new__
    set_whole, set_index = RowOf.__dict__["_whole"].__set__, RowOf.__dict__["_index"].__set__
    for place in places:
        row = make(RowOf)
        set_whole(row, whole)
        set_index(row, place)
        yield row


def _shape(array: Any) -> str:
    return f"{str(array.dtype).removeprefix('torch.')}{list(array.shape)}"
