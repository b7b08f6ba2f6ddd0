"""OpenAI's files, uploads and fine-tuning jobs as they travel, both ways.

Source: OpenAI's openapi description (`/files`, `/uploads`, `/fine_tuning/jobs`, schemas `OpenAIFile`, `Upload`,
`UploadPart`, `FineTuningJob`, `FineTuningJobEvent`, `FineTuningJobCheckpoint`). What they have no word for stands under
a member `aiaas` of ours: the settings of `fit`, SHA-256 beside MD5, and in an event's `data` what our runs tell.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from aiaas_sdk.articles import with_article
from aiaas_sdk.errors import InputError, ProtocolError, UnsupportedOperationError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.records.training import Event, Fit
from aiaas_sdk.wire.status import clean

__all__ = [
    "CHECKSUM",
    "KEY",
    "PURPOSE",
    "TRAINING",
    "Asked",
    "checkpoint_object",
    "decode",
    "decode_events",
    "decode_job_request",
    "deleted",
    "event_object",
    "event_place",
    "file_object",
    "finite",
    "job_object",
    "line",
    "multipart",
    "page",
    "part_object",
    "upload_object",
]

KEY = "idempotency-key"
"""The header that makes two requests one (draft-ietf-httpapi-idempotency-key-header)."""
CHECKSUM = "aiaas-sha256"
"""The header with the SHA-256 of an uploaded part, in hexadecimal."""
PURPOSE = "fine-tune"
TRAINING = "training"
"""How a server of the Open Inference Protocol announces that it does jobs, and of which models: an extension, and a
parameter of the model's metadata that is true."""

# What of a fit is for the machine that it was written on, and no request may name.
_PATHS = ("checkpoint", "tensorboard")


# ---------------------------------------------------------------- what the server says
def file_object(record: Mapping[str, Any]) -> dict[str, Any]:
    """A file. `record` has id, bytes, created_at, filename, expires_at, sha256."""
    return {
        "id": record["id"],
        "object": "file",
        "bytes": record["bytes"],
        "created_at": record["created_at"],
        "expires_at": record.get("expires_at"),
        "filename": record["filename"],
        "purpose": PURPOSE,
        "status": "processed",
        "aiaas": {"sha256": record["sha256"]},
    }


def upload_object(
    record: Mapping[str, Any], parts: Sequence[Mapping[str, Any]], file: Mapping[str, Any] | None
) -> dict[str, Any]:
    """An upload with what has arrived of it; `file` once it is complete."""
    return {
        "id": record["id"],
        "object": "upload",
        "bytes": record["bytes"],
        "created_at": record["created_at"],
        "expires_at": record["expires_at"],
        "filename": record["filename"],
        "purpose": PURPOSE,
        "status": record["status"],
        "file": None if file is None else file_object(file),
        "aiaas": {"parts": [dict(part) for part in parts]},
    }


def part_object(upload: str, part: Mapping[str, Any], created: int) -> dict[str, Any]:
    """A part of an upload."""
    return {
        "id": part["id"],
        "object": "upload.part",
        "created_at": created,
        "upload_id": upload,
        "aiaas": {"sha256": part["sha256"], "bytes": part["bytes"]},
    }


def job_object(record: Mapping[str, Any]) -> dict[str, Any]:
    """A job."""
    fit = record["fit"]
    hyperparameters = {
        "n_epochs": fit["epochs"],
        "batch_size": fit["batch_size"],
        "learning_rate_multiplier": "auto",
    }
    return {
        "id": record["id"],
        "object": "fine_tuning.job",
        "created_at": record["created_at"],
        "finished_at": record.get("finished_at"),
        "model": record["model"],
        "fine_tuned_model": record.get("fine_tuned_model"),
        "organization_id": "aiaas",
        "status": record["status"],
        "training_file": record["training_file"],
        "validation_file": record.get("validation_file"),
        "hyperparameters": hyperparameters,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "result_files": [],
        "trained_tokens": None,
        "error": record.get("error"),
        "seed": fit["seed"],
        "estimated_finish": record.get("estimated_finish"),
        "integrations": [],
        "user_provided_suffix": record.get("suffix"),
        "metadata": record.get("metadata"),
        "aiaas": {"fit": fit, "version": record.get("version")},
    }


def event_object(job: str, place: int, event: Event) -> dict[str, Any]:
    """An event of a job; `place` counts them from 0."""
    return {
        "object": "fine_tuning.job.event",
        "id": f"ftevent-{job.removeprefix('ftjob-')}-{place}",
        "created_at": int(event["time"]),
        "level": "error" if event.get("status") == "failed" else "info",
        "message": _told(event),
        "type": "metrics" if event.get("metrics") else "message",
        "data": dict(event),
    }


def checkpoint_object(job: str, place: int, event: Event, metrics: Mapping[str, float]) -> dict[str, Any]:
    """A state of a job from which it can go on. It isn't a model that can be asked."""
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": f"ftckpt-{job.removeprefix('ftjob-')}-{place}",
        "created_at": int(event["time"]),
        "fine_tuned_model_checkpoint": f"{job}:step-{event.get('step', 0)}",
        "fine_tuning_job_id": job,
        "step_number": event.get("step", 0),
        "metrics": {"step": event.get("step", 0), **_openai_names(metrics)},
    }


def _openai_names(metrics: Mapping[str, float]) -> dict[str, float]:
    names = {
        "loss": "train_loss",
        "accuracy": "train_mean_token_accuracy",
        "validation_loss": "valid_loss",
        "validation_accuracy": "valid_mean_token_accuracy",
    }
    return {names[name]: value for name, value in metrics.items() if name in names}


def _told(event: Event) -> str:
    kind = event["type"]
    if kind in ("step", "epoch"):
        figures = ", ".join(f"{name} {value:.6g}" for name, value in event.get("metrics", {}).items())
        return f"{kind} {event.get(kind)}: {figures}"
    if kind == "ended":
        error = event.get("error") or {}
        return f"the job {event['status']}" + (f": {error.get('message')}" if error else "")
    return {"started": "the job started", "checkpoint": "a checkpoint was written"}.get(kind, str(kind))


def page(data: Sequence[Mapping[str, Any]], more: bool) -> dict[str, Any]:
    """A page of a list."""
    return {
        "object": "list",
        "data": list(data),
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": more,
    }


def deleted(id: str) -> dict[str, Any]:
    return {"id": id, "object": "file", "deleted": True}


_PLACE = re.compile(r"(?:ftevent-[A-Za-z0-9]+-)?(\d{1,12})")


def event_place(text: str) -> tuple[int, bool]:
    """A cursor among events: a number, and whether it is an event's id (else it is how many are known already)."""
    match = _PLACE.fullmatch(text)
    if match is None:
        raise InputError("after is no event's id, and no number of events", hint="Give an id from the list before")
    return int(match[1]), text != match[1]


# ---------------------------------------------------------------- what is asked of the server
@dataclass(frozen=True, slots=True)
class Asked:
    """A job that is asked for.

    Attributes:
        model, version: which is trained; None for the version that is served.
        training, validation: ids of files.
        fit: the settings, without a seed where none was given.
    """

    model: str
    version: str | None
    training: str
    validation: str | None
    fit: Fit
    suffix: str | None
    metadata: Mapping[str, str] | None


def decode_job_request(document: Any) -> Asked:
    """A request to begin a job.

    Raises:
        InputError, ConfigError, UnsupportedOperationError: it can't be; they say which member.
    """
    if not isinstance(document, dict):
        raise InputError("the request is no JSON object")
    model, at, version = _text(document, "model").rpartition("@")
    if not at:
        model, version = version, ""
    ours = _object(document, "aiaas")
    for name in ("integrations",):
        if document.get(name):
            raise UnsupportedOperationError(f"{name} aren't offered here")
    return Asked(
        model,
        version or None,
        _text(document, "training_file"),
        _text(document, "validation_file") if document.get("validation_file") is not None else None,
        _fit(document, ours),
        _text(document, "suffix")[:64] if document.get("suffix") is not None else None,
        _metadata(document.get("metadata")),
    )


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 512:
        raise InputError(f"{name} is missing, or no text")
    return value


def _object(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{name} is no object")
    return value


def _fit(document: Mapping[str, Any], ours: Mapping[str, Any]) -> Fit:
    settings = {**_hyperparameters(document), **_object(ours, "fit")}
    if document.get("seed") is not None:
        settings["seed"] = document["seed"]
    for name in _PATHS:
        if settings.get(name) is not None:
            raise UnsupportedOperationError(f"{name} is a path, and no request names one")
    fit = Fit.of(settings)
    if fit.workers != 1:
        raise UnsupportedOperationError("a job here runs in one process", hint="Give workers=1")
    return fit


def _hyperparameters(document: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's, where they mean something here; `method` has taken the place of the older member."""
    method = _object(document, "method")
    if method.get("type", "supervised") != "supervised":
        raise UnsupportedOperationError(
            f"the method {clean(str(method['type']), 40)!r} isn't offered", hint="supervised"
        )
    given = {**_object(document, "hyperparameters"), **_object(_object(method, "supervised"), "hyperparameters")}
    found = {}
    for name, value in given.items():
        if value == "auto" or value is None:
            continue
        if name not in _HYPERPARAMETERS:
            raise UnsupportedOperationError(
                f"the hyperparameter {clean(str(name), 60)!r} isn't offered", hint='Leave it out, or give "auto"'
            )
        found[_HYPERPARAMETERS[name]] = value
    return found


_HYPERPARAMETERS = {"n_epochs": "epochs", "batch_size": "batch_size"}


def _metadata(given: Any) -> Mapping[str, str] | None:
    if given is None:
        return None
    pairs = given.items() if isinstance(given, dict) and len(given) <= 16 else [("", None)]
    if not all(isinstance(value, str) and len(key) <= 64 and len(value) <= 512 for key, value in pairs):
        raise InputError("metadata isn't up to 16 pairs of text, of at most 64 and 512 characters")
    return dict(pairs)


# ---------------------------------------------------------------- what the client reads and writes
def decode(body: Buffer, kind: str) -> dict[str, Any]:
    """An object of this kind ("file", "upload", "fine_tuning.job", ...).

    Raises:
        ProtocolError: it is something else.
    """
    try:
        found = from_json(bytes(body))
    except ValueError:
        raise ProtocolError(f"where {with_article(kind)} was expected came something that isn't JSON") from None
    if (
        not isinstance(found, dict)
        or found.get("object") != kind
        or (kind != "list" and not isinstance(found.get("id"), str))
    ):
        raise ProtocolError(f"where {with_article(kind)} was expected came something else")
    return found


def decode_events(body: Buffer) -> list[tuple[int, dict[str, Any]]]:
    """Events with their places, in the order in which they stand in the list."""
    found = []
    for entry in decode(body, "list").get("data", ()):
        data = entry.get("data") if isinstance(entry, dict) else None
        if not isinstance(data, dict) or not isinstance(data.get("type"), str) or not isinstance(entry.get("id"), str):
            raise ProtocolError("an event of the job tells nothing that can be understood")
        try:
            found.append((event_place(entry["id"])[0], data))
        except InputError:
            raise ProtocolError("an event of the job has an id that can't be understood") from None
    return found


def multipart(data: Sequence[Buffer], field: str, filename: str) -> tuple[str, tuple[Buffer, ...]]:
    """A form with one file (RFC 7578): its content type, and its parts."""
    boundary = secrets.token_hex(16)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return f"multipart/form-data; boundary={boundary}", (head.encode(), *data, f"\r\n--{boundary}--\r\n".encode())


def finite(value: Any) -> Any:
    """The value without numbers that JSON hasn't: they become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value


def line(event: Event) -> bytes:
    """An event as one line."""
    return json.dumps(finite(event), allow_nan=False).encode() + b"\n"
