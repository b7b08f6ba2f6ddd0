"""`POST /v2/models/NAME[/versions/VERSION]/explain`, and what KServe's `:explain` has in common with it.

`wire/explanations.py` has the form. The model explains a few rows at a time, so that other calls have their turns.
"""

from __future__ import annotations

import math
from typing import Any

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from aiaas_sdk.errors import InputError, ModelError
from aiaas_sdk.records.explanation import Explained, Explanation
from aiaas_sdk.server.asking import Ears, Endpoint, aside, asking
from aiaas_sdk.server.held import Held
from aiaas_sdk.server.hosting import Hosted, Hosting
from aiaas_sdk.server.leaving import Attended
from aiaas_sdk.server.packing import respond
from aiaas_sdk.server.paths import ONE, PINNED
from aiaas_sdk.tensors import Tensor, datatype_of
from aiaas_sdk.wire import explanations, oip

__all__ = ["Endpoints", "explained"]


class Endpoints:
    """Our binary form for the models of a hosting, whose requests `ears` takes in."""

    def __init__(self, hosting: Hosting, ears: Ears) -> None:
        self._hosting, self._ears = hosting, ears

    def routes(self) -> list[Route]:
        return [Route(f"{path}/explain", Endpoint(self.explain), methods=["POST"]) for path in (ONE, PINNED)]

    async def explain(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = scope["path_params"]
        hosted = self._hosting.named(named["model"])
        head, body = await self._ears.hear(scope, receive, hosted)
        with hosted.place(), Attended(receive):
            async with asking(hosted, named.get("version"), head) as held:
                request = await aside(len(body), lambda: oip.decode_request(head.headers, body, specs=held.info.inputs))
                wanted = explanations.wanted(request.parameters)
                found = await explained(hosted, held, explanations.inputs_of(request), wanted)
                version = found.version
                message = await aside(
                    _size(found),
                    lambda: explanations.encode_answer(
                        answer_of(found), request, model_name=hosted.name, model_version=version
                    ),
                )
        await respond(send, message, head.headers.get("accept-encoding"))


async def explained(hosted: Hosted, held: Held, inputs: Any, wanted: explanations.Wanted) -> Explanation:
    """The explanation by a version of a model.

    Raises:
        InputError: it is asked about too many rows at once.
        AiaasError: what the model says.
    """
    rows = len(inputs) if isinstance(inputs, list) else max((_rows(tensor) for tensor in inputs.values()), default=0)
    if rows > explanations.ROWS:
        raise InputError(f"{rows} rows are to be explained", hint=f"At most {explanations.ROWS} are in one request")
    with hosted.statistics.measured("explain", held.model) as counted:
        try:
            found = await held.model.explain(inputs, target=wanted.target, method=wanted.method, timeout=held.timeout)
        except MemoryError as error:
            raise ModelError(f"model {hosted.name!r} ran out of memory", hint="Send fewer rows") from error
        counted.told(found)
    return found


def answer_of(found: Explanation) -> Explained:
    """An explanation as it travels."""
    tensors = {name: Tensor(datatype_of(array), array) for name, array in found.items()}
    return Explained(tensors, found.method, found.target, found.completeness_error, found.tokens, found.target_tokens)


def _rows(tensor: Tensor) -> int:
    return tensor.shape[0] if tensor.shape else 0


def _size(found: Explanation) -> int:
    """About how many bytes its numbers take as text."""
    return sum(8 * math.prod(array.shape) for array in found.values())
