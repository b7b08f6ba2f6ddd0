"""text-generation-inference: `POST /generate` and `/generate_stream` (its docs/openapi.json)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic_core import from_json

from aiaas_huggingface.door import Door
from aiaas_huggingface.refusals import event_error
from aiaas_huggingface.sampling import drawn, prompt_of, refuse, stops_of
from aiaas_huggingface.stops import Stops
from aiaas_sdk.errors import AiaasError, ProtocolError, StreamInterruptedError
from aiaas_sdk.flow import Emit, Flow, Reply, read
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.chat import Chat, Choice, Spoken
from aiaas_sdk.records.language import Delta
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.wire.sse import Events
from aiaas_sdk.wire.status import excerpt

__all__ = ["Tgi"]

TAKEN = frozenset(("temperature", "top_p", "top_k", "max_tokens", "stop", "seed", "logprobs"))
REASONS = {"eos_token": "stop", "stop_sequence": "stop"}
AFTER = 0.25
"""Seconds for which the end of a reply is waited for after the last event, so that its connection can be used again."""


class Tgi:
    """A model that continues texts."""

    verbs: ClassVar[frozenset[str]] = frozenset(("generate", "stream"))

    def __init__(self, door: Door) -> None:
        self._door = door

    def info(self, told: Mapping[str, Any]) -> ModelInfo:
        kept = ("model_dtype", "max_input_tokens", "max_input_length", "max_total_tokens", "version")
        device = told.get("model_device_type")
        return ModelInfo(
            name=str(told["model_id"]),
            version=told["model_sha"] if isinstance(told.get("model_sha"), str) else None,
            verbs=self.verbs,
            platform="text-generation-inference",
            device=device if isinstance(device, str) else None,
            metadata={name.removeprefix("model_"): told[name] for name in kept if name in told},
        )

    def generate(self, call: Call, chat: Chat) -> Flow[Spoken]:
        found, headers = yield from self._door.ask(call, "/generate", _question(chat))
        found = found[0] if isinstance(found, list) and found else found  # as at "/", behind which some proxies put it
        if not isinstance(found, dict) or not isinstance(found.get("generated_text"), str):
            raise ProtocolError("the answer has no generated_text")
        details = found["details"] if isinstance(found.get("details"), dict) else {}
        stops = Stops(stops_of(chat))
        text = stops.take(found["generated_text"]) + stops.end()
        tokens, likeliest = details.get("tokens") or [], details.get("top_tokens") or []
        logprobs = _logprobs(zip(tokens, [*likeliest, *[None] * len(tokens)], strict=False)) if _wanted(chat) else None
        prompt = headers.get("x-prompt-tokens", "")
        return Spoken(
            (Choice(text, _reason(details), logprobs=logprobs),),
            int(prompt) if prompt.isdecimal() else None,
            _count(details.get("generated_tokens")),
        )

    def stream(self, call: Call, chat: Chat) -> Flow[Spoken]:
        return self._door.listen(call, "/generate_stream", _question(chat), lambda reply: _heard(call, chat, reply))


def _question(chat: Chat) -> dict[str, Any]:
    refuse(chat, TAKEN, "text-generation-inference")
    sampling = chat.sampling
    names = {"max_tokens": "max_new_tokens", "seed": "seed", "logprobs": "top_n_tokens"}
    parameters = {name: sampling[ours] for ours, name in names.items() if ours in sampling}
    if stops := stops_of(chat):
        parameters["stop"] = list(stops)
    return {
        "inputs": prompt_of(chat),
        "parameters": {**drawn(sampling), **parameters, "return_full_text": False, "details": True},
    }


def _wanted(chat: Chat) -> bool:
    return "logprobs" in chat.sampling


def _reason(details: Mapping[str, Any]) -> str:
    told = details.get("finish_reason")
    return REASONS.get(told, told) if isinstance(told, str) else "unknown"


def _count(value: Any) -> int | None:
    return value if type(value) is int else None


def _logprobs(pairs: Any) -> list[dict[str, Any]]:
    """As `Generation.logprobs` has it, without tokens that are no text."""
    return [
        {**_entry(token), "top_logprobs": [_entry(other) for other in likeliest or ()]}
        for token, likeliest in pairs
        if isinstance(token, dict) and not token.get("special")
    ]


def _entry(token: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": token.get("text"), "logprob": token.get("logprob")}


# ---------------------------------------------------------------- a stream
class Heard:
    """One streamed answer, from its events: a token each, and with the last one the details.

    `text` is what could be shown; `details` is None until the end has come.
    """

    def __init__(self, chat: Chat) -> None:
        self._stops = Stops(stops_of(chat))
        self._texts: list[str] = []
        self._tokens: list[tuple[Any, Any]] = []
        self.begun = False
        self.details: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def take(self, data: bytes) -> str:
        """What the event lets be shown.

        Raises:
            ProtocolError: it is no event of TGI. AiaasError: it is the peer's error.
        """
        try:
            event = from_json(data)
        except ValueError:
            raise ProtocolError(f"an event of the stream is no JSON: {excerpt(data)}") from None
        if isinstance(event, dict) and event.get("error"):
            raise event_error(event)
        token = event.get("token") if isinstance(event, dict) else None
        if not isinstance(token, dict) or not isinstance(token.get("text"), str):
            raise ProtocolError("an event of the stream has no token")
        self._tokens.append((token, event.get("top_tokens")))
        shown = "" if token.get("special") else self._stops.take(token["text"])
        if event.get("generated_text") is not None:
            shown += self._stops.end()
            self.details = event["details"] if isinstance(event.get("details"), dict) else {}
        self._texts.append(shown)
        self.begun = self.begun or shown != ""
        return shown

    def spoken(self, chat: Chat) -> Spoken:
        details = self.details or {}
        logprobs = _logprobs(self._tokens) if _wanted(chat) else None
        return Spoken(
            (Choice(self.text, _reason(details), logprobs=logprobs),),
            _count(details.get("input_length")),
            _count(details.get("generated_tokens")),
        )


def _heard(call: Call, chat: Chat, reply: Reply) -> Flow[Spoken]:
    """Emit what comes; give the whole.

    Raises:
        StreamInterruptedError: it ended before its end; what fails before the first content fails as it is.
    """
    answer, events = Heard(chat), Events()
    heard, limit = time.monotonic(), call.attempt_timeout
    try:
        while answer.details is None:
            data = yield from read(reply, None if limit is None else max(0.0, heard + limit - time.monotonic()))
            for event in events.feed(bytes(data)) if data else events.end():
                if shown := answer.take(event.data):
                    yield Emit(Delta(shown))
                    heard, limit = time.monotonic(), chat.gap
            if not data:
                break
    except AiaasError as error:
        if not answer.begun:
            raise
        raise _interrupted(answer, error.message, error.status) from error
    if answer.details is None:
        raise _interrupted(answer, "it ended before its end")
    yield from _drained(reply)
    return answer.spoken(chat)


def _interrupted(answer: Heard, why: str, status: int | None = None) -> StreamInterruptedError:
    what = "after its first content" if answer.begun else "without any content"
    return StreamInterruptedError(
        f"the stream was cut {what}: {why}",
        partial=answer.text,
        status=status,
        hint="What had come is in .partial; a stream that has begun isn't asked for again",
    )


def _drained(reply: Reply) -> Flow[None]:
    """Read what is behind the end, so that the connection can be used again."""
    try:
        while (yield from read(reply, AFTER)):
            pass
    except AiaasError:
        pass
