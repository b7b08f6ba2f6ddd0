"""Waiting for a model that still loads, or whose server is still to come."""

from __future__ import annotations

import logging
import random
import time
from typing import Any

from aiaas_sdk.errors import (
    AiaasError,
    CircuitOpenError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    ModelNotReadyError,
    UnavailableError,
)
from aiaas_sdk.records.call import Deadline

__all__ = ["NOT_YET", "Patience"]

logger = logging.getLogger("aiaas_sdk.model")

NOT_YET = (
    CircuitOpenError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    ModelNotReadyError,
    UnavailableError,
)
"""Failures of a server that is starting."""
FIRST, LONGEST = 0.1, 2.0
"""Seconds of the first pause and of the longest; each is up to twice as long as the one before."""
LAST = 0.02
"""Seconds that a last look needs."""


class Patience:
    """Pauses that grow, until an end. Says once, at INFO, that something is waited for."""

    def __init__(self, address: Any, timeout: float | None) -> None:
        self._address, self._end = address, None if timeout is None else Deadline.after(timeout)
        self._pause, self._told = FIRST, False

    def nearer(self, deadline: Deadline | None) -> Deadline | None:
        """The nearer of a deadline and the end."""
        if self._end is None or deadline is None:
            return self._end if deadline is None else deadline
        return min(self._end, deadline)

    def pause(self, failure: AiaasError | None) -> float:
        """Seconds until the next look.

        Raises:
            ModelNotReadyError: it would be too late. The failure itself, where no waiting mends it.
        """
        if failure is not None and not failure.retryable and not isinstance(failure, DeadlineExceededError):
            raise failure
        seconds = max(self._pause * random.uniform(0.8, 1.0), (failure and failure.retry_after) or 0.0)
        self._pause = min(2 * self._pause, LONGEST)
        if self._end is None:
            self._tell()
            return seconds
        left = self._end - time.monotonic()
        if left < LAST:
            raise ModelNotReadyError(
                f"{self._address} wasn't ready after {self._end.timeout:g} s",
                hint="Wait longer, or look at its server's log",
            ) from failure
        self._tell()
        return min(seconds, left - LAST / 2)

    def _tell(self) -> None:
        if not self._told:
            logger.info("%s isn't ready yet; waiting for it", self._address)
            self._told = True
