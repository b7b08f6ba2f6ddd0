"""Triton's generate extension for language models: a text in, its continuation out, whole or piece by piece.

`POST /v2/models/NAME/generate`, `{"text_input": "...", "parameters": {"max_tokens": 9, ...}}`, gives `{"text_output"}`;
`/generate_stream` gives events, each `data: {"text_output": piece}`, without an event at the end, and `data: {"error"}`
where it fails under way. What stands beside `text_input` counts as a parameter; the parameters are those of OpenAI's
`/completions`. Source: `docs/protocol/extension_generate.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from aiaas_sdk.errors import AiaasError
from aiaas_sdk.server import questions
from aiaas_sdk.server.asking import Ears, Endpoint, asking, document, json_of, told
from aiaas_sdk.server.errors import RefusedError, error_body
from aiaas_sdk.server.heads import Head
from aiaas_sdk.server.hosting import Hosted, Hosting
from aiaas_sdk.server.leaving import Attended
from aiaas_sdk.server.packing import respond
from aiaas_sdk.server.paths import ONE, PINNED
from aiaas_sdk.server.replies import event
from aiaas_sdk.server.streaming import STREAMED, put

__all__ = ["Generate"]

_ID = 256  # characters


class Generate:
    """The extension for the language models of a hosting, whose requests `ears` takes in."""

    def __init__(self, hosting: Hosting, ears: Ears) -> None:
        self._hosting, self._ears = hosting, ears

    def routes(self) -> list[Route]:
        return [
            Route(path + end, Endpoint(endpoint), methods=["POST"])
            for path in (ONE, PINNED)
            for end, endpoint in (("/generate", self.generate), ("/generate_stream", self.stream))
        ]

    async def generate(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosted, head, asked = await self._asked(scope, receive)
        with hosted.place(), Attended(receive):
            async with asking(hosted, scope["path_params"].get("version"), head) as held:
                prompt, sampling = _question(hosted.name, asked)
                with hosted.statistics.measured("generate", held.model) as counted:
                    answer = await held.model.generate(prompt, **sampling, timeout=held.timeout)  # type: ignore[arg-type]  # specs
                    counted.told(answer)
        body = to_json(_head(hosted, answer.version, asked) | {"text_output": answer.text})
        await respond(send, json_of(body), head.headers.get("accept-encoding"))

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What fails before the first piece has a status of its own; what fails later is told as an event."""
        hosted, head, asked = await self._asked(scope, receive)
        with hosted.place(), Attended(receive), hosted.statistics.measured("stream") as counted:
            async with asking(hosted, scope["path_params"].get("version"), head) as held:
                counted.model = held.model
                prompt, sampling = _question(hosted.name, asked)
                common = _head(hosted, held.info.version, asked)
                async with held.model.stream(prompt, **sampling, timeout=held.timeout) as stream:  # type: ignore[arg-type]
                    first = await anext(stream, None)
                    await send({"type": "http.response.start", "status": 200, "headers": list(STREAMED)})
                    end = b""
                    try:
                        if first is not None:
                            await put(send, event(common | {"text_output": first.text}))
                        async for delta in stream:
                            if delta.text:
                                await put(send, event(common | {"text_output": delta.text}))
                        counted.told(await stream.result())
                    except AiaasError as error:
                        held.failed(error)
                        end = b"data: " + error_body(told(hosted, error), scope["path"]) + b"\n\n"
                    await put(send, end, more=False)

    async def _asked(self, scope: Scope, receive: Receive) -> tuple[Hosted, Head, dict[str, Any]]:
        hosted = self._hosting.named(scope["path_params"]["model"])
        head, body = await self._ears.hear(scope, receive, hosted)
        return hosted, head, document(body)


def _question(model: str, asked: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The text and the options of `Sampling`.

    Raises:
        RefusedError: 400, one of them is missing, wrong or not offered.
    """
    _check_id(asked.get("id"))
    text, parameters = asked.get("text_input"), asked.get("parameters")
    if not isinstance(text, str) or not text:
        raise RefusedError(400, "text_input is missing; it is a text")
    if not isinstance(parameters, dict | None):
        raise RefusedError(400, "parameters isn't an object")
    beside = {name: value for name, value in asked.items() if name not in ("id", "text_input", "parameters")}
    given = {**beside, **(parameters or {})}
    if given.get("n", 1) != 1:
        raise RefusedError(400, "n isn't offered here; an answer is one text")
    for name in ("stream", "stream_options"):  # the path says that
        given.pop(name, None)
    return text, dict(questions.completion({**given, "model": model, "prompt": text}).sampling)


def _head(hosted: Hosted, version: str | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    head = {"model_name": hosted.name, "model_version": version or ""}
    return head if asked.get("id") is None else {"id": asked["id"], **head}


def _check_id(id: Any) -> None:
    """It stands in every piece of a stream, so it is as short as an id is.

    Raises:
        RefusedError: 400.
    """
    if id is not None and not (type(id) is int or (isinstance(id, str) and len(id) <= _ID)):
        raise RefusedError(400, f"id is no text of {_ID} characters at most, and no whole number")
