"""OpenAI's files: rows to train with. `/v1/files`, `/v1/files/{id}`, `/v1/files/{id}/content`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.permissions import caller
from aiaas_sdk.server.training.folder import Records
from aiaas_sdk.server.training.forms import Form, read_form
from aiaas_sdk.wire import jobs as wire

__all__ = ["DATA", "MAX_FILE", "Files", "answer", "expiry", "limit_of", "lowered"]

MAX_FILE = 8 * 1024**3
"""Bytes of a file. OpenAI takes 512 MB as one request and 8 GB as an upload."""
MAX_FILES = 1000
"""Of one caller."""
DATA = "data"
_SECONDS = (3600, 2592000)
"""OpenAI's bounds for `expires_after`."""
_KEPT = 30 * 24 * 3600
"""Seconds for which a file is kept where nobody said how long."""
MAX_PAGE, PAGE = 10_000, 100


class Files:
    """The files of all callers, each seen by its own.

    Args:
        folder: of the server's jobs.
        max_body: bytes of one request's body.
    """

    def __init__(self, folder: Path, *, max_body: int) -> None:
        self.records = Records(folder, "files", "file-")
        self._max_body = max_body

    def routes(self) -> list[Route]:
        one = "/v1/files/{file}"
        return [
            Route("/v1/files", self.create, methods=["POST"]),
            Route("/v1/files", self.listed, methods=["GET"]),
            Route(one, self.file, methods=["GET"]),
            Route(one, self.delete, methods=["DELETE"]),
            Route(f"{one}/content", self.content, methods=["GET"]),
        ]

    async def create(self, request: Request) -> Response:
        await asyncio.to_thread(self.check_room)
        aside = self.records.aside()
        try:
            limit = min(MAX_FILE, self._max_body)
            form = await read_form(lowered(request), request.receive, file="file", into=aside / DATA, limit=limit)
            seconds = form.fields.get("expires_after[seconds]")
            check_purpose(form.fields.get("purpose"))
            expires = expiry(None if seconds is None else {"seconds": seconds}, _KEPT)
            record = self.placed(aside, form, expires)
        except BaseException:
            self.records.discard(aside)
            raise
        return answer(wire.file_object(record))

    def check_room(self) -> None:
        """RefusedError: 429, the caller has as many as he may."""
        if len(self.records.mine()) >= MAX_FILES:
            raise RefusedError(429, f"you have {MAX_FILES} files here; delete some first", retry_after=60)

    def placed(self, aside: Path, form: Form, expires: int) -> dict[str, Any]:
        """A folder with the file's bytes becomes a file."""
        now = time.time()
        record = {
            "id": self.records.new_id(),
            "caller": caller().name,
            "created": now,
            "created_at": int(now),
            "expires_at": expires,
            "bytes": form.size,
            "filename": form.filename,
            "sha256": form.sha256,
        }
        self.records.place(aside, record)
        return record

    async def listed(self, request: Request) -> Response:
        purpose = request.query_params.get("purpose", wire.PURPOSE)
        found = await asyncio.to_thread(self.records.mine) if purpose == wire.PURPOSE else []
        if request.query_params.get("order") == "asc":
            found.reverse()
        chosen, more = paged(found, request, PAGE, MAX_PAGE)
        return answer(wire.page([wire.file_object(record) for record in chosen], more))

    async def file(self, request: Request) -> Response:
        return answer(wire.file_object(self.records.read(request.path_params["file"])))

    async def delete(self, request: Request) -> Response:
        """Jobs that were asked for with it keep its rows until they have ended."""
        record = self.records.read(request.path_params["file"])
        await asyncio.to_thread(self.records.remove, record["id"])
        return answer(wire.deleted(record["id"]))

    async def content(self, request: Request) -> Response:
        record = self.records.read(request.path_params["file"])
        return FileResponse(self.data(record["id"]), media_type="application/octet-stream")

    def data(self, id: str) -> Path:
        return self.records.path(id) / DATA


def check_purpose(purpose: Any) -> None:
    if purpose != wire.PURPOSE:
        raise RefusedError(400, f'purpose must be "{wire.PURPOSE}": other files have no use here', param="purpose")


def expiry(after: Any, otherwise: int) -> int:
    """The moment of a member `expires_after`.

    Raises:
        RefusedError: 400, it can't be.
    """
    if after is None:
        return int(time.time()) + otherwise
    text = str(after.get("seconds", "")) if isinstance(after, Mapping) else ""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and _SECONDS[0] <= int(text) <= _SECONDS[1]):
        told = f"expires_after has no seconds from {_SECONDS[0]} to {_SECONDS[1]}"
        raise RefusedError(400, told, param="expires_after")
    return int(time.time()) + int(text)


# ---------------------------------------------------------------- what such endpoints share
def lowered(request: Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def answer(document: Mapping[str, Any], status: int = 200) -> Response:
    return Response(to_json(document), status, media_type="application/json")


def limit_of(request: Request, usual: int, most: int) -> int:
    """The parameter `limit`. RefusedError: 400, it is none."""
    text = request.query_params.get("limit", str(usual))
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) >= 1):
        raise RefusedError(400, "limit is no whole number from 1 on", param="limit")
    return min(int(text), most)


def paged(found: list[dict[str, Any]], request: Request, usual: int, most: int) -> tuple[list[dict[str, Any]], bool]:
    """What comes after the parameter `after`, at most `limit`; and whether there is more."""
    limit, after = limit_of(request, usual, most), request.query_params.get("after")
    begin = 0
    if after:
        ids = [record["id"] for record in found]
        if after not in ids:
            raise RefusedError(400, "after isn't in this list", param="after")
        begin = ids.index(after) + 1
    return found[begin : begin + limit], len(found) > begin + limit
