"""`GET /openapi.json`: what this server answers, as OpenAPI 3.1, of the models that the caller may use.

It is plain data: `paths.py` has the operations, `schemas.py` the forms of bodies, `parts.py` the words they are made
of. What a server was started without isn't in it. A model's own inputs stand in the examples: an array's shape is no
matter of a JSON schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiaas_sdk._version import __version__
from aiaas_sdk.server.description.examples import examples
from aiaas_sdk.server.description.paths import paths
from aiaas_sdk.server.description.schemas import SCHEMAS
from aiaas_sdk.server.hosting import Hosting

__all__ = ["PATH", "Description"]

PATH = "/openapi.json"


class Description:
    """The description of a server with these models and routes."""

    def __init__(self, hosting: Hosting, routes: Sequence[Route], *, guarded: bool = False) -> None:
        self._hosting, self._guarded = hosting, guarded
        self._served = {(path, method) for route in routes for path, method in _operations(route)}

    def routes(self) -> list[Route]:
        return [Route(PATH, self.described)]

    async def described(self, request: Request) -> Response:
        return Response(to_json(self.document()), media_type="application/json")

    def document(self) -> dict[str, Any]:
        models = self._hosting.allowed
        offered = paths(list(models), examples(models))
        served = {(PATH, "get")} | self._served
        document: dict[str, Any] = {
            "openapi": "3.1.0",
            "info": {"title": "aiaas serve", "version": __version__, "license": {"name": "Apache-2.0"}},
            "paths": {path: kept for path, item in offered.items() if (kept := _kept(path, item, served))},
            "components": {"schemas": SCHEMAS},
        }
        if self._guarded:
            document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"key": []}]
        return document


def _operations(route: Route) -> Iterator[tuple[str, str]]:
    """Path and method of each operation, written as OpenAPI does it."""
    path = re.sub(r"{(\w+):\w+}", r"{\1}", route.path)
    yield from ((path, method.lower()) for method in route.methods or () if method != "HEAD")


def _kept(path: str, item: Mapping[str, Any], served: set[tuple[str, str]]) -> dict[str, Any]:
    return {method: operation for method, operation in item.items() if (path, method) in served}
