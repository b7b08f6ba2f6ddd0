"""Whether the server lives, and whether it can serve: for Kubernetes, load balancers and every protocol's clients.

    /livez, /healthz, /v2/health/live    the process answers; no model is asked, so that none can have it killed
    /readyz, /health, /v2/health/ready   every model is open and the server isn't about to end; else 503
    /ping                                the same, for SageMaker and MLflow
    /                                    `alive`, as KServe's V1 clients want it; a browser gets the page

Sources: Kubernetes "API health endpoints"; open-inference-protocol `inference_rest.md`; SageMaker "Custom inference
code with hosting services"; KServe `python/kserve/kserve/inference_client.py` (`is_server_live`). HEAD works as GET.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiaas_sdk._version import __version__
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.hosting import Hosting
from aiaas_sdk.server.permissions import caller

__all__ = ["OPEN_PATHS", "Probes", "alive"]

_LIVE = ("/livez", "/healthz", "/v2/health/live")
_READY = ("/readyz", "/health", "/v2/health/ready", "/ping")
OPEN_PATHS = frozenset((*_LIVE, *_READY))
"""What a probe asks, which has no credential."""


class Probes:
    """The probes of a hosting.

    Args:
        hosting: the models.
        draining: whether the server is about to end.
    """

    def __init__(self, hosting: Hosting, *, draining: Callable[[], bool] = lambda: False) -> None:
        self._hosting, self._draining = hosting, draining

    def routes(self) -> list[Route]:
        return [
            *(Route(path, self.live) for path in _LIVE),
            *(Route(path, self.ready) for path in _READY),
            Route("/version", self.version),
        ]

    async def live(self, request: Request) -> Response:
        return _json(b'{"live":true}')

    async def ready(self, request: Request) -> Response:
        if self._draining():
            raise RefusedError(503, "the server is shutting down")
        if waited := self._hosting.waited_for:
            named = [name for name in waited if caller().may_use(name)]  # a probe without a key sees no name
            raise RefusedError(503, f"not ready yet: {', '.join(named)}" if named else "not ready yet")
        return _json(b'{"ready":true}')

    async def version(self, request: Request) -> Response:
        """The version of this package, where MLflow's server tells its own."""
        return Response(__version__, media_type="text/plain")


def alive() -> Response:
    """The answer at `/` for everybody but a browser."""
    return Response(b'{"status":"alive"}', media_type="application/json", headers={"vary": "accept"})


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
