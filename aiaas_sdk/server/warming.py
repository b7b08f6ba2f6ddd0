"""The first run of a model that is here: what it costs once, no client pays."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import numpy as np

from aiaas_sdk.errors import AiaasError, ModelError
from aiaas_sdk.model import AsyncModel
from aiaas_sdk.near import Near, near
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.tensors import DATATYPES, Tensor

__all__ = ["warmed"]

logger = logging.getLogger("aiaas_sdk.server")


async def warmed(model: AsyncModel[Any, Any]) -> None:
    """Run an opened model once on zeros: one row, and 1 for any other free axis.

    A model behind an endpoint, and one that can't predict or has no signature, is left as it is.

    Raises:
        ModelError: it failed; the message names the model. Where a size had to be guessed, zeros of another shape
            may be what it can't do: then the failure is logged only.
    """
    here = near(model)
    if here is None or not here.info.inputs:
        return
    try:
        await asyncio.wrap_future(here.submit(_run, here))
    except (AiaasError, MemoryError) as error:
        why = error.message if isinstance(error, AiaasError) else "there is no memory for it"
        told = f"model {here.info.name!r} failed in its first run, on zeros: {why}"
        if not _guessed(here.info):
            raise ModelError(told, hint="Mend the model, or serve it with warm_up=False") from error
        logger.warning("%s", told)


def _run(here: Near) -> None:
    here.predict({spec.name: _zeros(spec) for spec in here.info.inputs})


def _zeros(spec: TensorSpec) -> Tensor:
    shape = [1 if size == -1 else size for size in spec.shape]
    array = np.zeros(shape, DATATYPES[spec.datatype].dtype)
    if spec.datatype == "BYTES":
        array.fill(b"")
    return Tensor(spec.datatype, array)


def _guessed(info: ModelInfo) -> bool:
    return any(-1 in spec.shape[1:] for spec in info.inputs)
