"""`POST /invocations`: one path for everything, as SageMaker's containers and MLflow's scoring server have it.

The body's form is told by its Content-Type and, in JSON, by its members:

    instances, inputs                         as KServe's V1; an answer is {"predictions": ...}
    dataframe_split, dataframe_records        a table, by MLflow
    text/csv, application/x-npy               a table; an array for the one input
    application/x-parquet                     a table, with pyarrow; application/vnd.apache.parquet is the same
    inputs with name, shape and datatype      a request of the Open Inference Protocol, and its answer
    ...sagemaker-triton.binary+json;json-header-size=N     the same with binary tensors
    messages, prompt, input                   a request of OpenAI's API, and its answer; `model` may be left out
    inputs that is a text                     TGI's: [{"generated_text": ...}], for a model that speaks

The header Accept may ask for text/csv or application/x-npy, where the answer is one array. One model is meant where one
is served; else `X-Amzn-SageMaker-Target-Model` names it. Errors are MLflow's, `{"error_code", "message"}`. Sources:
SageMaker "Custom inference code with hosting services"; Triton `src/sagemaker_server.cc`; MLflow
`mlflow/pyfunc/scoring_server`; TGI `router/src/server.rs` (`compat_generate`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from aiaas_sdk.errors import InputError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.server import kserve, oip, openai, parquet, questions, tgi
from aiaas_sdk.server.asking import Ears, Endpoint, aside, asking, document, json_of
from aiaas_sdk.server.callers import request_id
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.heads import Head, head_in
from aiaas_sdk.server.hosting import Hosted, Hosting
from aiaas_sdk.server.leaving import Attended
from aiaas_sdk.server.packing import respond
from aiaas_sdk.server.parquet import PARQUET, check_installed
from aiaas_sdk.tensors import Tensor, datatype_of, take
from aiaas_sdk.wire import instances, npy, tables
from aiaas_sdk.wire.oip import HEADER_LENGTH, Message
from aiaas_sdk.wire.status import clean

__all__ = ["Invocations"]

JSON = ("application/json", "application/cloudevents+json", "application/ld+json", "")
CSV, NPY = "text/csv", "application/x-npy"
BINARY = "application/vnd.sagemaker-triton.binary+json"
TARGET = "x-amzn-sagemaker-target-model"
TABLES = ("dataframe_split", "dataframe_records")
SPOKEN = ("messages", "prompt", "input")
TENSOR = frozenset(("name", "shape", "datatype"))


class Invocations:
    """The path for the models of a hosting.

    Args:
        hosting: the models.
        ears: takes in requests.
        tensors, language: the protocols whose requests it takes, too.
    """

    def __init__(self, hosting: Hosting, ears: Ears, *, tensors: oip.Endpoints, language: openai.Endpoints) -> None:
        self._hosting, self._ears = hosting, ears
        self._tensors, self._language = tensors, language

    def routes(self) -> list[Route]:
        return [Route("/invocations", Endpoint(self.invocations), methods=["POST"])]

    async def invocations(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = head_in(scope).headers
        hosted, (kind, words) = self._target(given), _media(given.get("content-type", ""))
        if kind in PARQUET:
            check_installed()
        elif kind not in (*JSON, CSV, NPY, BINARY) and HEADER_LENGTH not in given:
            taken = f"application/json, {CSV}, {NPY}, {PARQUET[0]} and {BINARY}"
            raise RefusedError(415, f"the Content-Type {clean(kind, 80)!r} isn't among {taken}", unread=True)
        head, body = await self._ears.hear(scope, receive, hosted)
        scope.setdefault("aiaas.request_id", request_id(given.get("x-amzn-sagemaker-inference-id", "")))
        if kind == BINARY:
            size = words.get("json-header-size", "").encode("latin-1")
            head = Head([*scope["headers"], (HEADER_LENGTH.encode(), size)])
        asked = _Asked(hosted, scope, receive, send, head, body)
        if HEADER_LENGTH in head.headers:
            await self._infer(asked)
        elif kind in JSON:
            await self._json(asked, await aside(len(body), lambda: document(body)))
        elif kind in PARQUET:
            limit = self._ears.max_inflated  # it is packed in itself, and read in a thread
            await _predict(asked, lambda specs: ("instances", parquet.decode(body, specs, limit=limit)), size=limit)
        elif kind == CSV:
            header = {"present": True, "absent": False}.get(words.get("header", ""))
            await _predict(asked, lambda specs: ("inputs", tables.decode(body, specs, header=header)))
        else:
            await _predict(asked, lambda specs: ("inputs", _array(body, specs)))

    def _target(self, headers: Mapping[str, str]) -> Hosted:
        """The model that is meant; SageMaker's clients may call it by its archive."""
        name = headers.get(TARGET)
        if name is not None:
            return self._hosting.named(name if name in self._hosting.models else name.removesuffix(".tar.gz"))
        if len(allowed := self._hosting.allowed) != 1:
            count = "several models are" if allowed else "no model is"
            raise RefusedError(400, f"{count} served to you here; name one in the header {TARGET}")
        return next(iter(allowed.values()))

    async def _json(self, asked: _Asked, found: Mapping[str, Any]) -> None:
        if _is_infer(found):
            await self._infer(asked)
        elif not found.keys() & {*kserve.FORMS, *TABLES} and found.keys() & {*SPOKEN}:
            await self._speak(asked, {**found, "model": asked.hosted.name})
        elif isinstance(found.get("inputs"), str) and await asked.speaks():
            await _continue(asked, found)
        else:
            await _predict(asked, lambda specs: _read(found, specs))

    async def _infer(self, asked: _Asked) -> None:
        with asked.hosted.place(), Attended(asked.receive):
            message = await self._tensors.answered(asked.hosted, None, asked.head, asked.body)
        if (size := message.headers.get(HEADER_LENGTH)) is not None:
            message = Message({"content-type": f"{BINARY};json-header-size={size}"}, message.body)
        await asked.respond(message)

    async def _speak(self, asked: _Asked, found: Mapping[str, Any]) -> None:
        to = (asked.scope, asked.receive, asked.send, asked.head)
        if "messages" in found:
            await self._language.spoken(*to, questions.chat(found), chatting=True)
        elif "prompt" in found:
            await self._language.spoken(*to, questions.completion(found), chatting=False)
        else:
            await self._language.embedded(*to, questions.embedding(found))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, and where its answer goes."""

    hosted: Hosted
    scope: Scope
    receive: Receive
    send: Send
    head: Head
    body: Buffer

    async def respond(self, message: Message) -> None:
        await respond(self.send, message, self.head.headers.get("accept-encoding"))

    async def speaks(self) -> bool:
        async with asking(self.hosted, None, self.head) as held:
            return "generate" in held.info.verbs


async def _predict(
    asked: _Asked, read: Callable[[Sequence[TensorSpec]], tuple[str, Mapping[str, Tensor]]], size: int | None = None
) -> None:
    kind = _accepted(asked.head.headers.get("accept", ""))
    with asked.hosted.place(), Attended(asked.receive):
        async with asking(asked.hosted, None, asked.head) as held:
            form, inputs = await aside(len(asked.body) if size is None else size, lambda: read(held.info.inputs))
            answer = await asked.hosted.predict(held.model, inputs, timeout=held.timeout)
            told = await aside(kserve.weight(answer.tensors), lambda: _written(kind, answer, form))
    await asked.respond(Message({"content-type": kind}, (told,)))


async def _continue(asked: _Asked, found: Mapping[str, Any]) -> None:
    text, sampling, whole = tgi.asked(found)
    with asked.hosted.place(), Attended(asked.receive):
        async with asking(asked.hosted, None, asked.head) as held:
            with asked.hosted.statistics.measured("generate", held.model) as counted:
                answer = await held.model.generate(text, **sampling, timeout=held.timeout)  # type: ignore[arg-type]  # specs
                counted.told(answer)
    await asked.respond(json_of(tgi.answer(answer, text if whole else "")))


# ---------------------------------------------------------------- forms
def _media(text: str) -> tuple[str, dict[str, str]]:
    """A media type and its parameters, in lower case (RFC 9110 8.3.1)."""
    kind, *rest = (part.strip().lower() for part in text.split(";"))
    words = (part.partition("=") for part in rest)
    return kind, {name.strip(): value.strip().strip('"') for name, _, value in words}


def _is_infer(found: Mapping[str, Any]) -> bool:
    """Whether it is a request of the Open Inference Protocol."""
    inputs = found.get("inputs")
    return type(inputs) is list and bool(inputs) and type(inputs[0]) is dict and inputs[0].keys() >= TENSOR


def _read(found: Mapping[str, Any], specs: Sequence[TensorSpec]) -> tuple[str, Mapping[str, Tensor]]:
    """The inputs, and the form in which the answer is given."""
    given = [name for name in (*TABLES, *kserve.FORMS) if name in found]
    if len(given) != 1:
        raise InputError(
            f"the request has {' and '.join(given) or 'none of the forms that are taken'}",
            hint=f"Give one of {', '.join((*kserve.FORMS, *TABLES, *SPOKEN))}",
        )
    if given[0] in kserve.FORMS:
        return kserve.asked(found, specs)
    table = _split(found[TABLES[0]]) if given[0] == TABLES[0] else _records(found[TABLES[1]])
    return "instances", instances.decode_table(*table, specs)


def _split(table: Any) -> tuple[list[str], list[Any]]:
    """pandas' orient="split"; without columns they have no names."""
    if not isinstance(table, dict) or type(table.get("data")) is not list:
        raise InputError('dataframe_split isn\'t {"columns": [...], "data": [[...], ...]}')
    data, names = table["data"], table.get("columns")
    if names is None and data and type(data[0]) is list:
        names = [str(place) for place in range(len(data[0]))]
    if type(names) is not list:
        raise InputError("the columns of dataframe_split aren't a list of names")
    return [str(name) for name in names], data


def _records(rows: Any) -> tuple[list[str], list[Any]]:
    """pandas' orient="records"."""
    if type(rows) is not list or not rows or not all(type(row) is dict for row in rows):
        raise InputError("dataframe_records isn't a list of objects")
    columns = instances.columns_of(rows)
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def _array(body: Buffer, specs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    array = npy.decode(body)
    if len(specs) > 1:
        raise InputError(f"the model has {len(specs)} inputs, and {NPY} brings one array", hint="Send JSON")
    spec = specs[0] if specs else TensorSpec(instances.UNNAMED, datatype_of(array), array.shape)
    return {spec.name: take(array, spec, where="the model")}


# ---------------------------------------------------------------- answers
def _accepted(accept: str) -> str:
    """The form of the answer: the first that Accept names and that there is; JSON where it names none.

    Raises:
        RefusedError: 406, it takes none of them.
    """
    kinds = [kind for part in accept.split(",") if (kind := _media(part)[0])]
    for kind in kinds:
        if kind in (CSV, NPY):
            return kind
        if kind in ("*/*", "application/*", *JSON):
            break
    else:
        if kinds:
            raise RefusedError(406, f"an answer is application/json, {CSV} or {NPY}, and Accept takes none of them")
    return "application/json"


def _written(kind: str, answer: Prediction, form: str) -> bytes:
    told: bytes | None = None
    if kind == CSV:
        told = tables.encode(answer.tensors)
    elif kind == NPY and len(answer.tensors) == 1:
        told = npy.encode(next(iter(answer.tensors.values())))
    elif kind != NPY:
        return kserve.predictions(answer, form)
    if told is None:
        raise RefusedError(406, f"this answer can't be {kind}; take application/json")
    return told
