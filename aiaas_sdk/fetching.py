"""`fetch`: what a URL in a message points to, as an attachment with its bytes. Nothing else fetches one.

Peers that take no URL, and models on this machine, need the bytes themselves. A URL that somebody else wrote is a way
to make this machine ask its neighbours (CWE-918), so the rules bound whom it may lead to, for how long and how far.
"""

from __future__ import annotations

import time
from urllib.parse import unquote, urljoin, urlsplit

from aiaas_sdk.errors import InputError, ProtocolError, StatusError
from aiaas_sdk.flow import Flow, Reply, Request, adrive, drive, open_reply, read
from aiaas_sdk.records.fetching import Fetching, Guarded
from aiaas_sdk.records.language import Attachment

__all__ = ["fetch", "fetch_async"]

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_USUAL = Fetching()


def fetch(url: str, rules: Fetching = _USUAL) -> Attachment:
    """What is at a URL, as an attachment.

    Args:
        url: where; no credential goes there.
        rules: what may be asked and what may come: https from public hosts, 20 MiB, images, sounds and PDFs, unless
            they say otherwise.

    Raises:
        InputError: the rules forbid it: the URL, what it redirects to, or what comes.
        ConnectError: nobody answers, or the host is at no address that may be asked.
        DeadlineExceededError: it took longer than `rules.timeout`.
        StatusError: the host refuses.
    """
    from aiaas_sdk.transport import HttpSender

    sender = HttpSender()
    try:
        return drive(_fetched(url, rules), sender, time.monotonic() + rules.timeout)
    finally:
        sender.close()


async def fetch_async(url: str, rules: Fetching = _USUAL) -> Attachment:
    """As `fetch`, for event loops."""
    from aiaas_sdk.transport import AsyncHttpSender

    sender = AsyncHttpSender()
    try:
        return await adrive(_fetched(url, rules), sender, time.monotonic() + rules.timeout)
    finally:
        sender.close()


def _fetched(url: str, rules: Fetching) -> Flow[Attachment]:
    headers = {"accept": ", ".join(rules.media_types)}
    network = Guarded(networks=rules.networks)
    for _ in range(rules.redirects + 1):
        rules.check(url)
        reply = yield from open_reply(Request("GET", url, headers, network=network))
        if reply.status not in _REDIRECTS:
            return (yield from _taken(url, reply, rules))
        url = urljoin(url, reply.headers.get("location", ""))
    raise InputError(f"{_host(url)} was reached by more than {rules.redirects} redirects, and isn't followed further")


def _taken(url: str, reply: Reply, rules: Fetching) -> Flow[Attachment]:
    """The reply as an attachment, if it may be one; its size is counted as it comes, whatever it says of itself."""
    host = _host(url)
    if reply.status != 200:
        raise StatusError(f"{host} answered {reply.status}", status=reply.status)
    media_type = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not rules.takes(media_type):
        raise InputError(
            f"{host} gave {media_type[:60]!r}, which isn't taken", hint=f"Taken is {', '.join(rules.media_types)}"
        )
    too_large = InputError(f"{host} gives more than {rules.size} bytes", hint="Fetching(size=...) sets the bound")
    if int(_digits(reply.headers.get("content-length", ""))) > rules.size:
        raise too_large
    pieces, size = [], 0
    while piece := (yield from read(reply)):
        pieces.append(bytes(piece))
        size += len(piece)
        if size > rules.size:
            raise too_large
    if not size:
        raise ProtocolError(f"{host} gave nothing")
    name = unquote(urlsplit(url).path.rpartition("/")[2]) or None
    return Attachment(b"".join(pieces), media_type, name)


def _digits(text: str) -> str:
    return text if text.isascii() and text.isdigit() and len(text) < 19 else "0"


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "")[:100]
