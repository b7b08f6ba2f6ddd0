"""Triton's model repository extension: what there is and in which state; loading and unloading where that is allowed.

Source: `docs/protocol/extension_model_repository.md`. No request names a file or changes a model: `config` and `file:`
parameters are refused. Without `Serving.management` only the index is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiaas_sdk.errors import AiaasError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.server.bodies import read_body
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.heads import head_in
from aiaas_sdk.server.hosting import Hosted, Hosting
from aiaas_sdk.server.paths import MANAGED
from aiaas_sdk.server.permissions import caller

__all__ = ["Repository"]

_SMALL = 64 * 1024  # bytes of a body


class Repository:
    """The extension for a hosting.

    Args:
        hosting: the models.
        management: whether clients may load and unload them.
    """

    def __init__(self, hosting: Hosting, *, management: bool = False) -> None:
        self._hosting, self._management = hosting, management

    def routes(self) -> list[Route]:
        return [
            Route("/v2/repository/index", self.index, methods=["POST"]),
            Route(f"{MANAGED}/load", self.load, methods=["POST"]),
            Route(f"{MANAGED}/unload", self.unload, methods=["POST"]),
        ]

    async def index(self, request: Request) -> Response:
        """A row for each version, with its state."""
        only_ready = _only_ready(await _body(request))
        rows = [row for hosted in self._hosting.allowed.values() for row in _rows(hosted)]
        return _json(to_json([row for row in rows if row["state"] == "READY" or not only_ready]))

    async def load(self, request: Request) -> Response:
        """Take up what is there now; answers when it is ready."""
        hosted = await self._managed(request)
        try:
            await hosted.load()
        except AiaasError as error:
            raise hosted.told(error) from error
        return _json(to_json({"name": hosted.name, "load": True}))

    async def unload(self, request: Request) -> Response:
        """Serve it no more, until it is loaded again; running requests are finished."""
        hosted = await self._managed(request)
        await hosted.unload()
        return _json(to_json({"name": hosted.name, "unload": True}))

    async def _managed(self, request: Request) -> Hosted:
        if not self._management:
            raise RefusedError(403, "clients can't load or unload models at this server: its management is off")
        if not caller().management:
            raise RefusedError(403, "this key isn't for loading and unloading models")
        hosted = await self._hosting.found(request.path_params["model"])
        _check_parameters(await _body(request))
        return hosted


async def _body(request: Request) -> Buffer:
    return await read_body(head_in(request.scope), request.receive, limit=_SMALL, inflated=_SMALL)


def _check_parameters(body: Buffer) -> None:
    """Only `unload_dependents`, which means nothing here: no model depends on another."""
    wish = _object(body)
    parameters = wish.get("parameters") or {}
    if not isinstance(parameters, dict) or parameters.keys() - {"unload_dependents"}:
        raise RefusedError(400, "a request can't bring a model's configuration or files; they are the operator's")


def _only_ready(body: Buffer) -> bool:
    ready = _object(body).get("ready")
    if not isinstance(ready, bool | None):
        raise RefusedError(400, 'the body is neither empty nor {"ready": true} or {"ready": false}')
    return bool(ready)


def _object(body: Buffer) -> dict[str, Any]:
    if not body:
        return {}
    try:
        wish = from_json(bytes(body))
    except ValueError:
        raise RefusedError(400, "the body isn't JSON") from None
    if not isinstance(wish, dict):
        raise RefusedError(400, "the body is neither empty nor a JSON object")
    return wish


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def _rows(hosted: Hosted) -> Iterator[dict[str, Any]]:
    for version, state, reason in hosted.states():
        row = {"name": hosted.name, "version": version, "state": state, "reason": reason}
        yield {key: value for key, value in row.items() if value is not None}
