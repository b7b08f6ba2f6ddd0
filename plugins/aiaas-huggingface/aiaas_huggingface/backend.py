"""Hosted Hugging Face endpoints: `huggingface+https://HOST[/PATH][/pipeline/TASK]`.

With a task it is asked in task JSON; else its `/info` tells whether text-generation-inference or
text-embeddings-inference answers, and what its model does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from pydantic_core import from_json, to_json

from aiaas_huggingface.pipelines import TASKS
from aiaas_huggingface.refusals import explained
from aiaas_huggingface.tei import tei
from aiaas_huggingface.tgi import Tgi
from aiaas_sdk.backends.base import RemoteBackend
from aiaas_sdk.errors import (
    AddressError,
    AiaasError,
    ConfigError,
    InputError,
    ModelNotFoundError,
    ProtocolError,
    ServerError,
    StatusError,
    UnavailableError,
)
from aiaas_sdk.flow import Flow, Reply, Request
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.chat import Chat, Embedded, Spoken
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.wire.status import excerpt

__all__ = ["HuggingFaceBackend", "aiaas_backend"]

ABSENT = frozenset((400, 404, 405, 501))
"""Statuses of a path that isn't there."""
PIPELINE = "/pipeline/"
JSON = {"content-type": "application/json", "accept": "application/json"}
SSE = {"content-type": "application/json", "accept": "text/event-stream"}
VERBS = frozenset(("predict", "generate", "stream", "embed"))


class HuggingFaceBackend(RemoteBackend):
    """The one model of an endpoint; what it can do is known once it is open."""

    scheme = "huggingface"
    options_taken: ClassVar[frozenset[str]] = frozenset(("api_key", "headers", "network"))

    def prepare(self) -> None:
        """The address names a task that is known here, or none, and no version."""
        if self.address.version is not None:
            raise AddressError(f"{self.address} names a version, and an endpoint has one", hint="Leave out the @")
        target = self.address.target.rstrip("/")
        base, mark, task = target.rpartition(PIPELINE)
        self._base = base if mark else target
        self._task: str | None = task if mark else None
        if self._task is not None and self._task not in TASKS:
            raise AddressError(
                f"{self.address} names a task that isn't known here", hint=f"Known are {', '.join(TASKS)}"
            )
        self._served: Any = None

    def verbs(self) -> frozenset[str]:  # type: ignore[override]  # of this model, once it is open
        return VERBS if self._served is None else self._served.verbs

    # ------------------------------------------------------------ opening
    def opening(self, call: Call) -> Flow[ModelInfo]:
        if self._task is not None:
            return (yield from self._pipeline(call, self._task))
        told = yield from self._told(call)
        if isinstance(told.get("model_type"), dict) and told["model_type"] and "model_id" in told:
            self._served = tei(self, told)
        elif "model_id" in told and ("max_total_tokens" in told or "router" in told):
            self._served = Tgi(self)
        else:
            raise self._untold()
        info: ModelInfo = self._served.info(told)
        return info

    def _pipeline(self, call: Call, task: str) -> Flow[ModelInfo]:
        """A container of the toolkit has /health, and the task at its root; Hugging Face's own router, at the path."""
        alone = yield from self._has(call, "/health")
        self._served = TASKS[task](self, task, "/" if alone else f"{PIPELINE}{task}")
        parts = urlsplit(self._base)
        return ModelInfo(
            name=unquote(parts.path.partition("/models/")[2] or parts.path.strip("/")) or parts.netloc,
            inputs=self._served.inputs,
            outputs=self._served.outputs,
            verbs=self.verbs(),
            platform="huggingface",
            metadata={"task": task},
        )

    def _told(self, call: Call) -> Flow[Mapping[str, Any]]:
        """Its /info."""
        try:
            reply = yield from self.send(call, self._get("/info"))
        except (StatusError, ServerError, ModelNotFoundError) as error:
            if error.status not in ABSENT:
                raise
            if (yield from self._has(call, "/health")):
                raise self._untold() from None
            raise ModelNotFoundError(
                f"nothing answers {self._base}/info and {self._base}/health", hint="Is the path right?", status=404
            ) from None
        try:
            told = from_json(bytes(reply.body))
        except ValueError:
            raise self._untold() from None
        return told if isinstance(told, dict) else {}

    def _untold(self) -> ConfigError:
        return ConfigError(
            f"{self.address} is neither TGI nor TEI, and doesn't tell its task",
            hint=f"Write it at the end: {self.address}{PIPELINE}TASK, where TASK is one of {', '.join(TASKS)}",
        )

    def _has(self, call: Call, path: str) -> Flow[bool]:
        try:
            yield from self.send(call, self._get(path))
        except (StatusError, ServerError, ModelNotFoundError) as error:
            if error.status in ABSENT:
                return False
            raise
        return True

    def readiness(self, call: Call) -> Flow[bool]:
        """What has no /health is taken to be ready."""
        try:
            yield from self._has(call, "/health")
        except UnavailableError:
            return False
        return True

    # ------------------------------------------------------------ verbs
    def start(self, call: Call, *arguments: Any) -> Flow[Any]:
        if call.verb not in self.verbs():
            raise self.unsupported(call.verb)
        return super().start(call, *arguments)

    def predict(self, call: Call, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Flow[Mapping[str, Tensor]]:
        return self._served.predict(call, inputs, outputs)  # type: ignore[no-any-return]

    def generate(self, call: Call, chat: Chat) -> Flow[Spoken]:
        return self._served.generate(call, chat)  # type: ignore[no-any-return]

    def stream(self, call: Call, chat: Chat) -> Flow[Spoken]:
        return self._served.stream(call, chat)  # type: ignore[no-any-return]

    def embed(self, call: Call, texts: Sequence[str], dimensions: int | None) -> Flow[Embedded]:
        return self._served.embed(call, texts, dimensions)  # type: ignore[no-any-return]

    # ------------------------------------------------------------ the door
    def ask(self, call: Call, path: str, document: Mapping[str, Any]) -> Flow[tuple[Any, Mapping[str, str]]]:
        """POST; gives the parsed answer and the reply's headers.

        Raises:
            ProtocolError: it is no JSON.
        """
        reply = yield from self.send(call, self._post(path, document, JSON))
        _note(call, reply.headers)
        try:
            return from_json(bytes(reply.body)), reply.headers
        except ValueError:
            raise ProtocolError(f"the answer is no JSON: {excerpt(reply.body)}") from None

    def listen(
        self, call: Call, path: str, document: Mapping[str, Any], consume: Callable[[Reply], Flow[Spoken]]
    ) -> Flow[Spoken]:
        """POST, and hand the opened reply to `consume`."""

        def noted(reply: Reply) -> Flow[Spoken]:
            _note(call, reply.headers)
            return consume(reply)

        return self.open_stream(call, self._post(path, document, SSE), noted)

    def refused(self, call: Call, reply: Reply) -> AiaasError:
        """As every peer's, in the words of these."""
        return explained(reply.body, super().refused(call, reply))

    def _get(self, path: str) -> Request:
        return Request("GET", self._base + path, network=self.options.get("network"))

    def _post(self, path: str, document: Mapping[str, Any], headers: Mapping[str, str]) -> Request:
        try:
            body = to_json(document)
        except ValueError:
            raise InputError("a text has half a character, which JSON can't carry") from None
        return Request("POST", self._base + path, headers, (body,), network=self.options.get("network"))


def _note(call: Call, headers: Mapping[str, str]) -> None:
    """What the reply's head tells of the request: its id, and how long it waited and was computed (ms)."""
    call.request_id = headers.get("x-request-id", call.request_id)
    for field, name in (("queue", "x-queue-time"), ("compute", "x-inference-time")):
        if (told := headers.get(name, "")).isdecimal():
            setattr(call, field, (getattr(call, field) or 0.0) + int(told) / 1000)


@hookimpl
def aiaas_backend(scheme: str) -> type[HuggingFaceBackend]:
    return HuggingFaceBackend
