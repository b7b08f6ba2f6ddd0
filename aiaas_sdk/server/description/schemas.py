"""The forms of bodies. Requests are open: members that nobody knows are passed over, as the protocols have it."""

from __future__ import annotations

from typing import Any

from aiaas_sdk.server.description.parts import ref
from aiaas_sdk.tensors import DATATYPES

__all__ = ["SCHEMAS"]

TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "number"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
ARRAY: dict[str, Any] = {"type": "array"}
OBJECT: dict[str, Any] = {"type": "object"}


def _object(needed: str, **members: Any) -> dict[str, Any]:
    """An object with these members; those named in `needed` are always there."""
    found: dict[str, Any] = {"type": "object", "properties": members}
    return {**found, "required": needed.split()} if needed else found


def _request(needed: str, **members: Any) -> dict[str, Any]:
    """As `_object`; what may be left out may be null, too."""
    names = needed.split()
    return _object(needed, **{name: one if name in names else _or_null(one) for name, one in members.items()})


def _list(of: Any, least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": of} | ({"minItems": least} if least else {})


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _always(value: str) -> dict[str, Any]:
    return {"type": "string", "const": value}


_SPEC = _object("name datatype shape", name=TEXT, datatype=TEXT, shape=_list({"type": "integer", "minimum": -1}))
_TEXTS = {"anyOf": [{"type": "string"}, _list(TEXT, 1)]}
_BINARY_SIZE = _object("", binary_data_size=COUNT)
_DATATYPE = {"type": "string", "enum": list(DATATYPES)}
_ORDER = "values in row-major order, flat or nested"
_ID = {"anyOf": [{"type": "string", "maxLength": 256}, {"type": "integer"}]}
_FINISHED = {"type": "string", "enum": ["stop", "length", "tool_calls", "content_filter"]}
_ENTRY = {"id": TEXT, "object": _always("model"), "created": COUNT, "owned_by": TEXT}
_STAT = ref("Stat")

_TENSORS: dict[str, Any] = {
    "Error": _object("error", error={"type": "string", "minLength": 1}) | {"additionalProperties": False},
    "Server": _object("name version extensions", name=TEXT, version=TEXT, extensions=_list(TEXT)),
    "Models": _object("models", models=_list(TEXT)),
    "Ready": _object("name ready", name=TEXT, ready={"const": True}),
    "Metadata": _object(
        "name versions platform inputs outputs",
        **{"name": TEXT, "versions": _list(TEXT), "platform": TEXT},
        **{"inputs": _list(_SPEC), "outputs": _list(_SPEC), "parameters": OBJECT},
    ),
    "Input": _request(
        "name shape datatype",
        name=TEXT,
        shape=_list(COUNT),
        datatype=_DATATYPE,
        data={"type": "array", "description": _ORDER},
        parameters=_BINARY_SIZE,
    ),
    "Output": _object(
        "name shape datatype",
        name=TEXT,
        shape=_list(COUNT),
        datatype=_DATATYPE,
        data={"type": "array", "description": _ORDER},
        parameters=_BINARY_SIZE,
    ),
    "InferRequest": _request(
        "inputs",
        id=TEXT,
        inputs=_list(ref("Input"), 1),
        outputs=_list(_request("name", name=TEXT, parameters=_request("", binary_data={"type": "boolean"}))),
        parameters=_request("", binary_data_output={"type": "boolean"}, timeout=COUNT),
    ),
    "InferResponse": _object(
        "model_name outputs", model_name=TEXT, model_version=TEXT, id=TEXT, outputs=_list(ref("Output"))
    ),
    "Config": _object(
        "name platform max_batch_size input output",
        **{"name": TEXT, "platform": TEXT, "backend": TEXT, "max_batch_size": COUNT},
        **{"input": _list(OBJECT), "output": _list(OBJECT)},
    ),
    "Stat": _object("count ns", count=COUNT, ns=COUNT),
    "Statistics": _object(
        "model_stats",
        model_stats=_list(
            _object(
                "name version inference_count execution_count inference_stats",
                **{"name": TEXT, "version": TEXT, "last_inference": COUNT},
                **{"inference_count": COUNT, "execution_count": COUNT},
                inference_stats=_object("success fail queue", success=_STAT, fail=_STAT, queue=_STAT),
            )
        ),
    ),
    "Index": _list(
        _object(
            "name state",
            **{"name": TEXT, "version": TEXT, "reason": TEXT},
            state={"type": "string", "enum": ["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]},
        )
    ),
    "IndexRequest": _request("", ready={"type": "boolean"}),
    "Loaded": _object("name", name=TEXT),
    "LoadRequest": _object("", parameters=_object("", unload_dependents={})),
    "GenerateRequest": _request("text_input", id=_ID, text_input={"type": "string", "minLength": 1}, parameters=OBJECT),
    "Generated": _object("model_name model_version text_output", model_name=TEXT, model_version=TEXT, text_output=TEXT),
}

_OTHERS: dict[str, Any] = {
    "Alive": _object("status", status=_always("alive")),
    "Live": _object("live", live={"const": True}),
    "AllReady": _object("ready", ready={"const": True}),
    "Instances": {"type": "object", "anyOf": [{"required": ["instances"]}, {"required": ["inputs"]}]},
    "Predictions": _object("predictions", predictions={}),
    "Explanations": _object("explanations", explanations={}),
    "InvocationError": _object("error_code message", error_code=TEXT, message=TEXT) | {"additionalProperties": False},
    "Overview": _object("server models", server=TEXT, models=_list(OBJECT)),
}

_LANGUAGE: dict[str, Any] = {
    "OpenAIError": _object(
        "error",
        error=_object(
            "message type param code", message=TEXT, type=TEXT, param=_or_null(TEXT), code=_or_null(TEXT), output=TEXT
        ),
    ),
    "Model": _object("id object created owned_by ready", **_ENTRY, name=TEXT, ready={"const": True}),
    "ModelList": _object(
        "object data models",
        object=_always("list"),
        data=_list(_object("id object created owned_by", **_ENTRY)),
        models=_list(TEXT),
    ),
    "Usage": _object(
        "prompt_tokens completion_tokens total_tokens",
        **{"prompt_tokens": COUNT, "completion_tokens": COUNT, "total_tokens": COUNT},
    ),
    "Message": _object(
        "role",
        role={"type": "string", "enum": ["system", "developer", "user", "assistant", "tool"]},
        content={"anyOf": [TEXT, ARRAY, {"type": "null"}]},
    ),
    "ChatRequest": _request(
        "model messages",
        **{"model": TEXT, "messages": _list(ref("Message"), 1), "stream": {"type": "boolean"}},
        **{"temperature": NUMBER, "top_p": NUMBER, "seed": {"type": "integer"}, "n": {"type": "integer"}},
        **{"max_tokens": {"type": "integer"}, "stop": {}, "tools": _list(OBJECT), "response_format": OBJECT},
    ),
    "Chat": _object(
        "id object created model choices",
        **{"id": TEXT, "object": _always("chat.completion"), "created": COUNT, "model": TEXT, "usage": ref("Usage")},
        choices=_list(
            _object(
                "index message finish_reason",
                index=COUNT,
                message=_object("role content", role=_always("assistant"), content=_or_null(TEXT), tool_calls=ARRAY),
                finish_reason=_FINISHED,
            ),
            1,
        ),
    ),
    "CompletionRequest": _request(
        "model prompt",
        **{"model": TEXT, "prompt": _TEXTS, "stream": {"type": "boolean"}, "max_tokens": {"type": "integer"}},
        **{"temperature": NUMBER, "top_p": NUMBER, "seed": {"type": "integer"}, "n": {"type": "integer"}, "stop": {}},
    ),
    "Completion": _object(
        "id object created model choices",
        **{"id": TEXT, "object": _always("text_completion"), "created": COUNT, "model": TEXT, "usage": ref("Usage")},
        choices=_list(_object("index text finish_reason", index=COUNT, text=TEXT, finish_reason=_FINISHED), 1),
    ),
    "EmbeddingRequest": _request(
        "model input",
        model=TEXT,
        input=_TEXTS,
        dimensions={"type": "integer", "minimum": 1},
        encoding_format={"type": "string", "enum": ["float", "base64"]},
    ),
    "EmbeddingList": _object(
        "object data model",
        object=_always("list"),
        model=TEXT,
        data=_list(
            _object(
                "object index embedding",
                **{"object": _always("embedding"), "index": COUNT, "embedding": {"anyOf": [_list(NUMBER), TEXT]}},
            )
        ),
        usage=_object("prompt_tokens total_tokens", prompt_tokens=COUNT, total_tokens=COUNT),
    ),
}

SCHEMAS: dict[str, Any] = {**_TENSORS, **_OTHERS, **_LANGUAGE}
