"""A backend whose plugin isn't imported yet, for whoever must not wait for that: an event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from aiaas_sdk.errors import UnsupportedOperationError
from aiaas_sdk.flow import Flow, Run
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.workers import Workers

__all__ = ["Deferred"]


class Deferred:
    """Stands for a backend until it is opened: then `make` imports and makes it, in a thread, within the deadline.

    What `load` would have said of the address and the options is said then. An import can't be stopped: one that
    hangs keeps its thread, and whoever asks again waits for it, each to his own deadline.
    """

    at_once = None

    def __init__(self, scheme: str, address: Any, make: Callable[[], Any]) -> None:
        self.scheme, self.address = scheme, address
        self._make = make
        self._made: Any = None
        self._making = threading.Lock()
        self._closed = False

    def opening(self, call: Call) -> Flow[ModelInfo]:
        if self._made is None:
            workers = Workers(1, f"aiaas-import-{self.scheme}")
            try:
                yield Run(self._import, workers)
            finally:
                workers.shutdown()
        return (yield from self._backend.opening(call))  # type: ignore[no-any-return]

    def _import(self) -> None:
        with self._making:  # another loop may be at it
            if self._made is None:
                self._made = self._make()
            if self._closed:
                self._made.close()

    @property
    def made(self) -> Any:
        """The backend that this stands for; None before it is opened."""
        return self._made

    @property
    def _backend(self) -> Any:
        assert self._made is not None  # the engine opens it before anything else
        return self._made

    @property
    def parallel(self) -> int:
        """Of the backend; one call at a time until that is known."""
        return 1 if self._made is None else self._made.parallel

    @property
    def known(self) -> ModelInfo | None:
        return None if self._made is None else self._made.known

    @known.setter
    def known(self, info: ModelInfo | None) -> None:
        self._backend.known = info

    def readiness(self, call: Call) -> Flow[bool]:
        return self._backend.readiness(call)  # type: ignore[no-any-return]

    def start(self, call: Call, *arguments: Any) -> Flow[Any]:
        return self._backend.start(call, *arguments)  # type: ignore[no-any-return]

    def unsupported(self, verb: str) -> Exception:
        if self._made is None:
            told = f"{verb} isn't available for {self.address} (backend {self.scheme})"
            return UnsupportedOperationError(told, hint="Its info().verbs says what it can")
        return self._backend.unsupported(verb)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._closed = True
        if self._made is not None:
            self._made.close()
