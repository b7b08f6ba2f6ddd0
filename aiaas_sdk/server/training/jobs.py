"""OpenAI's fine-tuning jobs: `/v1/fine_tuning/jobs`, and below it `/{id}`, `/cancel`, `/events`, `/checkpoints`.

Ours are the header Idempotency-Key, the member `aiaas` of a request, and the parameters of `/events`: `order=asc` gives
the oldest first, `after=N` what comes after the first N, `wait=S` waits up to S seconds for that, and `stream=true`
gives them as server-sent events as they come, each with the number of those up to it as its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from aiaas_sdk.errors import AiaasError, ConfigError, InputError, UnsupportedOperationError
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.records.training import ENDED
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.heads import head_in
from aiaas_sdk.server.hosting import Hosted, Hosting
from aiaas_sdk.server.leaving import Attended
from aiaas_sdk.server.permissions import caller
from aiaas_sdk.server.training.files import Files, answer, limit_of, paged
from aiaas_sdk.server.training.records import CHECKPOINTS, TRAINING, VALIDATION, JobRecords, fingerprint
from aiaas_sdk.server.training.runner import Runner
from aiaas_sdk.server.training.uploads import Uploads, asked, key_of, other_request
from aiaas_sdk.wire import jobs as wire
from aiaas_sdk.wire import rowfile

__all__ = ["Training"]

Endpoint = Callable[[Request], Awaitable[Response]]

MAX_QUEUED, MAX_OF_ONE = 64, 16
"""Jobs that may wait or run, of all callers and of one."""
MAX_WAIT = 30.0
"""Seconds for which events are waited for in one request."""
_LOOK = 0.1  # seconds between two looks at a job's events
_ALIVE = 15.0  # seconds after which a silent stream says that it is there
_NOT_FOR_TRAINING = (
    "this key isn't for training models; `aiaas keys add NAME --training` makes one that is, and a token needs the "
    "claim training"
)


class Training:
    """Everything that has to do with training, for a hosting.

    Args:
        hosting: the models.
        folder: of the jobs.
        max_body: bytes of one request's body.
        draining: whether the server is about to end.

    Attributes:
        runner: who does the jobs.

    Raises:
        ConfigError: the folder can't be written.
    """

    def __init__(self, hosting: Hosting, folder: Path, *, max_body: int, draining: Callable[[], bool]) -> None:
        self._hosting, self._draining = hosting, draining
        self._files = Files(folder, max_body=max_body)
        self._uploads = Uploads(folder, self._files)
        self._records = JobRecords(folder)
        self.runner = Runner(folder, self._records, hosting, self._sweep)

    def _sweep(self) -> None:
        for records in (self._files.records, self._uploads.records, self._records):
            records.sweep()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do jobs, for as long as the server runs."""
        task = asyncio.ensure_future(self.runner.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def routes(self) -> list[Route]:
        jobs, one = "/v1/fine_tuning/jobs", "/v1/fine_tuning/jobs/{job}"
        routes = [
            *self._files.routes(),
            *self._uploads.routes(),
            Route(jobs, self.create, methods=["POST"]),
            Route(jobs, self.listed, methods=["GET"]),
            Route(one, self.job, methods=["GET"]),
            Route(f"{one}/cancel", self.cancel, methods=["POST"]),
            Route(f"{one}/events", self.events, methods=["GET"]),
            Route(f"{one}/checkpoints", self.checkpoints, methods=["GET"]),
        ]
        return [Route(route.path, _permitted(route.endpoint), methods=route.methods) for route in routes]

    # ------------------------------------------------------------ beginning
    async def create(self, request: Request) -> Response:
        document = await asked(request)
        digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
        id = self._records.new_id(key_of(request))
        if (found := self._records.known(id)) is not None:
            return self._once(found, digest)
        wish = _understood(document)
        hosted = self._hosting.named(wish.model)
        info = await self._trainable(hosted, wish.version)
        files, record = self._described(id, digest, wish, info)
        try:
            await asyncio.to_thread(_check_files, files, info)
            await asyncio.to_thread(self._check_room)
            if not await asyncio.to_thread(self._added, record, files, wish):
                return self._once(self._records.read(id), digest)
        except FileNotFoundError:
            raise RefusedError(400, "a file of this job was deleted meanwhile", param="training_file") from None
        return answer(wire.job_object(record))

    def _added(self, record: dict[str, Any], files: dict[str, Path], wish: wire.Asked) -> bool:
        """Put the job into place, with the checkpoints that it goes on from; False where it is there already."""
        earlier = self._earlier(record, wish) if wish.fit.resume else None
        if earlier is not None:
            record["fit"]["seed"], record["version"] = earlier["fit"]["seed"], earlier["version"]
        before = None if earlier is None else self._records.path(earlier["id"]) / CHECKPOINTS
        return self._records.add(record, files, before)

    def _once(self, found: dict[str, Any], digest: str) -> Response:
        """The job that was begun by the same request before."""
        if found["request"] != digest:
            raise other_request()
        return answer(wire.job_object(found))

    async def _trainable(self, hosted: Hosted, version: str | None) -> ModelInfo:
        if not hosted.trains:
            raise RefusedError(400, f"model {hosted.name!r} can't be trained here", param="model")
        try:
            info = await hosted.info_of(version)
        except AiaasError as error:
            raise hosted.told(error) from error
        if "fit" not in info.verbs:
            raise RefusedError(400, f"model {hosted.name!r} can't be trained", param="model")
        return info

    def _described(
        self, id: str, digest: str, wish: wire.Asked, info: ModelInfo
    ) -> tuple[dict[str, Path], dict[str, Any]]:
        """The files of a job by their names in it, and its record."""
        records = {"training": self._file(wish.training, "training_file")}
        if wish.validation is not None:
            records["validation"] = self._file(wish.validation, "validation_file")
        names = {"training": TRAINING, "validation": VALIDATION}
        files = {names[side]: self._files.data(record["id"]) for side, record in records.items()}
        seed = secrets.randbits(31) if wish.fit.seed is None else wish.fit.seed
        now = time.time()
        record = {
            "id": id,
            "caller": caller().name,
            "created": now,
            "created_at": int(now),
            "request": digest,
            "model": wish.model,
            "version": info.version,
            "training_file": wish.training,
            "validation_file": wish.validation,
            "digests": [record["sha256"] for record in records.values()],
            "fit": replace(wish.fit, seed=seed, resume=False).document(),
            "suffix": wish.suffix,
            "metadata": wish.metadata,
            "status": "queued",
        }
        return files, {**record, "fingerprint": fingerprint(record)}

    def _file(self, id: str, member: str) -> dict[str, Any]:
        try:
            return self._files.records.read(id)
        except RefusedError:
            raise RefusedError(400, f"there is no file of yours with the id in {member}", param=member) from None

    def _check_room(self) -> None:
        name = caller().name
        found = [record for id in self._records.ids() if (record := self._records.known(id)) is not None]
        live = [record for record in found if record["status"] not in ENDED]
        if len(live) >= MAX_QUEUED or sum(record["caller"] == name for record in live) >= MAX_OF_ONE:
            raise RefusedError(429, "too many jobs wait already; try again later", retry_after=60)

    def _earlier(self, record: dict[str, Any], wish: wire.Asked) -> dict[str, Any] | None:
        """The newest job of the caller that this one can go on from, with its seed and its version.

        Where none is asked for by its number, it is the version that the other job began with, although a newer one may
        be served by now.
        """
        for other in self._records.mine():
            if (
                other["status"] in ("failed", "cancelled")
                and other["fingerprint"] == record["fingerprint"]
                and wish.fit.seed in (None, other["fit"]["seed"])
                and (wish.version is None or record["version"] == other["version"])
                and (self._records.path(other["id"]) / CHECKPOINTS).exists()
            ):
                return other
        return None

    # ------------------------------------------------------------ watching
    async def listed(self, request: Request) -> Response:
        found = await asyncio.to_thread(self._records.mine)
        chosen, more = paged(found, request, 20, 100)
        return answer(wire.page([wire.job_object(record) for record in chosen], more))

    async def job(self, request: Request) -> Response:
        return answer(wire.job_object(self._records.read(request.path_params["job"])))

    async def cancel(self, request: Request) -> Response:
        """It ends within a step. Harmless where it has ended."""
        record = self._records.read(request.path_params["job"])
        if record["status"] not in ENDED:
            self._records.cancel(record["id"])
        return answer(wire.job_object(record))

    async def checkpoints(self, request: Request) -> Response:
        id = self._records.read(request.path_params["job"])["id"]
        found: list[dict[str, Any]] = []
        metrics: dict[str, float] = {}
        for place, event in self._records.tail(id).more():
            metrics = event.get("metrics") or metrics
            if event["type"] == "checkpoint":
                found.append(wire.checkpoint_object(id, place, event, metrics))
        chosen, more = paged(found[::-1], request, 10, 100)
        return answer(wire.page(chosen, more))

    async def events(self, request: Request) -> Response:
        id = self._records.read(request.path_params["job"])["id"]
        if request.query_params.get("stream") == "true":
            headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
            return StreamingResponse(
                self._streamed(id, _known(request)), media_type="text/event-stream", headers=headers
            )
        limit = limit_of(request, 20, 1000)
        if request.query_params.get("order") == "asc":
            tail = self._records.tail(id, _known(request))
            with Attended(request.receive):
                found = await self._more(id, tail, _wait(request))
            chosen, more = found[:limit], len(found) > limit
        else:
            found = self._records.tail(id).more()
            before = wire.event_place(request.query_params["after"])[0] if request.query_params.get("after") else None
            older = [entry for entry in found if before is None or entry[0] < before]
            chosen, more = older[::-1][:limit], len(older) > limit
        return answer(wire.page([wire.event_object(id, place, event) for place, event in chosen], more))

    async def _more(self, id: str, tail: Any, seconds: float) -> list[tuple[int, dict[str, Any]]]:
        """Events that aren't known yet; none where there won't be any, or not within so many seconds."""
        end = time.monotonic() + seconds
        while True:
            over = self._over(id)  # before the look: what was told before the end is given with it
            found: list[tuple[int, dict[str, Any]]] = tail.more()
            if any(event["type"] == "ended" for _, event in found) and not over:
                found = await self._noted(id, found)
            if found or over or time.monotonic() >= end or self._draining():
                return found
            await asyncio.sleep(_LOOK)

    async def _noted(self, id: str, found: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
        """Once its end is told, the job says so, too, and its version can be asked for."""
        for _ in range(100):
            if self._over(id) or self._draining():
                break
            await asyncio.sleep(_LOOK)
        return found

    def _over(self, id: str) -> bool:
        record = self._records.known(id)
        return record is None or record["status"] in ENDED

    async def _streamed(self, id: str, known: int) -> AsyncIterator[bytes]:
        tail = self._records.tail(id, known)
        while True:
            over = self._over(id)
            found = await self._more(id, tail, _ALIVE)
            for place, event in found:
                told = to_json(wire.event_object(id, place, event))
                yield b"id: %d\ndata: %b\n\n" % (place + 1, told)
            if over or self._draining() or any(event["type"] == "ended" for _, event in found):
                yield b"data: [DONE]\n\n"
                return
            if not found:
                yield b": still there\n\n"


def _permitted(endpoint: Endpoint) -> Endpoint:
    """The same for those who may train; the others' files aren't even read. RefusedError: 403."""

    async def performed(request: Request) -> Response:
        if not caller().training:
            raise RefusedError(403, _NOT_FOR_TRAINING, unread=head_in(request.scope).costly)
        return await endpoint(request)

    return performed


def _known(request: Request) -> int:
    """How many events the client has already."""
    text = request.query_params.get("after") or request.headers.get("last-event-id") or "0"
    place, is_id = wire.event_place(text)
    return place + 1 if is_id else place


def _wait(request: Request) -> float:
    text = request.query_params.get("wait", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise RefusedError(400, "wait is no whole number of seconds", param="wait")
    return min(float(text), MAX_WAIT)


def _understood(document: dict[str, Any]) -> wire.Asked:
    try:
        return wire.decode_job_request(document)
    except (ConfigError, InputError, UnsupportedOperationError) as error:
        raise RefusedError(400, _sentence(error)) from None


def _check_files(files: dict[str, Path], info: ModelInfo) -> None:
    """Refuse what is no file of rows, before anybody waits for it.

    Raises:
        RefusedError: 400.
    """
    import mmap

    inputs, outputs = (tuple(spec.name for spec in specs) for specs in (info.inputs, info.outputs))
    for name, path in files.items():
        try:
            with path.open("rb") as file:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    head = bytes(data[:4])
                if head != rowfile.ZIP:  # which the job's own process unpacks
                    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                    rowfile.sides(rowfile.decode(data), inputs, outputs)
        except ValueError as error:  # an empty file, or InputError
            told = _sentence(error) if isinstance(error, AiaasError) else "the file is empty"
            raise RefusedError(400, told, code="invalid_training_file", param=f"{name}_file") from None


def _sentence(error: AiaasError) -> str:
    return f"{error.message}. {error.hint}" if error.hint else error.message
