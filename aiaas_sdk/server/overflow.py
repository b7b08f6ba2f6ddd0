"""Requests that a full queue refuses, known by their heads.

Who is refused asks again, and so do others, with the same head each time: under overload there are several such
requests for each that is answered, and whatever they cost the model doesn't get. So a head whose request was refused is
remembered for a second. As long as the queue stays full, a request that begins with the same bytes is given the same
answer, before anything is made of it. Whether the queue is full is asked anew for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from starlette.types import Scope

from aiaas_sdk.server.errors import RefusedError, error_body, in_openai_form
from aiaas_sdk.server.heads import Head, head_in
from aiaas_sdk.server.requestlog import Requests
from aiaas_sdk.server.visits import Visit

__all__ = ["RAW", "Overflow", "Refused"]

RAW = "aiaas.raw"
"""The bytes of a request's head, in its scope."""
_SPAN = 1.0
"""Seconds for which a head is remembered."""
_MOST = 256
"""Heads."""
_LONGEST = 4096
"""Bytes of a head that is remembered."""
_END = b"\r\n\r\n"
Lines = Sequence[tuple[bytes, bytes]]


class Refused(NamedTuple):
    """A head whose request was refused.

    Attributes:
        length: bytes of the body.
        full: whether the queue still is.
        answer: its own lines and its body, below those lines that every answer has.
        size: bytes of the answer's body.
        scope, model, verb: what it is counted as.
    """

    length: int
    full: Callable[[], bool]
    answer: bytes
    size: int
    scope: Scope
    model: str
    verb: str


class Overflow:
    """The heads that were refused lately, in one event loop.

    Args:
        requests: where each is counted.
        open: whether requests are taken from anybody: a credential may end at any time, and has limits of its own.
        draining: whether the server ends: its answers then say so.

    Attributes:
        watched: whether there are any, so that it is worth looking at each head.
    """

    def __init__(self, requests: Requests, *, open: bool, draining: Callable[[], bool]) -> None:
        self._requests, self._open, self._draining = requests, open, draining
        self._known: dict[bytes, Refused] = {}
        self.watched = False

    def head_of(self, data: memoryview) -> bytes:
        """The head at the beginning of what has come; b"" where it isn't whole, or long."""
        found = bytes(data[:_LONGEST])
        end = found.find(_END)
        return found[: end + len(_END)] if end >= 0 else b""

    def find(self, head: bytes) -> Refused | None:
        """The refusal that a request with this head is to be given now."""
        known = self._known.get(head)
        return known if known is not None and known.full() and not self._draining() else None

    def count(self, refused: Refused) -> None:
        """It was given to one more."""
        self._requests.refused(refused.scope, refused.model, refused.verb, refused.size)

    def learn(self, refused: RefusedError, scope: Scope, lines: Lines, visit: Visit) -> None:
        """A request was refused; if for a full queue, those with the same head may be."""
        if refused.full is None or not self._open or self._draining():
            return
        if not self.watched:
            self.watched = True
            asyncio.get_running_loop().call_later(_SPAN, self._forget)
        head, raw = head_in(scope), scope.get(RAW)
        if raw is None or len(self._known) >= _MOST or not _comes_again(scope, head):
            return
        told = b"".join(b"%b: %b\r\n" % (name.lower(), value) for name, value in lines)
        body = error_body(refused, scope["path"])
        answer = told + b"\r\n" + body
        self._known[raw] = Refused(head.length or 0, refused.full, answer, len(body), scope, visit.model, visit.verb)

    def _forget(self) -> None:
        self._known.clear()
        self.watched = False


def _comes_again(scope: Scope, head: Head) -> bool:
    """Whether such a request, and its answer, are like any other one: where they end, and what becomes of the
    connection."""
    if not head.plain or head.costly or head.lengths != 1 or scope["http_version"] != "1.1":
        return False
    if "upgrade" in head.headers:
        return False
    if any(name == b"connection" and value.lower() != b"keep-alive" for name, value in scope["headers"]):
        return False
    return not in_openai_form(scope["path"])  # there each answer has an id
