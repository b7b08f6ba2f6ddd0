"""OpenAI's uploads: a large file in parts, which can be gone on with after a broken connection.

`/v1/uploads`, `/v1/uploads/{id}/parts`, `/v1/uploads/{id}/complete`, `/v1/uploads/{id}/cancel`. Three things are ours:
the header Idempotency-Key of an upload, with which asking for it again gives the one that was begun, with the parts
that have arrived; the header `aiaas-sha256` of a part; and `aiaas.sha256` of the whole, beside OpenAI's `md5`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiaas_sdk.server.bodies import read_body
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.heads import head_in
from aiaas_sdk.server.permissions import caller
from aiaas_sdk.server.training.files import DATA, MAX_FILE, Files, answer, check_purpose, expiry, lowered
from aiaas_sdk.server.training.folder import Records, storing
from aiaas_sdk.server.training.forms import Form, read_form
from aiaas_sdk.server.training.locking import hold
from aiaas_sdk.wire import jobs as wire

__all__ = ["Uploads"]

MAX_PART = 64 * 1024**2
"""Bytes of a part: OpenAI's bound."""
MAX_PARTS = 10_000
LOCK = "lock"
MAX_PENDING = 64
"""Uploads that one caller may have begun and not completed."""
_HOUR = 3600
"""Seconds after which one that wasn't completed is gone: OpenAI's."""
_LOOK, _PATIENCE = 0.05, 300.0  # seconds between two looks whether another has ended an upload, and for all of them
_COPIED = 1024**2  # bytes at once
_SMALL = 1024**2  # bytes of a JSON body
_PART = re.compile(r"(part_[0-9a-f]{24})\.([0-9a-f]{64})\.([0-9]{1,12})")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Uploads:
    """The uploads of all callers, each seen by its own; they end as `files`."""

    def __init__(self, folder: Path, files: Files) -> None:
        self.records = Records(folder, "uploads", "upload_")
        self._files = files

    def routes(self) -> list[Route]:
        one = "/v1/uploads/{upload}"
        return [
            Route("/v1/uploads", self.create, methods=["POST"]),
            Route(f"{one}/parts", self.part, methods=["POST"]),
            Route(f"{one}/complete", self.complete, methods=["POST"]),
            Route(f"{one}/cancel", self.cancel, methods=["POST"]),
        ]

    # ------------------------------------------------------------ beginning
    async def create(self, request: Request) -> Response:
        wish = await asked(request)
        check_purpose(wish.get("purpose"))
        size = wish.get("bytes")
        if type(size) is not int or not 0 < size <= MAX_FILE:
            raise RefusedError(400, f"bytes is no number from 1 to {MAX_FILE}", param="bytes")
        id = self.records.new_id(key_of(request))
        found = self._usable(id)
        if found is None:
            found = await asyncio.to_thread(self._begun, id, wish, size)
        elif found["bytes"] != size:
            raise other_request()
        return self._told(found)

    def _usable(self, id: str) -> dict[str, Any] | None:
        """The upload of this id, unless nothing can become of it any more, or its file is gone: then it is removed."""
        found = self.records.known(id)
        if found is None:
            return None
        complete = found["status"] == "completed" and self._files.records.known(found["file"]) is not None
        if complete or (found["status"] == "pending" and time.time() < found["expires_at"]):
            return found
        self.records.remove(id)
        return None

    def _begun(self, id: str, wish: dict[str, Any], size: int) -> dict[str, Any]:
        self._files.check_room()
        if sum(record["status"] == "pending" for record in self.records.mine()) >= MAX_PENDING:
            raise RefusedError(429, f"you have begun {MAX_PENDING} uploads; complete or cancel some", retry_after=60)
        now = time.time()
        record = {
            "id": id,
            "caller": caller().name,
            "created": now,
            "created_at": int(now),
            "expires_at": int(now) + _HOUR,
            "bytes": size,
            "filename": str(wish.get("filename", ""))[:200],
            "status": "pending",
            "file_expires_at": expiry(wish.get("expires_after"), 30 * 24 * _HOUR),
        }
        aside = self.records.aside()
        try:
            return record if self.records.place(aside, record) else self.records.read(id)
        finally:
            self.records.discard(aside)  # which isn't there any more, once it is in its place

    def _told(self, record: dict[str, Any]) -> Response:
        file = self._files.records.known(record["file"]) if record.get("file") else None
        parts = [] if record["status"] != "pending" else self._parts(record["id"])
        return answer(wire.upload_object(record, parts, file))

    def _parts(self, id: str) -> list[dict[str, Any]]:
        """Those that have arrived. What is known of each stands in its name, so that it can't be half known."""
        matches = map(_PART.fullmatch, sorted(os.listdir(self.records.path(id))))
        return [{"id": found[1], "sha256": found[2], "bytes": int(found[3])} for found in matches if found]

    def _pending(self, request: Request) -> dict[str, Any]:
        record = self.records.read(request.path_params["upload"])
        if record["status"] != "pending" or time.time() > record["expires_at"]:
            status = "expired" if record["status"] == "pending" else record["status"]
            raise RefusedError(400, f"the upload is {status}", code="upload_" + status)
        return record

    # ------------------------------------------------------------ parts
    async def part(self, request: Request) -> Response:
        record = self._pending(request)
        folder = self.records.path(record["id"])
        there = self._parts(record["id"])
        if len(there) >= MAX_PARTS:
            raise RefusedError(400, f"the upload has {MAX_PARTS} parts already", unread=True)
        headers = lowered(request)
        # a part that was sent twice may stand here twice
        room = min(MAX_PART, 2 * record["bytes"] + MAX_PART - sum(part["bytes"] for part in there))
        id = self.records.aside().name.removeprefix(".new-")  # of its own, and nobody guesses it
        aside = self.records.folder / f".new-{id}"
        try:
            form = await read_form(headers, request.receive, file="data", into=aside / DATA, limit=max(0, room))
            wanted = headers.get(wire.CHECKSUM)
            if wanted is not None and wanted != form.sha256:
                raise _damaged("the part isn't what was sent: its SHA-256 differs")
            part = {"id": f"part_{id}{form.sha256[:8]}", "sha256": form.sha256, "bytes": form.size}
            with storing():
                os.replace(aside / DATA, folder / f"{part['id']}.{part['sha256']}.{part['bytes']}")
        except FileNotFoundError:
            raise self.records.absent() from None  # it was cancelled meanwhile
        finally:
            self.records.discard(aside)
        return answer(wire.part_object(record["id"], part, int(time.time())))

    # ------------------------------------------------------------ the end
    async def complete(self, request: Request) -> Response:
        """Asked twice, it answers twice the same: the first answer may have been lost."""
        wish = await asked(request)
        async with self._alone(request):
            record = self.records.read(request.path_params["upload"])
            if record["status"] != "completed":
                record = await asyncio.to_thread(self._completed, self._pending(request), wish)
        return self._told(record)

    @contextlib.asynccontextmanager
    async def _alone(self, request: Request) -> AsyncIterator[None]:
        """One request at a time ends an upload, in whichever process: two would make two files, or half of one.

        Raises:
            RefusedError: 404, there is no such upload; 503, another takes too long.
        """
        id = self.records.read(request.path_params["upload"])["id"]
        path = self.records.path(id) / LOCK
        end = time.monotonic() + _PATIENCE
        try:
            while (lock := hold(path)) is None:
                if time.monotonic() > end:
                    raise RefusedError(503, "another request still ends this upload", retry_after=_LOOK)
                await asyncio.sleep(_LOOK)
        except FileNotFoundError:
            raise self.records.absent() from None
        with lock:
            try:
                yield
            finally:
                if (self.records.known(id) or {}).get("status") != "pending":  # nobody ends it again
                    with contextlib.suppress(OSError):
                        path.unlink()

    def _completed(self, record: dict[str, Any], wish: dict[str, Any]) -> dict[str, Any]:
        folder = self.records.path(record["id"])
        there = {part["id"]: part for part in self._parts(record["id"])}
        ids = wish.get("part_ids")
        if not isinstance(ids, list) or not ids or any(not isinstance(id, str) or id not in there for id in ids):
            raise RefusedError(400, "part_ids isn't a list of parts that have arrived", param="part_ids")
        if len(set(ids)) != len(ids):
            raise RefusedError(400, "part_ids has a part twice", param="part_ids")
        size = sum(there[id]["bytes"] for id in ids)
        if size != record["bytes"]:
            told = f"the parts have {size} bytes together, and {record['bytes']} were announced"
            raise RefusedError(400, told, param="part_ids")
        aside = self._files.records.aside()
        try:
            paths = [folder / f"{id}.{there[id]['sha256']}.{there[id]['bytes']}" for id in ids]
            with storing():
                sha256, md5 = _joined(paths, aside / DATA)
            _check(wish, sha256, md5)
            form = Form(filename=record["filename"], size=size, sha256=sha256)
            file = self._files.placed(aside, form, record["file_expires_at"])
        finally:
            self.records.discard(aside)
        done = {**record, "status": "completed", "file": file["id"], "expires_at": record["file_expires_at"]}
        self._ended(done)
        return done

    async def cancel(self, request: Request) -> Response:
        async with self._alone(request):
            record = {**self._pending(request), "status": "cancelled"}
            await asyncio.to_thread(self._ended, record)
        return self._told(record)

    def _ended(self, record: dict[str, Any]) -> None:
        """Write what became of it, and let go of its parts."""
        self.records.write(record)
        for path in self.records.path(record["id"]).iterdir():
            if _PART.fullmatch(path.name):
                path.unlink(missing_ok=True)


def _joined(paths: list[Path], into: Path) -> tuple[str, str]:
    """The parts as one file; SHA-256 and MD5 of it. OpenAI's clients send MD5, which guards against accidents only."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with into.open("xb") as whole:
        for path in paths:
            with path.open("rb") as part:
                while piece := part.read(_COPIED):
                    sha256.update(piece)
                    md5.update(piece)
                    whole.write(piece)
        whole.flush()
        os.fsync(whole.fileno())
    return sha256.hexdigest(), md5.hexdigest()


def _check(wish: dict[str, Any], sha256: str, md5: str) -> None:
    ours = wish.get("aiaas")
    wanted = ours.get("sha256") if isinstance(ours, dict) else None
    if wish.get("md5") not in (None, "", md5) or (wanted is not None and wanted != sha256):
        raise _damaged("the parts together aren't the file that was meant: its checksum differs")


def _damaged(told: str) -> RefusedError:
    return RefusedError(400, told, code="checksum_mismatch")


# ---------------------------------------------------------------- requests
def key_of(request: Request) -> str | None:
    """The header Idempotency-Key. RefusedError: 400, it is too long."""
    key = request.headers.get(wire.KEY)
    if key is not None and not 0 < len(key) <= 255:
        raise RefusedError(400, "Idempotency-Key is empty, or longer than 255 characters")
    return key


def other_request() -> RefusedError:
    return RefusedError(422, "this Idempotency-Key was used for another request", code="idempotency_key_reused")


async def asked(request: Request) -> dict[str, Any]:
    """The body as a JSON object. RefusedError: 400, it is none."""
    body = await read_body(head_in(request.scope), request.receive, limit=_SMALL, inflated=_SMALL)
    try:
        found = from_json(bytes(body))
    except ValueError:
        raise RefusedError(400, "the body isn't JSON") from None
    if not isinstance(found, dict):
        raise RefusedError(400, "the body is no JSON object")
    return found
