"""What the SDK asks of this plugin. Nothing heavy is imported here."""

from __future__ import annotations

from typing import Any

from aiaas_sdk.hookspecs import hookimpl


@hookimpl
def aiaas_backend(scheme: str) -> type[Any]:
    from aiaas_transformers.backend import TransformersBackend

    return TransformersBackend
