"""Failures: one of our errors, which says what and where, and the model goes on."""

from __future__ import annotations

import pickle
import time
from typing import Any

import numpy as np

from aiaas_sdk.errors import AiaasError, ConnectError, DeadlineExceededError, ModelNotFoundError
from aiaas_sdk.model import Model
from aiaas_sdk.testing.conformance.bench import Bench, shown
from aiaas_sdk.testing.conformance.checks import LacksError, agree, check, lacks

PATIENCE = 5.0
"""Seconds that a call may take to find that nobody is there."""


def _failing(bench: Bench) -> dict[str, Any]:
    lacks(bench.subject.failing is None, "the subject gives no inputs at which the model fails")
    return dict(bench.subject.failing or {})


def _failure(bench: Bench) -> AiaasError:
    """What the model's failure comes out as."""
    inputs = _failing(bench)
    try:
        bench.ask(inputs)
    except AiaasError as error:
        return error
    except Exception as error:
        raise LacksError(f"the failure is no AiaasError but {type(error).__name__}") from error
    raise LacksError("the model answered the inputs at which it fails")


@check("predict")
def a_failure_is_one_of_ours(bench: Bench) -> None:
    """What the model raises comes out as an AiaasError."""
    inputs = _failing(bench)
    try:
        bench.ask(inputs)
    except AiaasError:
        return
    except Exception as error:
        agree(False, f"the model's failure came out as {shown(error)}")
    agree(False, "the model answered inputs at which it fails")


@check("predict")
def a_failure_says_where(bench: Bench) -> None:
    """The error names the address that was loaded; of a route, one of them."""
    error, loaded = _failure(bench), bench.subject.address
    known = {loaded} if isinstance(loaded, str) else {*map(str, loaded)}
    known.add(str(bench.model._engine.backend.address))
    agree(error.address in known, f"the error's address is {error.address!r}, and {loaded!r} was loaded")


@check("predict")
def a_failure_says_what(bench: Bench) -> None:
    """The error says in words what happened."""
    error = _failure(bench)
    agree(len(error.message.split()) > 1, f"the error says only {error.message!r}")


@check("predict")
def a_failure_keeps_contents_to_itself(bench: Bench) -> None:
    """The error repeats none of the inputs' numbers: they may be somebody's data."""
    inputs = _failing(bench)
    told = str(_failure(bench))
    for array in inputs.values():
        for value in np.asarray(array).ravel()[:100].tolist():
            word = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            agree(len(word) < 5 or word not in told, f"the error repeats an input: {told[:200]}")


@check("predict")
def a_failure_can_be_pickled(bench: Bench) -> None:
    """The error can be sent to another process."""
    error = _failure(bench)
    try:
        again = pickle.loads(pickle.dumps(error))
    except Exception as fault:
        agree(False, f"the error can't be pickled: {fault}")
    else:
        agree((type(again), str(again)) == (type(error), str(error)), "the error comes out of pickle as another one")


@check("predict")
def a_failure_leaves_the_model_usable(bench: Bench) -> None:
    """After a failure the next call is answered as before."""
    _failing(bench)
    inputs = bench.question(22)
    before = bench.ask(inputs)
    _failure(bench)
    bench.same(bench.ask(inputs), before, "after a failure")


@check("predict")
def a_failure_is_the_same_awaited(bench: Bench) -> None:
    """Awaited, the failure is of the same class."""
    error, inputs = _failure(bench), _failing(bench)
    try:
        bench.wait(bench.awaited.predict(inputs))
    except Exception as other:
        agree(type(other) is type(error), f"it is {type(error).__name__}, and awaited {type(other).__name__}")
    else:
        agree(False, "awaited, the model answered inputs at which it fails")


@check()
def a_model_that_is_absent_is_told(bench: Bench) -> None:
    """Where there is no model, loading, opening or at the latest the first call raises ModelNotFoundError."""
    lacks(bench.subject.absent is None, "the subject gives no address without a model")
    try:
        _use(bench, bench.fresh(bench.subject.absent))
    except ModelNotFoundError:
        return
    except Exception as error:
        agree(False, f"it is told as {shown(error)}")
    agree(False, "it opens, and answers")


def _use(bench: Bench, model: Model[Any, Any]) -> None:
    """Open a model, and ask it what the one under test can be asked."""
    model.info()
    if "predict" in bench.info.verbs:
        model.predict(bench.question())
    elif "generate" in bench.info.verbs:
        model.generate(bench.subject.prompt)
    elif "stream" in bench.info.verbs:
        model.stream(bench.subject.prompt).result()
    else:
        model.embed(list(bench.subject.texts))


@check()
def a_peer_that_is_absent_is_told(bench: Bench) -> None:
    """Where nobody listens, opening raises ConnectError within its time."""
    lacks(bench.subject.unreachable is None, "the subject gives no address without a peer")
    begun = time.monotonic()
    try:
        bench.fresh(bench.subject.unreachable, timeout=PATIENCE, retry=None).info()
    except ConnectError:
        seconds = time.monotonic() - begun
        agree(seconds < PATIENCE + 1, f"it took {seconds:.1f} s of {PATIENCE:.0f} s")
        return
    except DeadlineExceededError:
        agree(False, f"it wasn't found out in {PATIENCE:.0f} s")
    except Exception as error:
        agree(False, f"it is told as {shown(error)}")
    agree(False, "it opens")


@check()
def a_device_that_is_absent_is_told(bench: Bench) -> None:
    """`device="nowhere"` is refused, whether the backend takes that option or not."""
    bench.model.info()
    try:
        bench.fresh(device="nowhere").info()
    except AiaasError:
        return
    except Exception as error:
        agree(False, f"it is told as {shown(error)}")
    agree(isinstance(bench.subject.address, list | tuple), 'a model was opened on the device "nowhere"')
