"""OpenAI's files and uploads: rows that clients send."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiaas_sdk.server import bodies, serve_in_thread
from tests.server.conftest import Answer, Client
from tests.server.training import form, upload


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("jobs")
    with serve_in_thread(["echo:"], jobs=folder, max_body=1 << 20) as url:
        client = Client(url)
        client.folder = folder
        yield client
        client.connection.close()


def refused(answer: Answer, status: int) -> Any:
    """The error of an answer that says no, in OpenAI's form."""
    assert answer.status == status, answer.body
    assert set(answer.document["error"]) == {"message", "type", "param", "code"}
    assert "Traceback" not in answer.document["error"]["message"]
    return answer.document["error"]


# ---------------------------------------------------------------- files
def test_a_file_comes_back_as_it_went(client: Client) -> None:
    content = bytes(range(256)) * 500 + b"\r\n--c\r\n\r\n"
    id = upload(client, content)
    told = client("GET", f"/v1/files/{id}").document
    assert (told["object"], told["bytes"], told["purpose"], told["status"]) == (
        "file",
        len(content),
        "fine-tune",
        "processed",
    )
    assert told["filename"] == "rows.npz"
    assert told["aiaas"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert client("GET", f"/v1/files/{id}/content").body == content
    assert client("DELETE", f"/v1/files/{id}").document == {"id": id, "object": "file", "deleted": True}
    for path in ("", "/content"):
        refused(client("GET", f"/v1/files/{id}{path}"), 404)
    refused(client("DELETE", f"/v1/files/{id}"), 404)


def test_files_are_listed_in_pages_newest_first(client: Client) -> None:
    ids = [upload(client, b"%d" % place) for place in range(5)]
    first = client("GET", "/v1/files?limit=3").document
    assert [one["id"] for one in first["data"]] == ids[:1:-1]
    assert first["has_more"]
    rest = client("GET", f"/v1/files?after={first['last_id']}").document
    assert [one["id"] for one in rest["data"]] == ids[1::-1]
    assert not rest["has_more"]
    assert [one["id"] for one in client("GET", "/v1/files?order=asc").document["data"]] == ids
    assert client("GET", "/v1/files?purpose=batch").document["data"] == []
    refused(client("GET", "/v1/files?limit=0"), 400)
    refused(client("GET", "/v1/files?after=nothing"), 400)
    for id in ids:
        client("DELETE", f"/v1/files/{id}")


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (form(b"x", purpose="assistants")[0], "multipart/form-data; boundary=b", 400),
        (form(b"x")[0][:-5], "multipart/form-data; boundary=b", 400),
        (form(b"x")[0], "multipart/form-data", 400),
        (form(b"x")[0], "multipart/form-data; boundary=other", 400),
        (form(b"x", "data", purpose="fine-tune")[0], "multipart/form-data; boundary=b", 400),
        (b"{}", "application/json", 400),
        (form(b"x" * (2 << 20))[0], "multipart/form-data; boundary=b", 413),
        (form(b"x", note="y" * 10_000)[0], "multipart/form-data; boundary=b", 400),
        (form(b"x", **{"expires_after[seconds]": "1"})[0], "multipart/form-data; boundary=b", 400),
        (form(b"x")[0].replace(b"--b--\r\n", form(b"y")[0]), "multipart/form-data; boundary=b", 400),
    ],
)
def test_what_is_no_form_with_a_file_is_refused_and_nothing_stays(
    client: Client, body: bytes, kind: str, status: int
) -> None:
    refused(client("POST", "/v1/files", body, {"content-type": kind}), status)
    client.connection.close()
    assert client("GET", "/v1/files").document["data"] == []
    assert list((client.folder / "files").iterdir()) == []


@pytest.mark.parametrize(
    "id", ["..", "%2e%2e", "file-../x", "file-" + "0" * 24, "file-" + "G" * 24, ".new-0", "x" * 500]
)
def test_no_request_names_a_path(client: Client, id: str) -> None:
    for path in (f"/v1/files/{id}", f"/v1/files/{id}/content", f"/v1/fine_tuning/jobs/{id}"):
        assert client("GET", path).status == 404
    assert client("POST", f"/v1/uploads/{id}/complete", {"part_ids": ["x"]}).status == 404


# ---------------------------------------------------------------- uploads
def begun(client: Client, size: int, key: str | None = None, **wish: Any) -> Answer:
    wish = {"purpose": "fine-tune", "filename": "f.npz", "bytes": size, "mime_type": "application/zip", **wish}
    return client("POST", "/v1/uploads", wish, {} if key is None else {"idempotency-key": key})


def part(client: Client, id: str, content: bytes, **headers: str) -> Answer:
    body, kind = form(content, "data")
    return client("POST", f"/v1/uploads/{id}/parts", body, {**kind, **headers})


def test_parts_are_joined_in_the_order_that_is_asked_for(client: Client) -> None:
    id = begun(client, 9).document["id"]
    later, first, stray = (
        part(client, id, content).document["id"] for content in (b"later", b"sent", b"nobody wants it")
    )
    wish = {"part_ids": [first, later], "md5": hashlib.md5(b"sentlater").hexdigest()}
    for _ in range(2):  # whose answer was lost asks again
        told = client("POST", f"/v1/uploads/{id}/complete", wish).document
        assert (told["object"], told["status"], told["file"]["bytes"]) == ("upload", "completed", 9)
        assert client("GET", f"/v1/files/{told['file']['id']}/content").body == b"sentlater"
    assert len(client("GET", "/v1/files").document["data"]) == 1
    refused(part(client, id, b"more"), 400)
    assert stray not in [path.name for path in (client.folder / "uploads" / id).iterdir()]
    client("DELETE", f"/v1/files/{told['file']['id']}")


def test_an_upload_is_gone_on_with_under_its_key(client: Client) -> None:
    id = begun(client, 8, "k1").document["id"]
    sent = part(client, id, b"half").document
    again = begun(client, 8, "k1").document
    assert again["id"] == id
    assert again["aiaas"]["parts"] == [{"id": sent["id"], "sha256": hashlib.sha256(b"half").hexdigest(), "bytes": 4}]
    assert begun(client, 8, "k2").document["id"] != id
    assert refused(begun(client, 9, "k1"), 422)["code"] == "idempotency_key_reused"
    rest = part(client, id, b"done").document["id"]
    file = client("POST", f"/v1/uploads/{id}/complete", {"part_ids": [sent["id"], rest]}).document["file"]["id"]
    assert begun(client, 8, "k1").document["file"]["id"] == file  # nothing is to be sent
    client("DELETE", f"/v1/files/{file}")
    fresh = begun(client, 8, "k1").document
    assert (fresh["status"], fresh["aiaas"]["parts"]) == ("pending", [])  # its file is gone


def test_checksums_are_looked_at(client: Client) -> None:
    id = begun(client, 4).document["id"]
    wrong = part(client, id, b"abcd", **{"aiaas-sha256": hashlib.sha256(b"abce").hexdigest()})
    assert refused(wrong, 400)["code"] == "checksum_mismatch"
    good = part(client, id, b"abcd", **{"aiaas-sha256": hashlib.sha256(b"abcd").hexdigest()}).document["id"]
    for wish in ({"md5": "0" * 32}, {"aiaas": {"sha256": "0" * 64}}):
        told = refused(client("POST", f"/v1/uploads/{id}/complete", {"part_ids": [good], **wish}), 400)
        assert told["code"] == "checksum_mismatch"
    assert client("GET", "/v1/files").document["data"] == []


@pytest.mark.parametrize("ids", [None, [], ["part_" + "0" * 24], ["../../x"], [1], "twice", "short"])
def test_only_parts_that_have_arrived_make_a_file(client: Client, ids: Any) -> None:
    id = begun(client, 8).document["id"]
    one = part(client, id, b"half").document["id"]
    wish = {"twice": [one, one], "short": [one]}.get(ids, ids) if isinstance(ids, str) else ids
    assert refused(client("POST", f"/v1/uploads/{id}/complete", {"part_ids": wish}), 400)["param"] == "part_ids"
    assert client("POST", f"/v1/uploads/{id}/cancel").document["status"] == "cancelled"
    refused(part(client, id, b"half"), 400)
    assert [path.name for path in (client.folder / "uploads" / id).iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    "wish",
    [
        {"bytes": 0},
        {"bytes": 9 << 30},
        {"bytes": "8"},
        {"bytes": True},
        {"purpose": "batch"},
        {"expires_after": {"seconds": 1}},
    ],
)
def test_an_upload_that_cannot_be_is_refused(client: Client, wish: dict[str, Any]) -> None:
    refused(begun(client, 8, **wish), 400)


def test_a_part_brings_no_more_than_was_announced(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_DRAINED", 0.2)
    id = begun(client, 8).document["id"]
    size = 65 << 20  # more than a part may have
    head = f"POST /v1/uploads/{id}/parts HTTP/1.1\r\nhost: {client.host}\r\ncontent-length: {size}\r\n"
    answer = client.send(f"{head}content-type: multipart/form-data; boundary=b\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413 ")


# ---------------------------------------------------------------- a disk that says no
SMALL = """
import resource, sys
from aiaas_sdk.server import serve
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
serve(["echo:"], port=0, jobs=sys.argv[1], announce=lambda url, names: print(url, flush=True))
"""


@pytest.mark.slow
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, later: Callable[..., Any]) -> None:
    """The system refuses longer files here; a full disk says no in the same place."""
    process = subprocess.Popen([sys.executable, "-c", SMALL, str(tmp_path / "jobs")], stdout=subprocess.PIPE, text=True)
    later(process)
    client = Client(process.stdout.readline().strip())
    body, kind = form(b"x" * 200_000)
    told = refused(client("POST", "/v1/files", body, kind), 507)
    assert "disk is full" in told["message"]
    client.connection.close()
    assert list((tmp_path / "jobs" / "files").iterdir()) == []
    assert client("GET", f"/v1/files/{upload(client, b'x' * 1000)}/content").status == 200
    client.connection.close()


@pytest.fixture
def later() -> Iterator[Callable[[subprocess.Popen[Any]], None]]:
    """Ends processes with the test."""
    processes: list[subprocess.Popen[Any]] = []
    yield processes.append
    for process in processes:
        process.kill()
        process.communicate(timeout=10)


def test_without_a_folder_there_are_no_files_and_no_jobs(serving: Callable[..., Client]) -> None:
    client = serving("echo:")
    for path in ("/v1/files", "/v1/uploads", "/v1/fine_tuning/jobs"):
        refused(client("GET", path), 404)
    assert "training" not in json.dumps(client("GET", "/v2").document)
