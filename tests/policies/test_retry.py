"""The retry policy is a flow: fed by hand, no sockets and no waiting."""

from __future__ import annotations

from typing import Any

import pytest

from aiaas_sdk.errors import (
    AiaasError,
    ConnectError,
    ConnectionLostError,
    ModelError,
    ModelNotFoundError,
    RateLimitedError,
    UnavailableError,
)
from aiaas_sdk.flow import Flow, Reply, Request, Send, Sleep, send
from aiaas_sdk.policies.retry import RetryPolicy
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.policies import Retry


def attempt(call: Call, request: Request) -> Flow[Reply]:
    return (yield from send(request))


def counting(call: Call, request: Request) -> Flow[Reply]:
    call.attempts += 1
    return (yield from send(request))


def play(failures: list[AiaasError], *, idempotent: bool = True, **settings: Any) -> tuple[int, list[float]]:
    """Feed the failures, then a success: how many sends there were, and the pauses."""
    request = Request("POST", "http://127.0.0.1/", idempotent=idempotent)
    flow = RetryPolicy(Retry(**settings))(Call("predict"), request, attempt)
    sends, pauses, left = 0, list[float](), list(failures)
    effect = next(flow)
    while True:
        try:
            if isinstance(effect, Sleep):
                pauses.append(effect.seconds)
                effect = flow.send(None)
                continue
            assert isinstance(effect, Send)
            sends += 1
            effect = flow.throw(left.pop(0)) if left else flow.send(Reply(200, {}))
        except StopIteration:
            return sends, pauses


def test_an_error_counts_the_attempts_of_its_own_request() -> None:
    """Opening a model asks the server, then for the model: a 404 of the second isn't attempt 2 of 3."""
    call = Call("open", attempts=1)
    flow = RetryPolicy(Retry(wait=0))(call, Request("GET", "http://127.0.0.1/"), counting)
    assert isinstance(next(flow), Send)
    assert isinstance(flow.throw(UnavailableError("busy", status=503)), Sleep)
    assert isinstance(flow.send(None), Send)
    with pytest.raises(ModelNotFoundError) as caught:
        flow.throw(ModelNotFoundError("no such model", status=404))
    assert (caught.value.attempts, call.attempts) == (2, 3)


def test_what_may_pass_is_tried_again_with_growing_pauses() -> None:
    sends, pauses = play([ConnectError("no"), UnavailableError("busy", status=503)])
    assert sends == 3
    assert 0 <= pauses[0] <= 0.1
    assert 0 <= pauses[1] <= 0.2


@pytest.mark.parametrize(
    ("error", "idempotent", "again"),
    [
        (ConnectError("no"), False, True),
        (ConnectionLostError("cut"), True, True),
        (ConnectionLostError("cut"), False, False),
        (UnavailableError("busy", status=503), False, True),
        (UnavailableError("gateway", status=502), False, False),
        (UnavailableError("gateway", status=502), True, True),
        (RateLimitedError("slow down", status=429), False, True),
        (ModelError("raised", status=500), True, False),
    ],
)
def test_what_is_tried_again(error: AiaasError, idempotent: bool, again: bool) -> None:
    if again:
        assert play([error], idempotent=idempotent)[0] == 2
    else:
        with pytest.raises(type(error)):
            play([error], idempotent=idempotent)


def test_the_last_failure_goes_up_when_the_attempts_are_used_up() -> None:
    with pytest.raises(ConnectError, match="second"):
        play([ConnectError("first"), ConnectError("second")], attempts=2)


def test_retry_after_is_waited_for() -> None:
    _, [pause] = play([RateLimitedError("slow down", status=429, retry_after=3.0)])
    assert 3.0 <= pause <= 3.3
