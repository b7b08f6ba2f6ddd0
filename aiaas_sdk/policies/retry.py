"""Asking again: one request, tried until it passes, may not be repeated, or the attempts are used up."""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import tenacity

from aiaas_sdk.errors import (
    AiaasError,
    CircuitOpenError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    RateLimitedError,
    StreamInterruptedError,
)
from aiaas_sdk.flow import Flow, Reply, Request, sleep
from aiaas_sdk.policies.tokens import Tokens, tokens_of
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.policies import Retry
from aiaas_sdk.transport.origin import origin_of

__all__ = ["RetryPolicy"]

Proceed = Callable[[Call, Request], Flow[Reply]]
logger = logging.getLogger("aiaas_sdk.policies")

ANY_VERB = (429, 503)
"""The peer says with these that it did nothing, so every verb may be sent again."""
THROTTLED_FACTOR = 10
"""A throttling peer gets ten times the pause, as the AWS SDKs' standard mode does (1 s against 0.1 s)."""


LONGEST = 120.0
"""Seconds; a peer that asks for a longer pause has said no, as openai-python has it."""
THROTTLED_COST = 5 / 14
"""What a retry after 429 or 503 costs of another's price: the peer did nothing for it."""


class RetryPolicy:
    """`Retry` at work: tenacity decides, the budget allows, the driver sleeps."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._price = 0.0 if retry.budget is None else 1 / retry.budget

    def __call__(self, call: Call, request: Request, proceed: Proceed) -> Flow[Reply]:
        call.allowed, before = self._retry.attempts, call.attempts
        tokens = tokens_of(origin_of(request.url))
        try:
            try:  # most requests pass, and tenacity's machinery costs as much as sending one
                reply = yield from proceed(call, request)
            except Exception as error:
                if self._retry.attempts == 1 or not self._worth_it(error, request) or _in_vain(call, error):
                    raise
                failure = sys.exc_info()
            else:
                tokens.give(1)
                return reply
            return (yield from self._again(call, request, proceed, failure, tokens))
        except AiaasError as error:
            error.locate(attempts=call.attempts - before)  # of this request: a call may make several
            raise

    def _again(self, call: Call, request: Request, proceed: Proceed, failure: Any, tokens: Tokens) -> Flow[Reply]:
        """The attempts after the first, which failed."""
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._retry.attempts),
            wait=self._pause,
            retry=tenacity.retry_if_exception(
                lambda error: self._worth_it(error, request) and not _in_vain(call, error)  # type: ignore[arg-type]
            ),
            reraise=True,
        )
        retrying.begin()
        state = tenacity.RetryCallState(retrying, fn=None, args=(), kwargs={})
        retrying.iter(retry_state=state)
        state.set_exception(failure)
        paid, reason = 0.0, _failure(state)
        while True:
            action = retrying.iter(retry_state=state)
            if isinstance(action, tenacity.DoAttempt):
                try:
                    state.set_result((yield from proceed(call, request)))
                except CircuitOpenError:  # these attempts opened it: what they failed with says more
                    raise reason from None
                except Exception:
                    state.set_exception(sys.exc_info())  # type: ignore[arg-type]
            elif isinstance(action, tenacity.DoSleep):
                reason = _failure(state)
                paid += self._pay(tokens, reason)
                state.prepare_for_next_attempt()
                yield from self._sleep(float(action), reason)
            else:
                tokens.give(1 + paid)
                return action  # type: ignore[no-any-return]

    def _pay(self, tokens: Tokens, failure: AiaasError) -> float:
        """The price of a retry, paid. Who can't pay fails with what asked for the retry."""
        price = self._price * (THROTTLED_COST if failure.status in ANY_VERB else 1)
        if tokens.take(price):
            return price
        failure.hint = "Not tried again: too many calls to this origin have failed lately (its retry budget is empty)"
        raise failure

    def _sleep(self, seconds: float, failure: AiaasError) -> Flow[None]:
        """A pause that is too long, or would end past the deadline, fails at once, with what asked for it."""
        if seconds > LONGEST and failure.retry_after is not None:
            raise failure
        try:
            yield from sleep(seconds)
        except DeadlineExceededError:
            raise failure from None

    def _worth_it(self, error: BaseException, request: Request) -> bool:
        if not isinstance(error, AiaasError) or vars(error).get("retryable") is False:  # the peer's own word
            return False
        if isinstance(error, StreamInterruptedError):  # its text would be given twice
            return False
        if isinstance(error, ConnectError):
            return error.retryable
        if isinstance(error, ConnectionLostError | DeadlineExceededError):
            return error.retryable and request.idempotent
        return error.status in self._retry.statuses and (request.idempotent or error.status in ANY_VERB)

    def _pause(self, state: tenacity.RetryCallState) -> float:
        error = _failure(state)
        if error.retry_after is not None:
            return error.retry_after * (1 + 0.1 * random.random())
        first = self._retry.wait * (THROTTLED_FACTOR if isinstance(error, RateLimitedError) else 1)
        bound: float = min(self._retry.max_wait, first * 2 ** (state.attempt_number - 1))
        return random.random() * bound  # full jitter


def _in_vain(call: Call, error: Exception) -> bool:
    """Whether no time is left, or somebody else waits: who opens a model with a deadline does, while it loads."""
    if call.deadline is None:
        return False
    loading = call.verb == "open" and isinstance(error, AiaasError) and error.status == 503
    return loading or time.monotonic() >= call.deadline


def _failure(state: tenacity.RetryCallState) -> AiaasError:
    """What the last attempt ended with; only these are tried again."""
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, AiaasError)
    return error
