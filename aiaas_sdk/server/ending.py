"""What a client is told whose request runs longer than the server does."""

from __future__ import annotations

from aiaas_sdk.server.errors import PAUSE, RefusedError, error_body

__all__ = ["last_event", "shutting_down"]


def shutting_down() -> RefusedError:
    """The answer where none has begun."""
    return RefusedError(503, "the server is shutting down", retry_after=PAUSE)


def last_event(path: str) -> bytes:
    """The event that ends a stream: an error, so that nobody takes what came for the whole."""
    return b"data: " + error_body(shutting_down(), path) + b"\n\n"
