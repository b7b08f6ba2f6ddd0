"""A model of this process for somebody who queues its calls himself, as the server's batcher does."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from aiaas_sdk.backends.base import LocalBackend
from aiaas_sdk.deferring import Deferred
from aiaas_sdk.errors import ClosedError
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.verbs import Verbs

__all__ = ["Near", "near"]


class Near:
    """An opened model here, called without flow, deadline or event loop. It doesn't keep the model alive.

    Attributes:
        info: what it says of itself.
        slots: calls that may run at once; more would wait for each other.
    """

    def __init__(self, model: Verbs, backend: LocalBackend, info: ModelInfo) -> None:
        self._model, self._backend = weakref.ref(model), backend
        self.info, self.slots = info, backend.slots

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have work done by one of the model's own threads; ClosedError where they have ended."""
        try:
            return self._backend.workers.submit(work, *arguments)
        except RuntimeError:
            raise self._closed() from None

    @property
    def lost(self) -> bool:
        """One of the model's threads has died. The next `submit` starts another."""
        return self._backend.workers.lost

    def predict(self, inputs: Mapping[str, Tensor], outputs: Sequence[str] | None = None) -> Prediction:
        """As the model's `predict`, with all its checks, counts and observers, in the caller's thread."""
        model = self._model()
        if model is None:
            raise self._closed()
        model._check_open()
        return model._predict_at_once(self._backend.at_once, model._call("predict"), inputs, outputs)

    def _closed(self) -> ClosedError:
        return ClosedError(f"the model {self._backend.address} was closed", hint="Load it again")


def near(model: Verbs) -> Near | None:
    """The model, if it is here, open and can predict; None where it is behind an endpoint, or plays a recording."""
    backend, info = model._engine.backend, model._engine.info
    if isinstance(backend, Deferred):
        backend = backend.made
    if info is None or not isinstance(backend, LocalBackend) or "predict" not in info.verbs:
        return None
    return Near(model, backend, info)
