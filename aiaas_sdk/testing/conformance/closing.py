"""Closing: everything that was taken is given back."""

from __future__ import annotations

import gc
import os
import threading
import time
import warnings
import weakref
from pathlib import Path
from typing import Any

from aiaas_sdk.testing.conformance.bench import LIMIT, Bench
from aiaas_sdk.testing.conformance.checks import agree, check, lacks

PATIENCE = 5.0
"""Seconds in which threads and files are given back."""
_FILES = Path("/proc/self/fd")


def _used(bench: Bench, rows: int = 3) -> Any:
    """Another model, opened, and asked where it can predict."""
    model = bench.fresh()
    model.info()
    if "predict" in bench.info.verbs and (bench.info.inputs or bench.subject.inputs):
        model.predict(bench.question(rows))
    return model


@check()
def an_unopened_model_can_be_closed(bench: Bench) -> None:
    """Closing a model that was never opened does nothing."""
    bench.fresh().close()


@check()
def a_model_can_be_loaded_again(bench: Bench) -> None:
    """After `close`, the same address can be loaded and opened anew, as often as one likes."""
    for _ in range(3):
        _used(bench, 27).close()


@check()
def a_model_can_be_closed_in_another_thread(bench: Bench) -> None:
    """`close` may be called in another thread than that which opened it."""
    model, failures = _used(bench), []

    def close() -> None:
        try:
            model.close()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=close, daemon=True)
    thread.start()
    thread.join(LIMIT)
    agree(not thread.is_alive(), f"close() wasn't over in {LIMIT:.0f} s")
    agree(not failures, f"close() raised {failures[:1]}")


@check()
def closing_ends_its_threads(bench: Bench) -> None:
    """No thread of the model is there after closing."""
    before = set(threading.enumerate())
    model = _used(bench)
    if "predict" in bench.info.verbs and (bench.info.inputs or bench.subject.inputs):
        model.predict(bench.question(), timeout=LIMIT)  # with a deadline, work here is done in a thread
    model.close()
    _until(lambda: set(threading.enumerate()) <= before)
    left = [thread.name for thread in threading.enumerate() if thread not in before]
    agree(not left, f"{PATIENCE:.0f} s after closing there are the threads {left}")


@check()
def closing_gives_files_back(bench: Bench) -> None:
    """No file or socket of the model is open after closing."""
    lacks(not _FILES.is_dir(), "this system doesn't list open files")
    _used(bench).close()  # what is opened once and kept (a library) isn't the model's
    bench.end()
    gc.collect()
    # what else this process does may open files meanwhile; a model that keeps its own does so each time
    left = min(_left_open(bench) for _ in range(3))
    agree(left <= 0, f"three models that were closed left {left} files open")


def _left_open(bench: Bench) -> int:
    before = len(os.listdir(_FILES))
    for _ in range(3):
        _used(bench).close()
    bench.end()
    gc.collect()
    _until(lambda: len(os.listdir(_FILES)) <= before)
    return len(os.listdir(_FILES)) - before


@check()
def closing_leaves_no_warning(bench: Bench) -> None:
    """Nothing that should have been closed is left to the garbage collector."""
    gc.collect()
    with warnings.catch_warnings(record=True) as came:
        warnings.simplefilter("always", ResourceWarning)
        _used(bench).close()
        bench.end()
        gc.collect()
    left = [str(one.message) for one in came if issubclass(one.category, ResourceWarning)]
    agree(not left, f"left to the garbage collector: {left[:1]}")


@check()
def a_dropped_model_is_freed(bench: Bench) -> None:
    """A model that nobody holds any more is freed with all that it loaded, closed or not."""
    model = _used(bench)
    backend = weakref.ref(model._engine.backend)
    bench.end()
    del model
    gc.collect()
    _until(lambda: backend() is None)
    agree(backend() is None, "the backend is still there: something keeps it")


def _until(done: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not done() and time.monotonic() < end:
        time.sleep(0.01)
        gc.collect()
