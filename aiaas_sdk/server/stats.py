"""`GET /v2/models[/NAME[/versions/VERSION]]/stats`: Triton's statistics of models.

Source: Triton's `docs/protocol/extension_statistics.md`.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiaas_sdk.errors import ModelNotFoundError
from aiaas_sdk.server.hosted import Hosted
from aiaas_sdk.server.hosting import Hosting
from aiaas_sdk.server.paths import ONE, PINNED
from aiaas_sdk.server.targets import shown

__all__ = ["Stats"]


class Stats:
    """The endpoints, for the models of a hosting."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting

    def routes(self) -> list[Route]:
        return [
            Route("/v2/models/stats", self.all),
            Route(f"{ONE}/stats", self.one),
            Route(f"{PINNED}/stats", self.one),
        ]

    async def all(self, request: Request) -> Response:
        """Of all models that the caller may use."""
        return _told([row for hosted in self._hosting.allowed.values() for row in _rows(hosted)])

    async def one(self, request: Request) -> Response:
        hosted = self._hosting.named(request.path_params["model"])
        version = request.path_params.get("version")
        rows = [row for row in _rows(hosted) if version in (None, row["version"])]
        if version is not None and not rows and version not in hosted.versions:
            raise hosted.told(ModelNotFoundError(f"model {hosted.name!r} has no version {shown(version)}"))
        return _told(rows or [hosted.statistics.to_dict(version)])


def _rows(hosted: Hosted) -> list[dict[str, Any]]:
    """A row for each version that is loaded or was asked, the newest last."""
    versions = {version or "" for version in hosted.loaded} | set(hosted.statistics.versions)
    return [hosted.statistics.to_dict(version) for version in sorted(versions, key=lambda text: (len(text), text))]


def _told(rows: list[dict[str, Any]]) -> Response:
    return Response(to_json({"model_stats": rows}), media_type="application/json")
