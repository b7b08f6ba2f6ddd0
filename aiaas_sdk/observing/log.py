"""Our own observer: lines in the log."""

from __future__ import annotations

import logging

from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.records.events import AttemptEvent, CallEvent

__all__ = ["CallLog"]

logger = logging.getLogger("aiaas_sdk.calls")


class CallLog:
    """A line for each call and each of its requests, for whoever sets `aiaas_sdk.calls` to DEBUG."""

    @hookimpl
    def aiaas_observes(self) -> bool:
        return logger.isEnabledFor(logging.DEBUG)

    @hookimpl
    def aiaas_attempt_finished(self, call: CallEvent, attempt: AttemptEvent) -> None:
        outcome, ms = _outcome(attempt.error, attempt.status), 1000 * attempt.seconds
        logger.debug("%s %s: attempt %d, %s, %.1f ms", call.verb, call.address, attempt.number, outcome, ms)

    @hookimpl
    def aiaas_call_finished(self, call: CallEvent, error: str | None) -> None:
        outcome, ms = _outcome(error, call.status), 1000 * call.timing.total
        logger.debug("%s %s: %s, %.1f ms, attempts %d", call.verb, call.address, outcome, ms, call.attempts)


def _outcome(error: str | None, status: int | None) -> str:
    return " ".join(str(word) for word in (error or "ok", status) if word is not None)
