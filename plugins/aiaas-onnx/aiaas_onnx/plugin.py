"""What the SDK asks of this plugin. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiaas_sdk.hookspecs import hookimpl


@hookimpl
def aiaas_backend(scheme: str) -> type[Any]:
    from aiaas_onnx.backend import OnnxBackend

    return OnnxBackend


@hookimpl
def aiaas_command(name: str) -> Callable[..., None]:
    from aiaas_onnx.command import command

    return command
