"""The door: who asks, whether he may, and how much. All of it is told from a request's head; no body is read before.

Without keys and tokens everybody may do everything that the server offers, and this module isn't asked.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping

from starlette.types import Receive, Scope, Send

from aiaas_sdk.server.allowances import UNLIMITED, Allowance, Allowances, counted
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.heads import head_in
from aiaas_sdk.server.keys import KeyFile
from aiaas_sdk.server.page import FILES
from aiaas_sdk.server.permissions import NOBODY, Caller, entering
from aiaas_sdk.server.probes import OPEN_PATHS
from aiaas_sdk.server.serving import Serving
from aiaas_sdk.server.tokens import Tokens

__all__ = ["Access", "access_to"]

Proceed = Callable[[Scope, Receive, Send], Awaitable[None]]

_SPEAKING = re.compile(r"/v1/(?:chat/completions|completions|embeddings)|.*/generate(?:_stream)?")
_LETTERS = 4
"""Bytes of a request that make a token, about: https://platform.openai.com/tokenizer."""
_CHALLENGE = ((b"www-authenticate", b'Bearer realm="aiaas"'),)
_SAFE = ("GET", "HEAD")
_CREDENTIALS = (b"authorization", b"x-api-key")
_READ = (*_CREDENTIALS, b"content-length", b"transfer-encoding", b"expect")


def access_to(serving: Serving) -> Access | None:
    """The door that a server's options ask for; None where it stands open.

    Raises:
        ConfigError: the keys or the tokens can't be checked as the options say.
    """
    if serving.api_keys is None and serving.jwt is None:
        return None
    keys = None if serving.api_keys is None else KeyFile(serving.api_keys)
    return Access(keys, None if serving.jwt is None else Tokens(serving.jwt))


class Access:
    """Whom the keys and the tokens of a server let in."""

    def __init__(self, keys: KeyFile | None, tokens: Tokens | None) -> None:
        self._keys, self._tokens = keys, tokens
        self._allowances = Allowances()

    async def perform(self, scope: Scope, receive: Receive, send: Send, proceed: Proceed) -> None:
        """Let a request in, and say to all that answer it whose it is: `scope["aiaas.caller"]`, and `caller()`.

        Raises:
            RefusedError: 401 without a good key, 429 where its limits are reached.
        """
        headers = _head(scope)
        path, safe, unread = scope["path"], scope["method"] in _SAFE, head_in(scope).costly
        caller = scope["aiaas.caller"] = await self.admitted(headers, open=safe and _is_open(path), unread=unread)
        if safe or caller.limits == UNLIMITED:
            await proceed(scope, receive, send)
            return
        allowance = scope["aiaas.allowance"] = self.allowance(caller)
        with counted(allowance, _estimate(headers) if _SPEAKING.fullmatch(path) else 0.0, unread=unread):
            await proceed(scope, receive, send)

    async def admitted(self, headers: Mapping[str, str], *, open: bool, unread: bool = False) -> Caller:
        """Who asks, which `caller()` tells from now on in this task.

        Args:
            headers: the request's, names in lower case; or gRPC's metadata.
            open: no key is needed for it.
            unread: its body is too large to be read for nothing.

        Raises:
            RefusedError: 401, in one and the same way whatever is wrong.
        """
        entering(NOBODY)
        found = await self._known(headers)
        if found is None and not open:
            message = "a valid API key is needed; send it as the header Authorization: Bearer KEY"
            raise RefusedError(401, message, headers=_CHALLENGE, unread=unread, code="invalid_api_key")
        entering(found or NOBODY)
        return found or NOBODY

    async def _known(self, headers: Mapping[str, str]) -> Caller | None:
        text = _credential(headers)
        if self._keys is not None and (found := self._keys.caller(text)) is not None:
            return found
        if self._tokens is not None and text.count(".") == 2:
            return await self._tokens.caller(text)
        return None

    def allowance(self, caller: Caller) -> Allowance:
        """What a caller has left of his limits."""
        return self._allowances.of(caller.name or "", caller.limits)


def _head(scope: Scope) -> dict[str, str]:
    """What is read of a request's head before it is let in.

    A credential that stands there twice is none: whoever looked at it before us may have looked at the other one.
    """
    given = [(name, value) for name, value in scope["headers"] if name in _READ]
    headers = {name.decode(): value.decode("latin-1") for name, value in given}
    if len(headers) < len(given):
        for name in _CREDENTIALS:
            if sum(name == other for other, _ in given) > 1:
                headers[name.decode()] = ""
    return headers


def _is_open(path: str) -> bool:
    """What needs no key: whether the server lives, and the page, which holds nothing until it has asked with one."""
    return path in OPEN_PATHS or path == "/" or path.startswith(FILES)


def _credential(headers: Mapping[str, str]) -> str:
    """The key or token of a request; nothing where it shows none, or one of another kind (Basic)."""
    told = headers.get("authorization")
    if told is None:
        return headers.get("x-api-key", "").strip()
    scheme, _, text = told.strip().partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


def _length(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _estimate(headers: Mapping[str, str]) -> float:
    return _length(headers) / _LETTERS
