"""The operations by path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiaas_sdk.server.description.examples import Examples
from aiaas_sdk.server.description.jobs import jobs
from aiaas_sdk.server.description.parts import ANYWHERE, ASKING, given, operation, ref, told
from aiaas_sdk.server.parquet import PARQUET

__all__ = ["paths"]

Paths = dict[str, dict[str, Any]]
ONE, PINNED = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
_TEXT = {"type": "string"}
_STREAM = "text/event-stream; charset=utf-8"


def paths(models: Sequence[str], examples: Examples) -> Paths:
    """Of a server with these models, and examples of requests to them."""
    return {
        **_probes(),
        **_server(),
        **_models(models),
        **_infer(models, examples),
        **_instances(models),
        **_openai(models, examples),
        **jobs(),
        **_page(),
    }


def _named(models: Sequence[str], *, pinned: bool = False) -> list[dict[str, Any]]:
    schema: dict[str, Any] = {"type": "string", "enum": list(models)} if models else _TEXT
    found: list[dict[str, Any]] = [{"name": "model", "in": "path", "required": True, "schema": schema}]
    if pinned:
        schema = {"type": "string", "minLength": 1}
        found.append({"name": "version", "in": "path", "required": True, "schema": schema, "example": "1"})
    return found


# ---------------------------------------------------------------- without a model
def _probes() -> Paths:
    live, ready = told("the process answers", ref("Live")), told("every model can serve", ref("AllReady"))
    found: Paths = {}
    for path in ("/livez", "/healthz", "/v2/health/live"):
        found[path] = {"get": operation(f"live{_id(path)}", "probes", "Whether the process lives", live)}
    for path in ("/readyz", "/health", "/v2/health/ready", "/ping"):
        errors = (*ANYWHERE, 503)
        found[path] = {"get": operation(f"ready{_id(path)}", "probes", "Whether it can serve", ready, errors=errors)}
    return found


def _id(path: str) -> str:
    return "".join(part.title() for part in path.split("/"))


def _server() -> Paths:
    plain = {"text/plain; version=0.0.4; charset=utf-8": {"schema": _TEXT}}
    metrics = {**plain, "application/openmetrics-text; version=1.0.0; charset=utf-8": {"schema": _TEXT}}
    index = operation(
        "index",
        "repository",
        "Every version and its state",
        told("a row for each", ref("Index")),
        body=given(ref("IndexRequest"), {"ready": {"ready": True}}, needed=False),
        errors=(*ANYWHERE, 413, 415),
    )
    server = told("its name, version and extensions", ref("Server"))
    return {
        "/v2": {"get": operation("server", "models", "What the server is", server)},
        "/v2/": {"get": operation("serverToo", "models", "What the server is", server)},
        "/v2/models": {"get": operation("models", "models", "Their names", told("the names", ref("Models")))},
        "/v2/repository/index": {"post": index},
        "/version": {
            "get": operation(
                "version", "probes", "The server's version", told("it", _TEXT, "text/plain; charset=utf-8")
            )
        },
        "/metrics": {
            "get": operation(
                "metrics", "probes", "Counts for Prometheus", {"description": "the metrics", "content": metrics}
            )
        },
        "/openapi.json": {"get": operation("description", "probes", "This document", told("it", {"type": "object"}))},
    }


def _page() -> Paths:
    files = ("text/html; charset=utf-8", "text/css; charset=utf-8", "text/javascript; charset=utf-8", "image/svg+xml")
    alive = {"application/json": {"schema": ref("Alive")}, files[0]: {"schema": _TEXT}}
    name = {"name": "name", "in": "path", "required": True, "schema": _TEXT, "example": "index.html"}
    either = {"description": "the page for a browser, else that somebody is here", "content": alive}
    file = {"description": "the file", "content": {media: {"schema": {}} for media in files}}
    return {
        "/": {"get": operation("root", "page", "The page", either)},
        "/page/{name}": {"get": operation("file", "page", "A file of the page", file, parameters=[name])},
        "/overview": {"get": operation("overview", "page", "What the page shows", told("the models", ref("Overview")))},
    }


# ---------------------------------------------------------------- of a model
def _models(models: Sequence[str]) -> Paths:
    asked = (*ANYWHERE, 500, 502, 503, 504)
    found: Paths = {
        "/v2/models/stats": {
            "get": operation("statistics", "models", "Counts of all", told("the counts", ref("Statistics")))
        }
    }
    for path, pinned in ((ONE, False), (PINNED, True)):
        named, end = _named(models, pinned=pinned), "OfVersion" if pinned else ""
        for part, id, summary, schema in (
            ("", "metadata", "Its inputs and outputs", "Metadata"),
            ("/ready", "modelReady", "Whether it can serve", "Ready"),
            ("/config", "config", "Its configuration, as Triton tells it", "Config"),
            ("/stats", "modelStatistics", "Its counts", "Statistics"),
        ):
            answer = told("what is known", ref(schema))
            made = operation(id + end, "models", summary, answer, parameters=named, errors=asked)
            found[path + part] = {"get": made}
    for verb in ("load", "unload"):
        body = given(ref("LoadRequest"), {}, needed=False)
        made = operation(
            f"{verb}Model",
            "repository",
            f"{verb.title()} it, where clients may",
            told("done", ref("Loaded")),
            parameters=_named(models),
            body=body,
            errors=ASKING,
        )
        found[f"/v2/repository/models/{{model}}/{verb}"] = {"post": made}
    return found


def _infer(models: Sequence[str], examples: Examples) -> Paths:
    found: Paths = {}
    for path, pinned in ((ONE, False), (PINNED, True)):
        named, end = _named(models, pinned=pinned), "OfVersion" if pinned else ""
        answer = told("the outputs", ref("InferResponse"))
        answer["content"]["application/octet-stream"] = {"schema": {}}
        length: dict[str, Any] = {"name": "Inference-Header-Content-Length", "in": "header", "schema": _TEXT}
        length["description"] = "bytes of JSON before binary tensors; without it the whole body is JSON"
        for verb, summary, tried in (
            ("infer", "Outputs for inputs", examples.get("InferRequest", {})),
            ("explain", "How much each input counts for an output", {}),
        ):
            body = given(ref("InferRequest"), tried)
            body["content"]["application/octet-stream"] = {"schema": {}}  # JSON, and tensors behind it
            id, parameters = verb + end, [*named, length]
            made = operation(id, "models", summary, answer, parameters=parameters, body=body, errors=ASKING)
            found[f"{path}/{verb}"] = {"post": made}
        words = given(ref("GenerateRequest"), examples.get("GenerateRequest", {}))
        for verb, text in (
            ("generate", told("the text", ref("Generated"))),
            ("generate_stream", told("an event for each piece", {}, _STREAM)),
        ):
            id = verb.replace("_s", "S") + end
            made = operation(id, "language", "Continue a text", text, parameters=named, body=words, errors=ASKING)
            found[f"{path}/{verb}"] = {"post": made}
    return found


def _instances(models: Sequence[str]) -> Paths:
    """KServe's V1, and /invocations."""
    found: Paths = {}
    for middle, pinned in (("", False), ("/versions/{version}", True)):
        for verb in ("predict", "explain"):
            made = operation(
                f"{verb}Rows" + ("OfVersion" if pinned else ""),
                "instances",
                f"{verb.title()} rows",
                told("an answer for each", ref("Predictions" if verb == "predict" else "Explanations")),
                parameters=_named(models, pinned=pinned),
                body=given(ref("Instances"), {"rows": {"instances": [[0, 0, 0]]}}),
                errors=ASKING,
            )
            found[f"/v1/models/{{model}}{middle}:{verb}"] = {"post": made}
    body = given({"type": "object"}, {"rows": {"instances": [[0, 0, 0]]}})
    answer = told("what the form of the request calls for", {})
    for media in ("text/csv", "application/x-npy"):
        body["content"][media] = {"schema": {}}
        answer["content"][media] = {"schema": {}}
    for media in PARQUET:
        body["content"][media] = {"schema": {}}
    target = {"name": "X-Amzn-SageMaker-Target-Model", "in": "header", "schema": {"type": "string"}}
    found["/invocations"] = {
        "post": operation(
            "invocations",
            "instances",
            "Any form, told by its Content-Type and members",
            answer,
            parameters=[target],
            body=body,
            errors=(*ASKING, 406),
            error="InvocationError",
        )
    }
    return found


def _openai(models: Sequence[str], examples: Examples) -> Paths:
    listed = told("the models", ref("ModelList"))
    one = operation(
        "model",
        "language",
        "Whether it can serve",
        told("it can", ref("Model")),
        parameters=_named(models),
        errors=(*ANYWHERE, 502, 503, 504),
        error="OpenAIError",
    )
    found: Paths = {
        "/v1/models": {"get": operation("modelList", "language", "The models", listed, error="OpenAIError")},
        "/v1/models/{model}": {"get": one},
    }
    for path, id, request, answer, streams in (
        ("chat/completions", "chat", "ChatRequest", "Chat", True),
        ("completions", "completion", "CompletionRequest", "Completion", True),
        ("embeddings", "embedding", "EmbeddingRequest", "EmbeddingList", False),
    ):
        come = told("the answer", ref(answer))
        if streams:
            come["content"][_STREAM] = {"schema": {}}
        made = operation(
            id,
            "language",
            f"As OpenAI's /{path}",
            come,
            body=given(ref(request), examples.get(request, {})),
            errors=ASKING,
            error="OpenAIError",
        )
        found[f"/v1/{path}"] = {"post": made}
    return found
