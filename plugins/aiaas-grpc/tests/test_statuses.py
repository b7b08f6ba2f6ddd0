"""Every status of gRPC's is an error of ours, by both faces; and what only its words tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aiaas_grpc.forking import grpc
from aiaas_grpc.statuses import code_of, status_of

import aiaas_sdk as aiaas

X = np.ones((1, 3), np.float32)
CLASSES = {
    "CANCELLED": (aiaas.StatusError, 499),
    "UNKNOWN": (aiaas.ModelError, 500),
    "INVALID_ARGUMENT": (aiaas.InvalidRequestError, 400),
    "DEADLINE_EXCEEDED": (aiaas.UnavailableError, 504),
    "NOT_FOUND": (aiaas.ModelNotFoundError, 404),
    "ALREADY_EXISTS": (aiaas.InvalidRequestError, 409),
    "PERMISSION_DENIED": (aiaas.PermissionDeniedError, 403),
    "UNAUTHENTICATED": (aiaas.AuthenticationError, 401),
    "RESOURCE_EXHAUSTED": (aiaas.RateLimitedError, 429),
    "FAILED_PRECONDITION": (aiaas.InvalidRequestError, 400),
    "ABORTED": (aiaas.InvalidRequestError, 409),
    "OUT_OF_RANGE": (aiaas.InvalidRequestError, 400),
    "UNIMPLEMENTED": (aiaas.UnsupportedOperationError, 501),
    "INTERNAL": (aiaas.ModelError, 500),
    "UNAVAILABLE": (aiaas.UnavailableError, 503),
    "DATA_LOSS": (aiaas.ModelError, 500),
}


def test_no_status_is_forgotten() -> None:
    assert {*CLASSES, "OK"} == {code.name for code in grpc.StatusCode}


@pytest.mark.parametrize("code", CLASSES)
def test_a_status_is_an_error(load: Any, scripted: Any, code: str) -> None:
    kind, status = CLASSES[code]
    with load(scripted.address, timeout=5, retry=None, breaker=None) as model:
        scripted.say(scripted.refusing(code, "so it is"))
        with pytest.raises(aiaas.AiaasError) as caught:
            model.predict(X)
    error = caught.value
    assert (type(error), error.status) == (kind, status)
    assert error.message == f"the server answered {code}: so it is"
    assert error.address == scripted.address
    assert error.attempts == 1
    assert error.args == (error.message,)


@pytest.mark.parametrize(
    ("code", "words", "status"),
    [
        ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (9 vs. 8)", 413),
        ("UNKNOWN", "Unexpected <class 'mlserver.errors.ModelNotFound'>", 404),
        ("UNKNOWN", "Model not found in my heart", 500),
    ],
)
def test_two_are_told_by_their_words(code: str, words: str, status: int) -> None:
    assert status_of(grpc.StatusCode[code], words) == status


@pytest.mark.parametrize("code", sorted(set(CLASSES) - {"CANCELLED", "ALREADY_EXISTS"}))
def test_an_answer_that_says_no_keeps_its_kind_on_the_way(code: str) -> None:
    status = status_of(grpc.StatusCode[code], "")
    assert status_of(code_of(status), "") == status


def test_words_of_a_peer_are_one_clean_line(load: Any, scripted: Any) -> None:
    with load(scripted.address, timeout=5) as model:
        scripted.say(scripted.refusing("INVALID_ARGUMENT", "first\n\x1b[31msecond\u202e" + "x" * 5000))
        with pytest.raises(aiaas.InvalidRequestError) as caught:
            model.predict(X)
    assert caught.value.message.startswith("the server answered INVALID_ARGUMENT: first ?[31msecond?xxx")
    assert len(caught.value.message) < 1100


def test_a_peer_without_the_protocol(load: Any, scripted: Any) -> None:
    with load(scripted.address, timeout=5) as model:
        scripted.service = lambda details: None
        with pytest.raises(aiaas.UnsupportedOperationError, match="UNIMPLEMENTED: Method not found"):
            model.predict(X)
