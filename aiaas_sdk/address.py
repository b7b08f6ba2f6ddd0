"""Where a model is: `scheme:target[@version]`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from os import PathLike
from urllib.parse import unquote, urlsplit

from aiaas_sdk.errors import AddressError

__all__ = ["Address", "parse", "strays"]

_VERSION = re.compile(r"(.+)@(\d{1,18}|[A-Za-z][A-Za-z0-9_-]{0,63})")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_MODEL_PATH = re.compile(r"(.*/v2/models/[^/]+)(?:/versions/([^/]+))?/?")
_GRPC_PATH = re.compile(r"(/models/[^/]+)(?:/versions/([^/]+))?/?")
_SHORT = {"grpc": "grpc+http", "grpcs": "grpc+https"}
"""Schemes that name an endpoint without saying HTTP: gRPC is its POST, with TLS or without."""
_AZURE = re.compile(r"api-version=[A-Za-z0-9.-]{1,40}")
"""The only query that an address may have: Azure's, in an openai address."""
_HIDDEN = re.compile(r"[\x00-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


LONGEST = 4096
"""Characters of a URL's path; servers take 8 KiB of a request line."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address. `text` is safe to show: an address never holds a credential.

    Attributes:
        scheme: the backend's name; "name" for a bare name that the settings decide.
        target: a path, a URL without version, or whatever the backend reads.
        version: digits or an alias, where one is pinned.
        model: what stands behind `#` in an openai address.
    """

    scheme: str
    target: str
    version: str | None
    text: str
    model: str | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def origin(self) -> str | None:
        """Scheme, host and port of a URL; None for other targets."""
        parts = urlsplit(self.target)
        return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else None


def parse(address: str | PathLike[str]) -> Address:
    """Read an address. AddressError says what is wrong and never repeats a credential."""
    text = os.fspath(address)
    if not text.strip() or _HIDDEN.search(text):
        raise AddressError("the address is empty or holds control characters", hint="See the table of addresses")
    match = _SCHEME.fullmatch(text)
    if match is None:
        return _path(text) if not _NAME.fullmatch(text) else Address("name", text, None, text)
    scheme, rest = match[1].lower(), match[2]
    scheme = _SHORT.get(scheme, scheme)
    kind, _, inner = scheme.rpartition("+")
    if inner in ("http", "https"):
        return _url(kind or "oip", f"{inner}:{rest}", text)
    target, version = _pinned(rest)
    return Address(scheme, target, version, text)


def _path(text: str) -> Address:
    target, version = _pinned(text)
    return Address("torch", target, version, f"torch:{text}")


def _pinned(text: str) -> tuple[str, str | None]:
    match = _VERSION.fullmatch(text)
    if match is None:
        return text, None
    return match[1], match[2]


def strays(path: str) -> bool:
    """Whether a path, decoded once as servers do, could lead elsewhere (RFC 3986 5.2.4; CVE-2023-2780), or is none."""
    parts = re.split(r"[/\\]", path)
    return "." in parts or ".." in parts or len(path) > LONGEST or _HIDDEN.search(path) is not None


def _url(scheme: str, url: str, text: str) -> Address:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise AddressError("the host or port of the address can't be read") from None
    speaks = scheme == "openai"
    if (
        "@" in parts.netloc
        or (parts.query and not (speaks and _AZURE.fullmatch(parts.query)))
        or (parts.fragment and not speaks)
    ):
        raise AddressError(
            f"the address of host {host} holds a user, a query or a fragment",
            hint="Credentials don't belong into an address: give api_key= or headers=",
        )
    if not host:
        raise AddressError(f"the address {text!r} names no host")
    path, version = _pinned(parts.path)
    if strays(unquote(path)):
        raise AddressError("the path of the address holds '.', '..' or control characters, or is too long")
    if found := (_GRPC_PATH if scheme == "grpc" else _MODEL_PATH).fullmatch(path):
        path, version = found[1], found[2] or version
    query = f"?{parts.query}" if parts.query else ""
    return Address(scheme, f"{parts.scheme}://{parts.netloc}{path}{query}", version, text, parts.fragment or None)
