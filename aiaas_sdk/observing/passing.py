"""The trace context that a server hands on, from the request that it answers to the calls that it makes for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar

__all__ = ["pass_on", "passed_on"]

_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{1,200})?")
_STATE = re.compile(r"[!-~](?:[ -~]{0,510}[!-~])?")
_passed: ContextVar[Mapping[str, str] | None] = ContextVar("aiaas_trace", default=None)


def pass_on(headers: Mapping[str, str]) -> None:
    """Let the calls of this task belong to the trace of the request that it answers.

    Args:
        headers: the request's, names in lower case. `traceparent` and `tracestate` (W3C Trace Context) go on where
            they are well-formed, and no other.
    """
    parent, state = headers.get("traceparent"), headers.get("tracestate")
    if parent is None or not _PARENT.fullmatch(parent):
        return
    passed = {"traceparent": parent}
    if state is not None and _STATE.fullmatch(state):
        passed["tracestate"] = state
    _passed.set(passed)


def passed_on() -> Mapping[str, str]:
    """The trace context of the request that is being answered; empty where there is none."""
    return _passed.get() or {}
