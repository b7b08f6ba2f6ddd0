"""Where a backend is checked: models of it that are opened once, questions, and right answers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self, TypeVar

import numpy as np

from aiaas_sdk.api import load, load_async
from aiaas_sdk.errors import AiaasError, UnsupportedOperationError
from aiaas_sdk.model import AsyncModel, Model
from aiaas_sdk.records.language import Generation
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.testing.conformance.checks import Check, agree, lacks
from aiaas_sdk.testing.conformance.drawing import drawn, seed_of
from aiaas_sdk.testing.conformance.subject import Arrays, Subject

__all__ = ["LIMIT", "Bench", "shown"]

T = TypeVar("T")
LIMIT = 30.0
"""Seconds that whatever is awaited may take."""
TOKENS = 24
"""Of an answer, where the model can be told."""


class Bench:
    """One model for each face, opened when the first check asks; `fresh` gives others, closed after the check.

    Attributes:
        subject: the model under test.
        asking: the name of the check that runs; its questions are drawn by it.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.asking = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._model: Model[Any, Any] | None = None
        self._awaited: AsyncModel[Any, Any] | None = None
        self._fresh: list[Any] = []
        self._sampling: dict[str, Any] | None = None

    # ------------------------------------------------------------ models
    @property
    def model(self) -> Model[Any, Any]:
        """The plain model that checks share; it has no deadline."""
        if self._model is None:
            self._model = load(self.subject.address, **self.options)
        return self._model

    @property
    def awaited(self) -> AsyncModel[Any, Any]:
        """The awaited model that checks share, for use within `wait`."""
        if self._awaited is None:
            self._awaited = load_async(self.subject.address, **self.options)
        return self._awaited

    @property
    def info(self) -> ModelInfo:
        """What the model says of itself."""
        return self.model.info()

    @property
    def options(self) -> Any:
        """The subject's options, as `load` takes them."""
        return dict(self.subject.options)

    def fresh(self, address: str | Sequence[str] | None = None, **options: Any) -> Model[Any, Any]:
        """Another plain model, not opened yet."""
        model = load(self.subject.address if address is None else address, **{**self.options, **options})
        self._fresh.append(model)
        return model

    def fresh_awaited(self, address: str | Sequence[str] | None = None, **options: Any) -> AsyncModel[Any, Any]:
        """Another awaited model, not opened yet. Who takes it closes it."""
        return load_async(self.subject.address if address is None else address, **{**self.options, **options})

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """What the coroutine gives, in the one event loop that the awaited model is used in."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(asyncio.wait_for(work, LIMIT))

    # ------------------------------------------------------------ a check's turn
    def begin(self, check: Check) -> None:
        """The check's turn: it is exempt, lacks a verb, or may ask.

        Raises:
            LacksError: it isn't asked, and why.
        """
        self.asking = check.name
        if (reason := self.subject.exempt.get(check.name)) is not None:
            lacks(True, f"exempt: {reason}")
        for verb in check.verbs:
            lacks(verb not in self.info.verbs, f"the model has no {verb}")

    def end(self) -> None:
        """The check is over: what it loaded is closed."""
        while self._fresh:
            with suppress(AiaasError):
                self._fresh.pop().close()

    def close(self) -> None:
        """All checks are over."""
        self.end()
        try:
            if self._model is not None:
                self._model.close()
            if self._awaited is not None:
                self.wait(self._awaited.aclose())
        finally:
            if self._loop is not None:
                self._loop.run_until_complete(self._loop.shutdown_asyncgens())
                self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ------------------------------------------------------------ language
    @property
    def sampling(self) -> dict[str, Any]:
        """The likeliest tokens, and few of them: as far as the model takes these options."""
        if self._sampling is None:
            wanted = {"temperature": 0.0, "max_tokens": TOKENS}
            self._sampling = {name: value for name, value in wanted.items() if self.takes(**{name: value})}
        return dict(self._sampling)

    def takes(self, **sampling: Any) -> bool:
        """Whether the model takes options of generate, or of stream where it can't generate."""
        try:
            self.said(**sampling)
        except UnsupportedOperationError:
            return False
        return True

    def said(self, prompt: Any = None, **sampling: Any) -> Generation:
        """An answer to the subject's prompt, or to another one, by the verb that the model has."""
        asked = self.subject.prompt if prompt is None else prompt
        if "generate" in self.info.verbs:
            said: Generation = self.model.generate(asked, **sampling)
            return said
        with self.model.stream(asked, **sampling) as stream:
            return stream.result()

    # ------------------------------------------------------------ questions and answers
    def question(self, rows: int = 3, also: object = "", info: ModelInfo | None = None) -> dict[str, Any]:
        """Inputs of so many rows, drawn by the check's name, and by `also` where it asks several."""
        seed = seed_of(f"{self.asking}{also}")
        if self.subject.inputs is not None and info is None:
            return dict(self.subject.inputs(rows, seed))
        found = info or self.info
        lacks(not found.inputs, "the model announces no inputs, and the subject gives none")
        return drawn(found.inputs, rows, seed, rows_free=found.rows_free)

    def ask(self, inputs: Arrays, *, model: Model[Any, Any] | None = None, outputs: Any = None) -> Prediction:
        """The plain model's answer."""
        return (model or self.model).predict(inputs, outputs=outputs)

    def needs_rows(self) -> None:
        """The check is about rows."""
        lacks(not self.info.rows_free, "the model's first axis isn't rows")

    def needs_reference(self) -> None:
        """The check compares with right numbers."""
        lacks(self.subject.reference is None, "the subject gives no reference")

    def right(self, inputs: Arrays) -> Arrays:
        """The right outputs, by the reference."""
        assert self.subject.reference is not None
        return self.subject.reference(inputs)

    def same(self, came: Arrays, wanted: Arrays, told: str) -> None:
        """Raise unless each output that is wanted came, within the tolerance: floats by it, all else exactly."""
        for name, right in wanted.items():
            agree(name in came, f"{told}: the output {name!r} is missing")
            self.same_array(came[name], right, f"{told}: {name}")

    def same_array(self, came: Any, wanted: Any, told: str) -> None:
        """Raise unless the arrays are the same, within the tolerance; NaN is NaN."""
        came, wanted = np.asarray(came), np.asarray(wanted)
        agree(came.shape == wanted.shape, f"{told} has the shape {list(came.shape)}, not {list(wanted.shape)}")
        agree(came.dtype.kind == wanted.dtype.kind, f"{told} is {came.dtype}, not {wanted.dtype}")
        if came.dtype.kind == "f":
            wide, right = came.astype(np.float64), wanted.astype(np.float64)
            close = np.isclose(wide, right, rtol=self.subject.rtol, atol=self.subject.atol, equal_nan=True)
        else:
            close = np.asarray(came == wanted)
        if not close.all():
            at = tuple(int(index) for index in np.argwhere(~close)[0])
            wrong = f"{int((~close).sum())} of {close.size} elements are wrong"
            agree(False, f"{told}: {wrong}; at {list(at)} came {came[at]!r}, right is {wanted[at]!r}")


def shown(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0][:300]


def rows_of(arrays: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    """These rows of each array."""
    return {name: np.asarray(array)[rows] for name, array in arrays.items()}
