"""Asking again: one request, tried until it passes, may not be repeated, or the attempts are used up."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

import tenacity

from aiaas_sdk.errors import (
    AiaasError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    RateLimitedError,
    UnavailableError,
)
from aiaas_sdk.flow import Flow, Reply, Request, sleep
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.policies import Retry

__all__ = ["RetryPolicy"]

ANY_VERB = (429, 503)
"""The peer says with these that it did nothing, so every verb may be sent again."""
THROTTLED_FACTOR = 10
"""A throttling peer gets ten times the pause, as the AWS SDKs' standard mode does (1 s against 0.1 s)."""


class RetryPolicy:
    """`Retry` at work: tenacity decides, the driver sleeps."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry

    def __call__(self, call: Call, request: Request, proceed: Callable[[Request], Flow[Reply]]) -> Flow[Reply]:
        call.allowed = self._retry.attempts
        try:  # most requests pass, and tenacity's machinery costs as much as sending one
            return (yield from proceed(request))
        except Exception as error:
            if self._retry.attempts == 1 or not self._worth_it(error, request):
                raise
            failure = sys.exc_info()
        return (yield from self._again(request, proceed, failure))

    def _again(self, request: Request, proceed: Callable[[Request], Flow[Reply]], failure: Any) -> Flow[Reply]:
        """The attempts after the first, which failed."""
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._retry.attempts),
            wait=self._pause,
            retry=tenacity.retry_if_exception(lambda error: self._worth_it(error, request)),
            reraise=True,
        )
        retrying.begin()
        state = tenacity.RetryCallState(retrying, fn=None, args=(), kwargs={})
        retrying.iter(retry_state=state)
        state.set_exception(failure)
        while True:
            action = retrying.iter(retry_state=state)
            if isinstance(action, tenacity.DoAttempt):
                try:
                    state.set_result((yield from proceed(request)))
                except Exception:
                    state.set_exception(sys.exc_info())  # type: ignore[arg-type]
            elif isinstance(action, tenacity.DoSleep):
                state.prepare_for_next_attempt()
                yield from self._sleep(float(action), state)
            else:
                return action  # type: ignore[no-any-return]

    def _sleep(self, seconds: float, state: tenacity.RetryCallState) -> Flow[None]:
        """A pause that would end past the deadline fails at once, with the failure that asked for it."""
        try:
            yield from sleep(seconds)
        except DeadlineExceededError:
            failure = state.outcome.exception() if state.outcome else None
            if isinstance(failure, RateLimitedError | UnavailableError) and failure.retry_after is not None:
                raise failure from None
            raise

    def _worth_it(self, error: BaseException, request: Request) -> bool:
        if not isinstance(error, AiaasError) or not error.retryable:
            return False
        if isinstance(error, ConnectError):
            return True
        if isinstance(error, ConnectionLostError | DeadlineExceededError):
            return request.idempotent
        if error.status not in self._retry.statuses:
            return False
        return request.idempotent or error.status in ANY_VERB

    def _pause(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, AiaasError) and error.retry_after is not None:
            return error.retry_after * (1 + 0.1 * random.random())
        first = self._retry.wait * (THROTTLED_FACTOR if isinstance(error, RateLimitedError) else 1)
        bound: float = min(self._retry.max_wait, first * 2 ** (state.attempt_number - 1))
        return random.random() * bound  # full jitter
