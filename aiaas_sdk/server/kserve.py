"""The endpoints of KServe's V1 protocol, beside the list and readiness of models, which it shares with OpenAI's API.

`POST /v1/models/NAME:predict`, `{"instances": [...]}` or `{"inputs": ...}`, gives `{"predictions": ...}`; NaN and
infinities are null there, as in the Open Inference Protocol's JSON. `wire/instances.py` has the forms. Errors are
`{"error": "<text>"}`, which is what KServe's client reads. Sources: KServe
`python/kserve/kserve/protocol/rest/v1_endpoints.py`; TensorFlow Serving "RESTful API" (`inputs`, versions).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from aiaas_sdk.errors import InputError
from aiaas_sdk.records.explanation import Explained
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.server.asking import Ears, Endpoint, aside, asking, document, json_of
from aiaas_sdk.server.explaining import answer_of, explained
from aiaas_sdk.server.hosting import Hosting
from aiaas_sdk.server.leaving import Attended
from aiaas_sdk.server.packing import respond
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.wire import explanations, instances

__all__ = ["Endpoints", "asked", "predictions", "weight"]

FORMS = ("instances", "inputs")


class Endpoints:
    """The protocol for the models of a hosting, whose requests `ears` takes in."""

    def __init__(self, hosting: Hosting, ears: Ears) -> None:
        self._hosting, self._ears = hosting, ears

    def routes(self) -> list[Route]:
        one = "/v1/models/{model:path}"
        return [
            Route(f"{path}:{verb}", Endpoint(endpoint), methods=["POST"])
            for path in (f"{one}/versions/{{version}}", one)
            for verb, endpoint in (("predict", self.predict), ("explain", self.explain))
        ]

    async def predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = scope["path_params"]
        hosted = self._hosting.named(named["model"])
        head, body = await self._ears.hear(scope, receive, hosted)
        with hosted.place(), Attended(receive):
            async with asking(hosted, named.get("version"), head) as held:
                form, inputs = await aside(len(body), lambda: asked(document(body), held.info.inputs))
                answer = await hosted.predict(held.model, inputs, timeout=held.timeout)
                told = await aside(weight(answer.tensors), lambda: predictions(answer, form))
        await respond(send, json_of(told), head.headers.get("accept-encoding"))

    async def explain(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST :explain, as :predict; `parameters` may have `method` and `target`.

        The answer has the attributions as `explanations`, by row or by column as the inputs came, and beside them
        `method`, `target` and `completeness_error`.
        """
        named = scope["path_params"]
        hosted = self._hosting.named(named["model"])
        head, body = await self._ears.hear(scope, receive, hosted)
        with hosted.place(), Attended(receive):
            async with asking(hosted, named.get("version"), head) as held:
                given = await aside(len(body), lambda: document(body))
                form, inputs = await aside(len(body), lambda: asked(given, held.info.inputs))
                wanted = explanations.wanted(given.get("parameters"))
                found = answer_of(await explained(hosted, held, inputs, wanted))
                told = await aside(weight(found.attributions), lambda: _explanations(found, form))
        await respond(send, json_of(told), head.headers.get("accept-encoding"))


def asked(asked: Mapping[str, Any], specs: Sequence[TensorSpec]) -> tuple[str, dict[str, Tensor]]:
    """The form of a request ("instances" or "inputs"), and the inputs in it.

    Raises:
        InputError: it has both or neither, or they don't make arrays.
    """
    given = [form for form in FORMS if form in asked]
    if len(given) != 1:
        found = "both 'instances' and" if given else "neither 'instances' nor"
        raise InputError(f"the request has {found} 'inputs'", hint="Give one of them")
    form = given[0]
    read = instances.decode_rows if form == "instances" else instances.decode_columns
    if not (inputs := read(asked[form], specs)):
        raise InputError("the request brings no input")
    return form, inputs


def weight(tensors: Mapping[str, Tensor]) -> int:
    """About how many bytes the numbers of these tensors take as text."""
    return sum(8 * math.prod(tensor.shape) for tensor in tensors.values())


def predictions(answer: Prediction, form: str) -> bytes:
    """The body of an answer: by row to `instances`, by column to `inputs`."""
    return to_json({"predictions": _encoded(answer.tensors, form)}, inf_nan_mode="null")


def _explanations(found: Explained, form: str) -> bytes:
    told = {"explanations": _encoded(found.attributions, form), **explanations.facts(found)}
    return to_json(told, inf_nan_mode="null")


def _encoded(tensors: Mapping[str, Tensor], form: str) -> Any:
    return instances.encode_rows(tensors) if form == "instances" else instances.encode_columns(tensors)
