"""The page at `/`: its files, and what it shows of the models.

The files are plain HTML, CSS and JavaScript modules beside this one, and everything they need comes from this server.
The page may be opened by anybody whom the server lets in at all: it holds nothing. What it tells (`/overview`) and
what it calls are as guarded as any other call. All its addresses are relative, so it works below a proxy's prefix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiaas_sdk._version import __version__
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.server.hosting import Hosted, Hosting
from aiaas_sdk.server.probes import alive

__all__ = ["FILES", "OVERVIEW", "Page"]

FILES = "/page/"
"""Below this path are the page's files, which hold no secret; `/` is the page itself."""
OVERVIEW = "/overview"
"""What the page shows of the models: for those who may see these."""

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # no text becomes HTML, whoever wrote it
        "trusted-types 'none'",
    )
)
_GUARDED = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-cache",  # kept, and asked for again with its ETag: a new release shows at once
}
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_INDEX = "index.html"


class Page:
    """The page of a hosting.

    Args:
        hosting: the models that it shows.
        shown: whether there is one; without it, a browser is told that there is nothing.
    """

    def __init__(self, hosting: Hosting, *, shown: bool = True) -> None:
        self._hosting = hosting
        self._files = _read() if shown else {}

    def routes(self) -> list[Route]:
        routes = [Route("/", self.root)]
        if self._files:
            routes += [Route(f"{FILES}{{name}}", self.file), Route(OVERVIEW, self.overview)]
        return routes

    async def root(self, request: Request) -> Response:
        """The page for a browser; for a probe, that somebody is here."""
        if "text/html" not in request.headers.get("accept", ""):
            return alive()
        return self._given(_INDEX, request)

    async def file(self, request: Request) -> Response:
        return self._given(request.path_params["name"], request)

    def _given(self, name: str, request: Request) -> Response:
        found = self._files.get(name)
        if found is None:
            raise HTTPException(404)
        return found.answer(request.headers.get("if-none-match", ""))

    async def overview(self, request: Request) -> Response:
        """Everything about the models that the page shows, in one answer."""
        told = {"server": __version__, "models": [_told(one) for one in self._hosting.allowed.values()]}
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        return Response(to_json(told, inf_nan_mode="null"), media_type="application/json", headers=headers)


# ---------------------------------------------------------------- files
class _File:
    """A file of the page, read once."""

    def __init__(self, name: str, content: bytes) -> None:
        self._content = content
        self._tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
        self._headers = {**_GUARDED, "etag": self._tag, "content-type": _TYPES[name.rpartition(".")[2]]}
        if name == _INDEX:
            self._headers["vary"] = "accept"

    def answer(self, known: str) -> Response:
        """The file, or 304 for who has it already (RFC 9110 13.1.2)."""
        tags = {tag.strip().removeprefix("W/") for tag in known.split(",")}
        if self._tag in tags or "*" in tags:
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, headers=self._headers)


def _read() -> Mapping[str, _File]:
    folder = files("aiaas_sdk.server").joinpath("static")
    return {entry.name: _File(entry.name, entry.read_bytes()) for entry in folder.iterdir() if entry.is_file()}


# ---------------------------------------------------------------- what is told of a model
def _told(hosted: Hosted) -> dict[str, Any]:
    """A model as the page shows it: whether it can be asked, else why not; and its versions that aren't well."""
    states = list(hosted.states())
    told: dict[str, Any] = {
        "name": hosted.name,
        "state": states[0].state,
        "reason": states[0].reason,
        "failures": {version: hosted.told(error).message for version, error in hosted.failures.items()},
        "notes": {one.version or "": one.reason for one in states if one.state == "READY" and one.reason},
    }
    if hosted.failure is not None:
        return told | {"state": "UNAVAILABLE", "reason": hosted.told(hosted.failure).message}
    if hosted.info is not None:
        return told | _known(hosted, hosted.info) | {"state": "READY", "reason": None}
    return told


def _known(hosted: Hosted, info: ModelInfo) -> dict[str, Any]:
    return {
        "version": info.version,
        "versions": list(hosted.versions),
        "verbs": sorted(info.verbs),
        "inputs": [_spec(spec) for spec in info.inputs],
        "outputs": [_spec(spec) for spec in info.outputs],
        "labels": None if info.labels is None else list(info.labels),
        "platform": info.platform,
        "device": info.device,
        "metadata": dict(info.metadata),
    }


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
