"""The server: models by name behind the Open Inference Protocol v2 and OpenAI's API. `aiaas serve` is its command.

serve            run until SIGTERM or SIGINT
serve_in_thread  run beside the caller's own work, for notebooks and tests
create_app       the ASGI application alone, for another server or below other middleware
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiaas_sdk.server.app import App, create_app
    from aiaas_sdk.server.running import serve, serve_in_thread

__all__ = ["App", "create_app", "serve", "serve_in_thread"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from aiaas_sdk.server import app, running
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("starlette", "uvicorn", "anyio"):
            raise
        from aiaas_sdk.errors import BackendNotInstalledError

        raise BackendNotInstalledError(
            f"serving needs the package {error.name}", hint='Install it: pip install "aiaas-sdk[serve]"'
        ) from None
    return getattr(app if name in app.__all__ else running, name)
