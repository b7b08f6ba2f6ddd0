"""The observers of this process: installed ones, and objects that an application registers."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from importlib import metadata
from typing import Any

from aiaas_sdk import registry
from aiaas_sdk.errors import ConfigError
from aiaas_sdk.flow import Flow, Run
from aiaas_sdk.observing.log import CallLog
from aiaas_sdk.workers import Workers

__all__ = ["Observation", "Observer", "find", "observe", "wanted"]

logger = logging.getLogger("aiaas_sdk.observing")

HOOKS = ("aiaas_call_started", "aiaas_attempt_finished", "aiaas_call_finished")
_HINT = f"Mark its functions with aiaas_sdk.hookspecs.hookimpl; the hooks are {', '.join(HOOKS)}"


class _Telling(threading.local):
    on = False


_telling = _Telling()
"""Whether this thread is in a hook. An observer that asks a model would else observe itself without end."""


class Observer:
    """One plugin's hooks, called so that none of their failures comes out.

    Attributes:
        switch: says whether it wants the call that begins now; None where it wants all.
    """

    def __init__(self, plugin: Any) -> None:
        self.plugin = plugin
        self.name: str = getattr(plugin, "__name__", type(plugin).__name__)
        self._hooks = _hooks_of(plugin)
        switch = self._hooks.aiaas_observes.get_hookimpls()
        self.switch: Callable[[], Any] | None = switch[0].function if switch else None  # past pluggy, for speed
        self._failed = False

    def tell(self, hook: str, **facts: Any) -> list[Any]:
        """What its hook of this name gave; nothing where it failed."""
        _telling.on = True
        try:
            given: list[Any] = getattr(self._hooks, hook)(**facts)
            return given
        except Exception as error:
            self.failed(hook, error)
            return []
        finally:
            _telling.on = False

    def failed(self, hook: str, error: Exception) -> None:
        """Says so, once for all to see: the next failures are most often the same."""
        level, self._failed = logging.DEBUG if self._failed else logging.WARNING, True
        logger.log(level, "the observer %s failed in %s: %s", self.name, hook, type(error).__name__, exc_info=error)


def _hooks_of(plugin: Any) -> Any:
    """The hooks of an observer.

    Raises:
        ConfigError: it has none, or one that can't be called.
    """
    if inspect.isclass(plugin):
        raise ConfigError(f"the observer is the class {plugin.__name__}", hint="Give an object of it")
    try:
        hooks = registry.managed(plugin)
    except Exception as error:
        raise ConfigError(f"the observer can't be registered: {error}", hint=_HINT) from error
    found = [impl for name in HOOKS for impl in getattr(hooks, name).get_hookimpls()]
    if not found:
        raise ConfigError(f"the observer {type(plugin).__name__} has no hook", hint=_HINT)
    for impl in found:
        if inspect.iscoroutinefunction(impl.function):
            raise ConfigError(f"{impl.function.__name__} is async; calls don't await observers", hint="Write def")
    return hooks


_guard = threading.Lock()
_observers: tuple[Observer, ...] = (Observer(CallLog()),)


def wanted() -> list[Observer]:
    """Those that want the call that begins now. Asked by each call, so it has to be quick."""
    found = []
    for observer in _observers:
        try:
            if observer.switch is None or observer.switch():
                found.append(observer)
        except Exception as error:
            observer.failed("aiaas_observes", error)
    return [] if found and _telling.on else found


# ---------------------------------------------------------------- in code
class Observation:
    """An observer at work, until `close` or the end of the `with` block. Calls in flight are told to their end."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def close(self) -> None:
        """Observe no further call; harmless when done twice."""
        global _observers
        with _guard:
            _observers = tuple(observer for observer in _observers if observer is not self._observer)

    def __enter__(self) -> Observation:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def observe(plugin: object) -> Observation:
    """Tell an object of all calls of this process from now on.

    Args:
        plugin: an object (or a module) with functions that `aiaas_sdk.hookspecs.hookimpl` marks:
            `aiaas_call_started(call)`, `aiaas_attempt_finished(call, attempt)`, `aiaas_call_finished(call, error)`.
            They are called in the thread or event loop of the call, which waits for them. What they raise is logged
            and breaks no call.

    Returns:
        A handle: `close` it, or use it in a `with`, to stop.

    Raises:
        ConfigError: a hook has another name or other arguments than there are, or the object has none.
    """
    global _observers
    observer = Observer(plugin)
    with _guard:
        if any(known.plugin is plugin for known in _observers):
            raise ConfigError(f"this {observer.name} observes already", hint="Close its handle first")
        _observers = (*_observers, observer)
    return Observation(observer)


# ---------------------------------------------------------------- installed ones
_seen: set[metadata.EntryPoint] = set()
_found: object = None
_finding = threading.RLock()  # an observer may open a model while it is imported


def find() -> Flow[None]:
    """Register the installed observers that haven't been looked at yet. Importing them may take a while."""
    if registry.observers() is not _found:
        workers = Workers(1, "aiaas-observers")
        try:
            yield Run(_find, workers)
        finally:
            workers.shutdown()


def _find() -> None:
    global _found
    entries = registry.observers()
    with _finding:
        for entry in entries:
            if entry not in _seen:
                _seen.add(entry)
                _install(entry)
        _found = entries


def _install(entry: metadata.EntryPoint) -> None:
    try:
        observe(entry.load())
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # an import may even call sys.exit
        dist = entry.dist.name if entry.dist else "unknown"
        what = error.message if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
        logger.warning("the observer %s (distribution %s) is left out: %s", entry.name, dist, what[:300])
