"""What a request of OpenAI's API asks for: its JSON document, checked, as the arguments of a verb.

Members that nobody knows are passed over, as OpenAI does it; one that would change the answer and isn't offered is
refused. A refusal names the member (`param`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import InputError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.prompts import messages_of, sampling_of
from aiaas_sdk.records.chat import ToolSpec
from aiaas_sdk.records.language import Prompt
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.tools import Toolbox

__all__ = ["Embedding", "Question", "chat", "completion", "document", "embedding"]

PARTS = ("role", "content", "tool_calls", "tool_call_id", "name")
"""The members of a message that are handed on: clients send back whole answers, with what else stood in them."""
MOST_TEXTS = 2_048
"""Texts that one request may bring: OpenAI's number for the inputs of /embeddings, and here for prompts, too."""
OPTIONS = ("temperature", "top_p", "top_k", "max_tokens", "stop", "seed", "n")
NEUTRAL: Mapping[str, Sequence[Any]] = {
    "audio": (),
    "best_of": (1,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": (),
    "functions": (),
    "grammar": (),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "ignore_eos": (False,),
    "logit_bias": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "repetition_penalty": (1,),
    "stop_token_ids": ([],),
    "structured_outputs": (),
    "suffix": ("",),
    "web_search_options": (),
}
"""What would change the answer and isn't offered, with the values that say nothing."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request for text.

    Attributes:
        model: the name of the model.
        prompts: what is to be answered: messages, or texts, each of which gets its answer.
        sampling: the options of `Sampling` that were given.
        tools: what the model may ask for.
        output: the JSON schema of the answer.
        stream: it is wanted piece by piece; usage: and then its tokens, in a piece of their own.
    """

    model: str
    prompts: tuple[Prompt, ...]
    sampling: Mapping[str, Any]
    tools: tuple[ToolSpec, ...] = ()
    output: Mapping[str, Any] | None = None
    stream: bool = False
    usage: bool = False


@dataclass(frozen=True, slots=True)
class Embedding:
    """A request for vectors; `packed` ones are base64 of little-endian float32."""

    model: str
    texts: tuple[str, ...]
    dimensions: int | None = None
    packed: bool = field(default=False)


def document(body: Buffer) -> dict[str, Any]:
    """The body as the object that it is.

    Raises:
        RefusedError: 400, it is none.
    """
    try:
        found = from_json(bytes(body))
    except ValueError as error:
        raise RefusedError(400, f"the body isn't JSON: {error}") from None
    if not isinstance(found, dict):
        raise RefusedError(400, "the body isn't a JSON object")
    return found


def chat(asked: Mapping[str, Any]) -> Question:
    """POST /chat/completions."""
    messages = _needed(asked, "messages", list, "a list of messages")
    with _about("messages"):
        prompt = messages_of([_told(message) for message in messages])
    return _question(asked, (prompt,), _chat_logprobs(asked), tools=_tools(asked), output=_output(asked))


def completion(asked: Mapping[str, Any]) -> Question:
    """POST /completions: one text or several."""
    prompt = _texts(asked, "prompt")
    count = asked.get("logprobs")
    if count is not None and type(count) is not int:
        raise _wrong("logprobs", count, "a whole number")
    return _question(asked, prompt, {} if count is None else {"logprobs": count})


def embedding(asked: Mapping[str, Any]) -> Embedding:
    """POST /embeddings."""
    encoding = _given(asked, "encoding_format", str, "a text") or "float"
    if encoding not in ("float", "base64"):
        raise _wrong("encoding_format", encoding, '"float" or "base64"')
    dimensions = asked.get("dimensions")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise _wrong("dimensions", dimensions, "a whole number from 1 on")
    return Embedding(_model(asked), _texts(asked, "input"), dimensions, encoding == "base64")


# ---------------------------------------------------------------- members
def _question(
    asked: Mapping[str, Any], prompts: tuple[Prompt, ...], logprobs: Mapping[str, Any], **more: Any
) -> Question:
    model = _model(asked)
    _check_offered(asked)
    sampling = {**_sampling(asked), **_checked("logprobs", logprobs)}
    stream = bool(_given(asked, "stream", bool, "true or false"))
    options = _given(asked, "stream_options", dict, "an object")
    if options is not None and not stream:
        raise RefusedError(400, "stream_options stands without stream", param="stream_options")
    if stream and sampling.get("n", 1) != 1:
        raise RefusedError(400, "a stream has one answer; leave n or stream out", param="n")
    if stream and len(prompts) != 1:
        raise RefusedError(400, "a stream has one prompt", param="prompt")
    usage = bool((options or {}).get("include_usage"))
    return Question(model, prompts, sampling, stream=stream, usage=usage, **more)


def _model(asked: Mapping[str, Any]) -> str:
    name: str = _needed(asked, "model", str, "the name of a model")
    return name


def _check_offered(asked: Mapping[str, Any]) -> None:
    for name, neutral in NEUTRAL.items():
        value = asked.get(name)
        if value is not None and value not in neutral:
            raise RefusedError(400, f"{name} isn't offered here; leave it out", param=name)


def _sampling(asked: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: asked[name] for name in OPTIONS if asked.get(name) not in (None, [])}
    newer = asked.get("max_completion_tokens")
    if newer is not None and "max_tokens" in found:
        raise RefusedError(400, "max_tokens and max_completion_tokens are the same; give one", param="max_tokens")
    checked = {name: value for option in found.items() for name, value in _checked(option[0], dict([option])).items()}
    return checked | ({} if newer is None else _checked("max_completion_tokens", {"max_tokens": newer}))


def _checked(param: str, option: Mapping[str, Any]) -> dict[str, Any]:
    with _about(param):
        return sampling_of(option)


def _chat_logprobs(asked: Mapping[str, Any]) -> dict[str, Any]:
    wanted, others = _given(asked, "logprobs", bool, "true or false"), asked.get("top_logprobs")
    if others is not None and not wanted:
        raise RefusedError(400, "top_logprobs stands without logprobs", param="top_logprobs")
    return {"logprobs": others or 0} if wanted else {}


def _told(message: Any) -> Any:
    """A message without what isn't handed on, its texts as texts."""
    if not isinstance(message, Mapping):
        return message
    told = {name: message[name] for name in PARTS if message.get(name) is not None}
    if isinstance(content := told.get("content"), list):
        told["content"] = [_text(part) for part in content]
    if message.get("function_call") is not None:
        raise InputError("a message holds a function_call", hint="Give tool_calls")
    return told


def _text(part: Any) -> Any:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    return part


def _tools(asked: Mapping[str, Any]) -> tuple[ToolSpec, ...]:
    tools = _given(asked, "tools", list, "a list of tools")
    choice = asked.get("tool_choice")
    if choice not in (None, "auto", "none"):
        raise RefusedError(400, 'tool_choice is offered as "auto" or "none" only', param="tool_choice")
    if not tools or choice == "none":
        return ()
    if asked.get("parallel_tool_calls") is False:
        raise RefusedError(400, "parallel_tool_calls can't be forbidden here", param="parallel_tool_calls")
    with _about("tools"):
        for tool in tools:
            if not isinstance(tool, Mapping):
                raise InputError(f"a tool is {kind_of(tool)}")
        return Toolbox(tools).specs


def _output(asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The JSON schema of `response_format`, under the name and with the description that stand beside it."""
    wanted = _given(asked, "response_format", dict, "an object")
    kind = None if wanted is None else wanted.get("type")
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    told = wanted.get("json_schema")
    if kind != "json_schema" or not isinstance(told, Mapping):
        raise _wrong("response_format", kind, '{"type": "text"}, "json_object" or "json_schema", with its json_schema')
    schema = told.get("schema")
    if not isinstance(schema, Mapping):
        raise RefusedError(400, "response_format has no schema", param="response_format")
    beside = {"title": told.get("name"), "description": told.get("description")}
    return {**{name: text for name, text in beside.items() if isinstance(text, str)}, **schema}


def _texts(asked: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A text, or some; OpenAI takes tokens too, and a model here has others than theirs."""
    value = asked.get(name)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise _wrong(name, value, "a text, or a list of texts")
    if len(texts) > MOST_TEXTS:
        raise RefusedError(400, f"{name} has {len(texts)} texts; send at most {MOST_TEXTS} at once", param=name)
    if all(type(text) is int or isinstance(text, list) for text in texts):
        told = f"{name} is given as tokens, and this server takes texts (langchain: check_embedding_ctx_length=False)"
        raise RefusedError(400, told, param=name)
    for text in texts:
        if not isinstance(text, str):
            raise _wrong(name, text, "a text, or a list of texts")
    return tuple(texts)


# ---------------------------------------------------------------- parts
def _given(asked: Mapping[str, Any], name: str, kind: type[Any], wanted: str) -> Any:
    value = asked.get(name)
    if value is not None and not isinstance(value, kind):
        raise _wrong(name, value, wanted)
    return value


def _needed(asked: Mapping[str, Any], name: str, kind: type[Any], wanted: str) -> Any:
    value = _given(asked, name, kind, wanted)
    if value is None or value == "":
        raise RefusedError(400, f"{name} is missing; it is {wanted}", param=name)
    return value


def _wrong(name: str, value: Any, wanted: str) -> RefusedError:
    shown = f"{value!r}"[:80] if isinstance(value, str | int | float) else kind_of(value)
    return RefusedError(400, f"{name} is {'missing' if value is None else shown}; it is {wanted}", param=name)


@contextlib.contextmanager
def _about(param: str) -> Iterator[None]:
    """What is wrong inside is told as being this member's fault."""
    try:
        yield
    except InputError as error:
        told = f"{error.message}. {error.hint}" if error.hint else error.message
        raise RefusedError(400, told, param=param) from None
