"""Where a test steps in between models and their backends. `aiaas_sdk.testing` does, and nothing else.

A model is often loaded long before the test that records it: at import, or by whatever test came first. So the
engines that are alive are known here, and whoever steps in takes those over too, for as long as it stands here.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from aiaas_sdk.engine import Engine

__all__ = ["Between", "Make", "known", "serving", "stepping_in"]

Make: TypeAlias = "Callable[[Any, Mapping[str, Any]], tuple[Any, Mapping[str, Any]]]"
"""From an address as it was written, and options, to what serves it and the options of its calls."""


class Between(Protocol):
    """Whoever steps in."""

    def serve(self, where: Any, options: Mapping[str, Any], make: Make) -> tuple[Any, Mapping[str, Any]]:
        """In place of `make`, for a model that is loaded now."""

    def take(self, engine: Engine, where: Any) -> None:
        """A model that was loaded from `where` earlier: put something else into `engine.backend`."""

    def leave(self) -> None:
        """Put back what `take` changed."""


_between: list[Between] = []
_engines: weakref.WeakKeyDictionary[Engine, Any] = weakref.WeakKeyDictionary()
_guard = threading.Lock()


def serving(make: Make, where: Any, options: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """What serves the address: the backend, or what the innermost that stepped in puts into its place."""
    return _between[-1].serve(where, options, make) if _between else make(where, options)


def known(engine: Engine, where: Any) -> Engine:
    """The engine, remembered while it lives with the address that it was loaded from, as that was written."""
    with _guard:
        _engines[engine] = where
    return engine


@contextmanager
def stepping_in(between: Between) -> Iterator[None]:
    """Every model of this process goes through `between` for the length of a `with`."""
    with _guard:
        alive = list(_engines.items())
    _between.append(between)
    try:
        for engine, where in alive:
            between.take(engine, where)
        yield
    finally:
        _between.remove(between)
        between.leave()
