"""Triton's model configuration extension: what a model takes, as its `config.pbtxt` would say it.

Source: `docs/protocol/extension_model_configuration.md`. `dims` are without the axis of rows where that is free;
`max_batch_size` is then the rows that share one forward pass. One request may bring more, unless the model's own
metadata have a `max_batch_size`: then it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiaas_sdk.errors import AiaasError
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.server.hosting import Hosting
from aiaas_sdk.server.paths import ONE, PINNED

__all__ = ["Configuring"]


class Configuring:
    """The extension for a hosting, whose forward passes have so many rows."""

    def __init__(self, hosting: Hosting, *, max_batch_rows: int) -> None:
        self._hosting, self._max_batch_rows = hosting, max_batch_rows

    def routes(self) -> list[Route]:
        return [Route(f"{path}/config", self.config) for path in (ONE, PINNED)]

    async def config(self, request: Request) -> Response:
        hosted = self._hosting.named(request.path_params["model"])
        try:
            info = await hosted.info_of(request.path_params.get("version"))
        except AiaasError as error:
            raise hosted.told(error) from error
        told = _config(hosted.name, info, self._max_batch_rows)
        return Response(to_json(told), media_type="application/json")


def _config(name: str, info: ModelInfo, rows: int) -> dict[str, Any]:
    return {
        "name": name,
        "platform": info.platform,
        "backend": "",
        "max_batch_size": rows if info.rows_free else 0,
        "input": _tensors(info.inputs, info.rows_free),
        "output": _tensors(info.outputs, info.rows_free),
    }


def _tensors(specs: Sequence[TensorSpec], rows_free: bool) -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name,
            "data_type": _type(spec.datatype),
            "dims": list(spec.shape[1:] if rows_free else spec.shape),
        }
        for spec in specs
    ]


def _type(datatype: str) -> str:
    """Its name in a configuration (Triton `model_config.proto`, `DataType`)."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
