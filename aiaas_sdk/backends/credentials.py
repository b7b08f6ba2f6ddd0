"""What a remote backend sends to say who is calling: the option `headers`, and the key as one header more.

It is added to a request as late as can be, at the attempt, so that no policy and no other flow ever holds it.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from aiaas_sdk.flow import Flow, Reply, Request, wait
from aiaas_sdk.records.hidden import Hidden
from aiaas_sdk.records.secret import Secret

__all__ = ["Credentials"]

REFUSED = 401
SHORTEST = 6
"""Characters of a credential that is looked for in what a peer says; a shorter one would be found in any text."""

Proceed = Callable[[Request], Flow[Reply]]


class _Part(NamedTuple):
    """A header with a credential: what stands before it, and the secret."""

    before: str
    secret: Secret


class Credentials:
    """The headers of one backend.

    A secret that a peer refuses (401) is asked for another value, and where there is one the request goes out once
    more. That isn't a retry: it needs no policy, isn't counted, and comes once for a request.
    """

    def __init__(self, options: Mapping[str, Any], header: str = "authorization", scheme: str = "Bearer") -> None:
        """Takes the options `headers` and `api_key`; the key goes behind `scheme` and a blank into `header`."""
        given = {name.lower(): value for name, value in (options.get("headers") or {}).items()}
        self._parts = {name: _Part("", value) for name, value in given.items() if isinstance(value, Secret)}
        self._plain = {name: _hidden(value) for name, value in given.items() if not isinstance(value, Secret)}
        if options.get("api_key") is not None:
            self._plain.pop(header, None)
            self._parts[header] = _Part(f"{scheme} " if scheme else "", Secret.of(options["api_key"]))
        self._header = header

    def sending(self, request: Request, proceed: Proceed) -> Flow[Reply]:
        """`proceed` with the request and its credentials; again with others where these are refused and there are any.

        The reply, whatever its status, no longer repeats a credential.

        Raises:
            ConfigError: a credential is missing, or can't be sent. It names the source, never the value.
        """
        return self._renewing(request, proceed) if self._parts or self._plain else proceed(request)

    def _renewing(self, request: Request, proceed: Proceed) -> Flow[Reply]:
        sent = yield from self._values({})
        reply = yield from self._tried(request, sent, proceed)
        if reply.status == REFUSED and (fresh := (yield from self._values(sent))) != sent:
            reply = yield from self._tried(request, fresh, proceed)
        return reply

    def _tried(self, request: Request, values: Mapping[str, Hidden], proceed: Proceed) -> Flow[Reply]:
        added = {name: Hidden(self._parts[name].before + value.reveal()) for name, value in values.items()}
        reply = yield from proceed(replace(request, headers={**request.headers, **self._plain, **added}))
        if reply.status >= 300 or reply.headers.get("content-type", "").startswith("text/"):
            _strike(reply, (*self._plain.values(), *values.values()))
        return reply

    def _values(self, stale: Mapping[str, Hidden]) -> Flow[dict[str, Hidden]]:
        """The credentials as they are now, other than the stale ones where there are others."""
        found = {}
        for name, part in self._parts.items():
            found[name] = yield from _value(part.secret, stale.get(name))
        return found

    @property
    def hint(self) -> str:
        """What a 401 says: whether a credential was sent, and where it came from."""
        part = self._parts.get(self._header)
        if part is not None:
            return f"The key came from the {part.secret.source}"
        if self._header in self._plain:
            return f"The credential came from the option headers ({self._header})"
        others = ", ".join(sorted({*self._plain, *self._parts}))
        return "No credential was sent; give api_key=" + (f" (of headers= there went: {others})" if others else "")


def _value(secret: Secret, stale: Hidden | None) -> Flow[Hidden]:
    waiting = secret.asked(stale)
    if waiting is not None:
        try:
            problem = yield from wait(waiting, f"a credential of the {secret.source}")
        except BaseException:
            waiting.cancel()
            raise
        if problem is not None:
            raise secret.wrong(problem)
    return secret.current()


def _hidden(value: str | Hidden) -> Hidden:
    return value if isinstance(value, Hidden) else Hidden(value)


def _strike(reply: Reply, values: tuple[Hidden, ...]) -> None:
    """Take the credentials out of what isn't an answer: some peers repeat what they refuse, and errors quote them."""
    body = bytes(reply.body)
    headers = dict(reply.headers)
    for text in {text for value in values for text in _texts(value)}:
        body = body.replace(text.encode(), b"***")
        headers = {name: value.replace(text, "***") for name, value in headers.items()}
    reply.body, reply.headers = body, headers


def _texts(value: Hidden) -> list[str]:
    """The value, what stands behind a scheme in it (`Bearer ...`), and both as JSON and HTML may write them."""
    whole = value.reveal()
    plain = [text for text in (whole, whole.rpartition(" ")[2]) if len(text) >= SHORTEST]
    return [*plain, *(text.replace("/", "\\/") for text in plain), *map(html.escape, plain)]
