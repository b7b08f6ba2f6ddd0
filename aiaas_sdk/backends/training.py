"""`fit` on an endpoint: rows are uploaded, a job begins there, and its events come back.

On the wire it is OpenAI's uploads and fine-tuning jobs (`wire.jobs`). Nothing is sent twice: an upload is known by the
SHA-256 of its rows, so that after a broken connection, or in another process, only the parts that are missing go; and
a job has a key, so that it begins once however often it is asked for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from urllib.parse import quote

from aiaas_sdk import errors
from aiaas_sdk.backends.base import RemoteBackend
from aiaas_sdk.errors import (
    AiaasError,
    CircuitOpenError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    ProtocolError,
    TLSError,
    TrainingError,
    UnavailableError,
    UnsupportedOperationError,
)
from aiaas_sdk.flow import Buffer, Flow, Reply, Request, run, sleep
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.network import Network
from aiaas_sdk.records.training import Event, Fit
from aiaas_sdk.rows import Data, Rows
from aiaas_sdk.runs import Log
from aiaas_sdk.wire import jobs as wire

__all__ = ["Endpoint", "There", "Trained"]

logger = logging.getLogger("aiaas_sdk.training")

PART = 16 * 1024**2
"""Bytes of a part of an upload; OpenAI's bound is 64 MB. After a broken connection at most so many are sent again."""
KEPT = 7 * 24 * 3600
"""Seconds for which the endpoint keeps the rows: a run that was cancelled or failed can be gone on with."""
WAIT = 20.0
"""Seconds for which the endpoint may wait for an event before it answers that there is none."""
PATIENCE = 300.0
"""Seconds for which a run is still watched whose endpoint can't be reached: jobs survive its restart."""
PAUSES = 0.2, 5.0
"""Seconds of the first and of the longest pause in that time."""
SILENT = 60.0
"""Seconds after which an attempt to hear of a run is given up, where the model has no `attempt_timeout`."""
_JSON = {"content-type": "application/json"}
_PASSING = (ConnectError, ConnectionLostError, UnavailableError, CircuitOpenError, DeadlineExceededError)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where jobs are begun.

    Attributes:
        base: the URL that OpenAI's paths follow ("https://host/v1").
        model: its name there, with its version where one is pinned ("digits@2").
        address: of the model without a version; what a run made is `address`/versions/N.
        network: how it is reached.
    """

    base: str
    model: str
    address: str


class Trained(RemoteBackend):
    """A backend whose endpoint may do jobs."""

    idempotent: ClassVar[frozenset[str]] = RemoteBackend.idempotent | {"job"}

    def endpoint(self) -> Endpoint:
        """Where jobs are begun."""
        raise NotImplementedError

    def unsupported(self, verb: str) -> UnsupportedOperationError:
        error = super().unsupported(verb)
        if verb == "fit":
            can = ", ".join(sorted(self.able() - {"fit"}))
            error.hint = (
                "This endpoint does no training jobs for this model, or not for this key; `aiaas serve --jobs FOLDER` "
                f"does, for keys of `aiaas keys add NAME --training`. It can {can}"
            )
        return error

    def fit(self, call: Call, fit: Fit, data: Data) -> Flow[There]:
        """Upload the rows, and begin a job."""
        document, sides = _travelling(fit), _files(data)
        endpoint, asking = self.endpoint(), _Asking(self, call)
        files = []
        for parts in sides:
            files.append((yield from _uploaded(asking, endpoint, parts)))
        wish = {
            "model": endpoint.model,
            "training_file": files[0],
            "aiaas": {"fit": document},
            **({"validation_file": files[1]} if len(files) > 1 else {}),
        }
        headers = {**_JSON, wire.KEY: uuid.uuid4().hex}
        reply = yield from asking.send(
            "POST", f"{endpoint.base}/fine_tuning/jobs", headers, (json.dumps(wish).encode(),)
        )
        job = wire.decode(reply.body, "fine_tuning.job")
        return There(asking, endpoint, job["id"])


class _Asking:
    """Requests about jobs, each with the policies of the call that began it all."""

    def __init__(self, backend: RemoteBackend, call: Call) -> None:
        self._backend, self._call = backend, call

    def send(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: tuple[Buffer, ...] = ()
    ) -> Flow[Reply]:
        call = replace(self._call, verb="job", attempts=0)
        request = Request(method, url, headers or {}, body, network=self._network)
        try:
            return (yield from self._backend.send(call, request))
        finally:
            self._call.attempts += call.attempts

    @property
    def _network(self) -> Network | None:
        found: Network | None = self._backend.options.get("network")
        return found

    def patience(self, seconds: float) -> int:
        """Whole seconds for which the endpoint may hold back an answer: well within what one attempt may take."""
        return int(min(seconds, (self._call.attempt_timeout or float("inf")) / 2))

    def later(self) -> _Asking:
        """For what is asked after the call has ended; each wait has a deadline of its own."""
        patience = self._call.attempt_timeout or SILENT
        return _Asking(self._backend, replace(self._call, deadline=None, attempt_timeout=patience))


# ---------------------------------------------------------------- what can travel
def _travelling(fit: Fit) -> dict[str, Any]:
    """The settings as they are sent.

    Raises:
        UnsupportedOperationError: one can't be; nothing was sent yet.
    """
    for name, why in (("checkpoint", "a folder of this machine"), ("tensorboard", "a folder of this machine")):
        if getattr(fit, name) is not None:
            raise UnsupportedOperationError(
                f"{name} is {why}, and the endpoint keeps what it needs itself", hint=f"Leave {name} out"
            )
    if fit.workers != 1:
        raise UnsupportedOperationError("a job on an endpoint runs in one process", hint="Leave workers out")
    return fit.document()


def _files(data: Data) -> list[tuple[Buffer, ...]]:
    """The rows, and those of the validation, as files."""
    from aiaas_sdk.wire import rowfile  # and numpy's readers with it: most models are never trained

    found = []
    for rows in (data.training, data.validation):
        if rows is None:
            continue
        if not isinstance(rows, Rows):
            raise UnsupportedOperationError(
                "a dataset, a loader or an iterable can't be sent to an endpoint", hint="Give arrays, or a file of them"
            )
        found.append(rowfile.encode(rowfile.named(rows.inputs, rows.targets)))
    return found


# ---------------------------------------------------------------- uploading
def _uploaded(asking: _Asking, endpoint: Endpoint, file: Sequence[Buffer]) -> Flow[str]:
    """Upload a file, as far as it isn't there yet; its id."""
    sha256, md5 = yield from run(lambda: _digests(file))
    size = sum(map(_size, file))
    wish = {
        "purpose": wire.PURPOSE,
        "filename": "rows.safetensors",
        "bytes": size,
        "mime_type": "application/octet-stream",
        "expires_after": {"anchor": "created_at", "seconds": KEPT},
    }
    headers = {**_JSON, wire.KEY: f"sha256-{sha256}"}
    uploads = f"{endpoint.base}/uploads"
    reply = yield from asking.send("POST", uploads, headers, (json.dumps(wish).encode(),))
    upload = wire.decode(reply.body, "upload")
    if upload["status"] != "completed":
        where = f"{uploads}/{quote(upload['id'], safe='')}"
        ids = yield from _parts(asking, where, file, size, _there(upload))
        done = {"part_ids": ids, "md5": md5, "aiaas": {"sha256": sha256}}
        reply = yield from asking.send("POST", f"{where}/complete", _JSON, (json.dumps(done).encode(),))
        upload = wire.decode(reply.body, "upload")
    found = upload.get("file")
    id = found.get("id") if isinstance(found, dict) else None
    if not isinstance(id, str):
        raise ProtocolError("a complete upload names no file")
    return id


def _there(upload: Mapping[str, Any]) -> dict[str, str]:
    """The parts that have arrived: ids by SHA-256."""
    ours = upload.get("aiaas")
    parts = ours.get("parts") if isinstance(ours, Mapping) else None
    return {part["sha256"]: part["id"] for part in parts or ()}


def _parts(asking: _Asking, where: str, file: Sequence[Buffer], size: int, there: Mapping[str, str]) -> Flow[list[str]]:
    """Send the parts that are missing; the ids of all, in order."""
    ids, sent = [], 0
    for piece in _cut(file, PART):
        sha256 = hashlib.sha256()
        for view in piece:
            sha256.update(view)
        digest = sha256.hexdigest()
        if (id := there.get(digest)) is None:
            kind, body = wire.multipart(piece, "data", "part")
            headers = {"content-type": kind, wire.CHECKSUM: digest}
            reply = yield from asking.send("POST", f"{where}/parts", headers, body)
            id = wire.decode(reply.body, "upload.part")["id"]
        ids.append(id)
        sent += sum(map(_size, piece))
        logger.info("uploaded %.1f of %.1f MiB of rows", sent / 1024**2, size / 1024**2)
    return ids


def _digests(file: Sequence[Buffer]) -> tuple[str, str]:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    for part in file:
        sha256.update(part)
        md5.update(part)
    return sha256.hexdigest(), md5.hexdigest()


def _size(part: Buffer) -> int:
    return memoryview(part).nbytes


def _cut(file: Sequence[Buffer], size: int) -> Iterator[list[memoryview]]:
    """Pieces of so many bytes, as views of the parts."""
    piece: list[memoryview] = []
    room = size
    for part in [memoryview(part) for part in file]:
        while len(part):
            piece.append(part[:room])
            part = part[len(piece[-1]) :]
            room -= len(piece[-1])
            if not room:
                yield piece
                piece, room = [], size
    if piece:
        yield piece


# ---------------------------------------------------------------- watching
class There:
    """A run that is a job on an endpoint: see `aiaas_sdk.runs.Source`."""

    remote: ClassVar[bool] = True

    def __init__(self, asking: _Asking, endpoint: Endpoint, id: str) -> None:
        self.id, self.log = id, Log()
        self.failure: BaseException | None = None
        self._asking, self._endpoint = asking.later(), endpoint
        self._url = f"{endpoint.base}/fine_tuning/jobs/{quote(id, safe='')}"
        self._guard = threading.Lock()

    def more(self, after: int) -> Flow[None]:
        """Until the endpoint has told more. Where it can't be reached for a while, that is waited for, too."""
        wait = self._asking.patience(WAIT)
        pause, begun = PAUSES[0], time.monotonic()
        while len(self.log.events) <= after:
            url = f"{self._url}/events?order=asc&limit=1000&after={len(self.log.events)}&wait={wait}"
            try:
                reply = yield from self._asking.send("GET", url)
            except _PASSING as error:
                if isinstance(error, TLSError) or time.monotonic() - begun > PATIENCE:
                    raise
                # past the deadline of whoever waits this fails at once
                yield from sleep(max(pause, error.retry_after or 0.0))
                pause = min(2 * pause, PAUSES[1])
                continue
            begun, pause = time.monotonic(), PAUSES[0]
            events = wire.decode_events(reply.body)
            self._take(events)
            if not events and not wait:
                yield from sleep(PAUSES[0])

    def _take(self, events: Sequence[tuple[int, dict[str, Any]]]) -> None:
        with self._guard:  # two threads may wait for one run
            for place, event in events:
                if place == len(self.log.events):
                    self.log.add(self._understood(event))

    def _understood(self, event: dict[str, Any]) -> Event:
        if event["type"] != "ended":
            return event
        if event.get("status") == "succeeded":
            version = str(event.get("version") or "")
            if not version.isdigit():
                raise ProtocolError("the job succeeded, and doesn't say which version it made")
            return {**event, "address": f"{self._endpoint.address}/versions/{version}"}
        if event.get("status") == "failed":
            self.failure = _failure(event.get("error"), self._endpoint.address)
        return event

    def cancel(self) -> Flow[None]:
        yield from self._asking.send("POST", f"{self._url}/cancel")


def _failure(facts: Any, address: str) -> AiaasError:
    """The error that ended a job, as it would have been raised here."""
    told = facts if isinstance(facts, Mapping) else {}
    kind = getattr(errors, str(told.get("type")), None)
    if not (isinstance(kind, type) and issubclass(kind, AiaasError)):
        kind = TrainingError
    hint = told.get("hint")
    error: AiaasError = kind(str(told.get("message", "the job failed")), hint=hint if isinstance(hint, str) else None)
    error.address = address
    return error
