"""`aiaas serve`: anything that `load` can load, behind the standard protocols."""

from aiaas_sdk.server.app import create_app
from aiaas_sdk.server.hosting import Hosting
from aiaas_sdk.server.running import serve

__all__ = ["Hosting", "create_app", "serve"]
