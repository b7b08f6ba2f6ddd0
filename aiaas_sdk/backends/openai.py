"""Models behind OpenAI's API: vLLM, Ollama, TGI, llama.cpp, `aiaas serve`, gateways, OpenAI and Azure themselves.

`openai+https://HOST/v1#MODEL`. Without a path it is /v1; with one it is taken as it stands ("/" for none). A path
that ends with /completions continues texts; else text is a message of the user.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from pydantic_core import to_json

from aiaas_sdk.backends.base import RemoteBackend
from aiaas_sdk.backends.credentials import Credentials
from aiaas_sdk.errors import (
    AiaasError,
    AuthenticationError,
    ConfigError,
    ConnectionLostError,
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    OutputError,
    PermissionDeniedError,
    ProtocolError,
    ServerError,
    StatusError,
    StreamInterruptedError,
    UnavailableError,
    UnsupportedOperationError,
)
from aiaas_sdk.flow import Emit, Flow, Read, Reply, Request, read
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.chat import Chat, Embedded, Spoken
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.wire import openai as wire
from aiaas_sdk.wire.alike import Alike
from aiaas_sdk.wire.sse import Events, lone

if TYPE_CHECKING:
    from aiaas_sdk.records.language import Delta

AFTER = 0.25
"""Seconds for which the end of a reply is waited for after `[DONE]`, so that its connection can be used again."""
ABSENT = frozenset((404, 405, 501))
"""Statuses of a path that isn't there, or takes no POST."""
REQUEST_ID = "x-request-id"
ENDS = ("/chat/completions", "/completions", "/embeddings")
JSON = {"content-type": "application/json", "accept": "application/json"}
SSE = {"content-type": "application/json", "accept": "text/event-stream"}


@dataclass(frozen=True, slots=True)
class Peer:
    """What is particular to a server: how it is known, and what it can't take or has another name for.

    Everything else that servers do differently is put up with by `wire.openai` whoever does it.
    """

    name: str
    hosts: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    refuses: frozenset[str] = frozenset()
    dialect: wire.Dialect = wire.PLAIN


OWN = wire.Dialect(limit="max_completion_tokens")
LLAMA = wire.Dialect(form="json_object", choice="auto", silence="")

PEERS = (
    # its newer models refuse max_tokens, and it has never had top_k
    Peer("openai", (".openai.com",), refuses=frozenset(("top_k",)), dialect=OWN),
    Peer("azure", (".azure.com",), refuses=frozenset(("top_k",)), dialect=OWN),
    Peer("aiaas", owners=("aiaas",)),
    Peer("vllm", owners=("vllm",)),
    # drops n, and tools without tool_choice; no usage in streams; takes any model's name; a stream that fails before
    # its first token is an empty one, and the answer to most wrong requests is 500
    Peer("llama-cpp-python", owners=("me",), refuses=frozenset(("n",)), dialect=LLAMA),
    Peer("llama.cpp", owners=("llamacpp",)),
    Peer("ollama", owners=("library",), refuses=frozenset(("n", "logprobs"))),
    Peer("tgi", owners=("tgi",), refuses=frozenset(("n",))),
    # Two that can't be told: LitServe lists no models (another id in each chunk, the role in each delta, usage all
    # zeros), and `transformers serve` names each model's own organisation (no [DONE], usage in the last chunk). What
    # they leave out of `n` and `logprobs` is seen in the answer.
)
UNKNOWN = Peer("openai-compatible")


class OpenAIBackend(RemoteBackend):
    """One model of one server."""

    scheme = "openai"
    options_taken: ClassVar[frozenset[str]] = frozenset(("api_key", "headers", "model", "network"))

    def __init__(self, address: Any, options: Mapping[str, Any]) -> None:
        super().__init__(address, options)
        self._network = options.get("network")
        self._peer, self._schemas = UNKNOWN, True

    def prepare(self) -> None:
        """The model may be named by `#`, by the option `model`, or by the path of an Azure deployment."""
        parts = urlsplit(self.address.target)
        path = parts.path
        self._text = path.endswith("/completions") and not path.endswith("/chat/completions")
        for end in ENDS:
            path = path.removesuffix(end)
        self._query = f"?{parts.query}" if parts.query else ""
        base = "/v1" if not parts.path else path.rstrip("/")
        self._base = f"{parts.scheme}://{parts.netloc}{base}"
        host = parts.hostname or ""
        self._peer = next((peer for peer in PEERS if any(host.endswith(end) for end in peer.hosts)), UNKNOWN)
        given = {name for name in (self.address.model, self.options.get("model")) if name}
        if len(given) > 1:
            raise ConfigError(f"{self.address} names one model and model= another")
        deployment = path.partition("/deployments/")[2].partition("/")[0]
        self._model = next(iter(given), deployment)
        if self._peer.name == "azure":
            self._credentials = Credentials(self.options, "api-key", "")

    # ------------------------------------------------------------ opening
    def opening(self, call: Call) -> Flow[ModelInfo]:
        """Ask which models there are. Not every server says, and whoever names a model needn't know."""
        listed = yield from self._listed(call)
        owners = {owner for _, owner in listed}
        if self._peer is UNKNOWN:
            self._peer = next((peer for peer in PEERS if owners & set(peer.owners)), UNKNOWN)
        if not self._model:
            if len(listed) != 1:
                names = ", ".join(name for name, _ in listed[:10]) or "none that it tells"
                raise ConfigError(
                    f"{self.address} has several models, or tells none: {names}",
                    hint=f"Name one: {self.address}#MODEL, or model=",
                )
            self._model = listed[0][0]
        return ModelInfo(name=self._model, verbs=self.verbs(), platform=self._peer.name)

    def _listed(self, call: Call) -> Flow[list[tuple[str, str]]]:
        try:
            reply = yield from self.send(call, self._get("/models"))
            return wire.decode_models(reply.body)
        except (AuthenticationError, PermissionDeniedError, UnavailableError):
            raise
        except (StatusError, ServerError, ModelNotFoundError, ProtocolError):
            return []

    def readiness(self, call: Call) -> Flow[bool]:
        try:
            yield from self.send(call, self._get("/models"))
        except UnavailableError:
            return False
        except (StatusError, ServerError, ModelNotFoundError) as error:
            return error.status in ABSENT  # it is there, and lists no models
        return True

    # ------------------------------------------------------------ verbs
    def generate(self, call: Call, chat: Chat) -> Flow[Spoken]:
        reply = yield from self._tolerant(call, chat, self._generated)
        call.request_id = reply.headers.get(REQUEST_ID)
        return wire.decode_answer(reply.body, chat)

    def _generated(self, call: Call, chat: Chat) -> Flow[Reply]:
        return self.send(call, self._post(self._end(), self._body(chat, stream=False), JSON))

    def stream(self, call: Call, chat: Chat) -> Flow[Spoken]:
        spoken: Spoken = yield from self._tolerant(call, chat, self._streamed)
        return spoken

    def _streamed(self, call: Call, chat: Chat) -> Flow[Spoken]:
        request = self._post(self._end(), self._body(chat, stream=True), SSE)
        return self.open_stream(call, request, lambda reply: _heard(call, chat, reply))

    def embed(self, call: Call, texts: Sequence[str], dimensions: int | None) -> Flow[Embedded]:
        """In as many requests as the texts need, one behind the other."""
        parts = []
        for start in range(0, len(texts), wire.MOST_TEXTS):
            parts.append((yield from self._embedded(call, texts[start : start + wire.MOST_TEXTS], dimensions)))
        return wire.joined(parts)

    def _embedded(self, call: Call, texts: Sequence[str], dimensions: int | None) -> Flow[Embedded]:
        body = wire.encode_embeddings(self._model, texts, dimensions)
        reply = yield from self.send(call, self._post("/embeddings", body, JSON))
        call.request_id = reply.headers.get(REQUEST_ID)
        return wire.decode_embeddings(reply.body, len(texts))

    def refused(self, call: Call, reply: Reply) -> AiaasError:
        """As every peer's, with the codes whose meaning no status has; many servers can chat and not embed."""
        if call.verb == "embed" and reply.status in ABSENT and not wire.means_model(reply.body):
            return UnsupportedOperationError(
                f"{self.address} has no /embeddings: it answered {reply.status}",
                hint="Its models don't embed, or the address's path isn't the one that the API is at",
                status=reply.status,
            )
        return wire.coded_error(reply.body, super().refused(call, reply))

    def _tolerant(self, call: Call, chat: Chat, ask: Any) -> Flow[Any]:
        """Ask; a peer that refuses `response_format` is asked without, and the schema is told in words."""
        if chat.schema is None:
            return (yield from ask(call, chat))
        if self._schemas:
            try:
                return (yield from ask(call, chat))
            except InvalidRequestError as error:
                if "response_format" not in str(error) and "json_schema" not in str(error):
                    raise
                self._schemas = False
        return (yield from ask(call, _in_words(chat)))

    # ------------------------------------------------------------ requests
    def _end(self) -> str:
        return "/completions" if self._text else "/chat/completions"

    def _body(self, chat: Chat, *, stream: bool) -> dict[str, Any]:
        for name in sorted(self._peer.refuses & chat.sampling.keys()):
            if (name, chat.sampling[name]) != ("n", 1):
                raise UnsupportedOperationError(f"{self._peer.name} can't take the option {name!r}")
        if self._text:
            return wire.encode_completion(self._model, chat, stream=stream)
        return wire.encode_chat(self._model, chat, dialect=self._peer.dialect, stream=stream)

    def _get(self, path: str) -> Request:
        return Request("GET", f"{self._base}{path}{self._query}", network=self._network)

    def _post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Request:
        url = f"{self._base}{path}{self._query}"
        return Request("POST", url, headers, (wire.encoded(body),), network=self._network)


def _in_words(chat: Chat) -> Chat:
    from dataclasses import replace

    from aiaas_sdk.records.language import Message

    assert chat.schema is not None
    schema = to_json(chat.schema[1]).decode()
    told = f"Answer with one JSON document, and nothing else, that fits this JSON schema: {schema}"
    return replace(chat, messages=(Message("system", told), *chat.messages), text=None, schema=None)


# ---------------------------------------------------------------- a stream
def _heard(call: Call, chat: Chat, reply: Reply) -> Flow[Spoken]:
    """Emit what comes; give the whole.

    Raises:
        StreamInterruptedError: it ended before its end; what fails before the first content fails as it is, but for
            a stream that just ends.
    """
    answer, events, alike = wire.Assembler(), Events(), Alike()
    call.request_id = reply.headers.get(REQUEST_ID)
    if "json" in reply.headers.get("content-type", "") and "event-stream" not in reply.headers["content-type"]:
        return (yield from _unstreamed(chat, reply))
    heard, limit, data = time.monotonic(), call.attempt_timeout, b"-"
    try:
        while not answer.done:
            data = yield Read(reply, None if limit is None else max(0.0, heard + limit - time.monotonic()))
            data = bytes(data)
            text = alike.text(data) if events.between else None
            for delta in _deltas(data, answer, events, alike) if text is None else answer.more(text):
                yield Emit(delta)
                heard, limit = time.monotonic(), chat.gap
            if not data:
                break
    except AiaasError as error:
        if not answer.begun or isinstance(error, StreamInterruptedError | OutputError):
            raise
        if answer.finished and (not data or isinstance(error, ConnectionLostError | DeadlineExceededError)):
            pass  # all of it had come; without data, an event behind it was cut
        else:
            raise _interrupted(answer, error.message, error) from error
    if not answer.finished:
        raise _interrupted(answer, "the stream ended before its end")
    for delta in answer.calls():
        yield Emit(delta)
    yield from _drained(reply)
    return answer.spoken(chat)


def _deltas(data: bytes, answer: wire.Assembler, events: Events, alike: Alike) -> Iterator[Delta]:
    """What some bytes of a stream say, read in full; no bytes are its end."""
    alone = events.between and lone(data)
    for event in events.feed(data) if data else events.end():
        yield from answer.take(event.data)
    if alone and answer.plain is not None:
        alike.learn(data, answer.plain)


def _interrupted(answer: wire.Assembler, why: str, cause: AiaasError | None = None) -> StreamInterruptedError:
    what = "after its first content" if answer.begun else "without any content"
    return StreamInterruptedError(
        f"the stream was cut {what}: {why}",
        partial=answer.text,
        status=cause.status if cause else None,
        hint="What had come is in .partial; a stream that has begun isn't asked for again",
    )


def _drained(reply: Reply) -> Flow[None]:
    """Read what is behind the end, so that the connection can be used again."""
    try:
        while (yield from read(reply, AFTER)):
            pass
    except AiaasError:
        pass


def _unstreamed(chat: Chat, reply: Reply) -> Flow[Spoken]:
    """A peer that can't stream has answered with the whole."""
    pieces = []
    while piece := (yield from read(reply)):
        pieces.append(bytes(piece))
    spoken = wire.decode_answer(b"".join(pieces), chat)
    from aiaas_sdk.records.language import Delta

    choice = spoken.choices[0]
    yield Emit(Delta(choice.text, choice.reasoning or "", choice.tool_calls))
    return spoken


@hookimpl
def aiaas_backend(scheme: str) -> type[OpenAIBackend]:
    return OpenAIBackend
