"""The operations of training: OpenAI's files, uploads and fine-tuning jobs."""

from __future__ import annotations

from typing import Any

from aiaas_sdk.server.description.parts import ANYWHERE, given, operation, told

__all__ = ["jobs"]

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 1}
_WRITING = (*ANYWHERE, 413, 415, 507)


def jobs() -> dict[str, dict[str, Any]]:
    return {**_files(), **_uploads(), **_jobs()}


def _object(kind: str, **members: Any) -> dict[str, Any]:
    """One of OpenAI's objects, which says of which kind it is; more members may come."""
    known = {"object": {"type": "string", "const": kind}, **members}
    return {"type": "object", "properties": known, "required": list(known)}


_FILE = _object("file", id=_TEXT, bytes={"type": "integer"}, filename=_TEXT, purpose=_TEXT, status=_TEXT)
_UPLOAD = _object("upload", id=_TEXT, bytes={"type": "integer"}, status=_TEXT)
_JOB = _object("fine_tuning.job", id=_TEXT, model=_TEXT, status=_TEXT, training_file=_TEXT, seed={"type": "integer"})
_DELETED = _object("file", id=_TEXT, deleted={"type": "boolean", "const": True})


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return _object("list", data={"type": "array", "items": of}, has_more={"type": "boolean"})


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _query(**schemas: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in schemas.items()]


def _form(field: str) -> dict[str, Any]:
    fields = {field: {"type": "string", "contentMediaType": "application/octet-stream"}}
    needed = [field]
    if field == "file":
        fields["purpose"] = {"type": "string", "const": "fine-tune"}
        needed.append("purpose")
    return given({"type": "object", "properties": fields, "required": needed}, {}, "multipart/form-data")


def _operation(id: str, summary: str, answer: dict[str, Any], **more: Any) -> dict[str, Any]:
    told_so = {"errors": ANYWHERE, "error": "OpenAIError", **more}
    return operation(id, "training", summary, told("as OpenAI has it", answer), **told_so)


def _files() -> dict[str, Any]:
    one = [_in_path("file")]
    content = _operation("fileContent", "A file's bytes", {}, parameters=one)
    content["responses"]["200"] = told("the bytes", {}, "application/octet-stream")
    paging = _query(after=_TEXT, limit=_COUNT, order={"enum": ["asc", "desc"]}, purpose=_TEXT)
    return {
        "/v1/files": {
            "post": _operation("fileCreate", "Upload rows", _FILE, body=_form("file"), errors=_WRITING),
            "get": _operation("fileList", "Your files", _list(_FILE), parameters=paging),
        },
        "/v1/files/{file}": {
            "get": _operation("file", "A file", _FILE, parameters=one),
            "delete": _operation("fileDelete", "Delete a file", _DELETED, parameters=one),
        },
        "/v1/files/{file}/content": {"get": content},
    }


def _uploads() -> dict[str, Any]:
    one = [_in_path("upload")]
    wish = {
        "type": "object",
        "properties": {
            "bytes": _COUNT,
            "filename": _TEXT,
            "purpose": {"type": "string", "const": "fine-tune"},
            "mime_type": _TEXT,
        },
        "required": ["bytes", "purpose"],
    }
    done = {
        "type": "object",
        "properties": {"part_ids": {"type": "array", "items": _TEXT, "minItems": 1}, "md5": _TEXT},
        "required": ["part_ids"],
    }
    part = _object("upload.part", id=_TEXT, upload_id=_TEXT)
    errors = (*_WRITING, 422)
    return {
        "/v1/uploads": {
            "post": _operation("uploadCreate", "Begin an upload", _UPLOAD, body=given(wish, {}), errors=errors)
        },
        "/v1/uploads/{upload}/parts": {
            "post": _operation("uploadPart", "Send a part", part, parameters=one, body=_form("data"), errors=_WRITING)
        },
        "/v1/uploads/{upload}/complete": {
            "post": _operation(
                "uploadComplete", "Make a file of parts", _UPLOAD, parameters=one, body=given(done, {}), errors=_WRITING
            )
        },
        "/v1/uploads/{upload}/cancel": {
            "post": _operation("uploadCancel", "Give an upload up", _UPLOAD, parameters=one)
        },
    }


def _jobs() -> dict[str, Any]:
    base, one = "/v1/fine_tuning/jobs", [_in_path("job")]
    wish = {
        "type": "object",
        "properties": {"model": _TEXT, "training_file": _TEXT, "aiaas": {"type": "object"}},
        "required": ["model", "training_file"],
    }
    event = _object("fine_tuning.job.event", id=_TEXT, message=_TEXT, data={"type": "object"})
    checkpoint = _object("fine_tuning.job.checkpoint", id=_TEXT, step_number={"type": "integer"})
    paging = _query(after=_TEXT, limit=_COUNT)
    ours = _query(order={"enum": ["asc", "desc"]}, wait={"type": "integer", "minimum": 0}, stream={"type": "boolean"})
    events = _operation("jobEvents", "What a job tells", _list(event), parameters=[*one, *paging, *ours])
    events["responses"]["200"]["content"]["text/event-stream; charset=utf-8"] = {"schema": {}}
    errors = (*_WRITING, 422)
    return {
        base: {
            "post": _operation("jobCreate", "Have a model trained", _JOB, body=given(wish, {}), errors=errors),
            "get": _operation("jobList", "Your jobs", _list(_JOB), parameters=paging),
        },
        f"{base}/{{job}}": {"get": _operation("job", "A job", _JOB, parameters=one)},
        f"{base}/{{job}}/cancel": {"post": _operation("jobCancel", "End a job", _JOB, parameters=one)},
        f"{base}/{{job}}/events": {"get": events},
        f"{base}/{{job}}/checkpoints": {
            "get": _operation("jobCheckpoints", "A job's checkpoints", _list(checkpoint), parameters=[*one, *paging])
        },
    }
