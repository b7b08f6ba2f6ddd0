"""Faults that an attack on a running server found: what happens to jobs and uploads when something goes wrong."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.server.training import jobs
from aiaas_sdk.server.training.records import CHECKPOINTS, JobRecords
from tests.server.conftest import Client
from tests.server.training import begin, create, ended, form, nobody_works, npz, rows, upload


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server whose jobs nobody does."""
    folder = tmp_path_factory.mktemp("server")
    with nobody_works(folder / "jobs"), serve_in_thread([str(create(folder))], jobs=folder / "jobs") as url:
        client = Client(url)
        client.folder = folder / "jobs"
        yield client
        client.connection.close()


# ---------------------------------------------------------------- who does the jobs
@pytest.mark.slow
def test_a_job_that_cant_be_gone_on_with_lets_the_others_go_first(tmp_path: Path) -> None:
    """Its events were damaged: that ends neither the other jobs nor whoever does them."""
    create(tmp_path)
    with nobody_works(tmp_path / "jobs"), serve_in_thread([str(tmp_path / "models")], jobs=tmp_path / "jobs") as url:
        client = Client(url)
        file = upload(client)
        bad, good = (begin(client, file, hyperparameters={"n_epochs": 1}).document["id"] for _ in range(2))
        client.connection.close()
    (tmp_path / "jobs" / "jobs" / bad / "events.jsonl").write_bytes(b"no event\n")
    with serve_in_thread([str(tmp_path / "models")], jobs=tmp_path / "jobs") as url:
        client = Client(url)
        assert ended(client, good)["status"] == "succeeded"
        assert client("GET", f"/v1/fine_tuning/jobs/{bad}").document["status"] == "queued"
        client.connection.close()


FULL = """
import sys
from aiaas_sdk.server import serve
serve([sys.argv[1]], port=0, jobs=sys.argv[2], announce=lambda url, names: print(url, flush=True))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="another process's limits are Linux' own")
def test_jobs_go_on_when_a_full_disk_has_room_again(tmp_path: Path) -> None:
    """The system refuses every byte for a while; a full disk says no in the same place."""
    import resource

    arguments = [str(create(tmp_path)), str(tmp_path / "jobs")]
    with nobody_works(tmp_path / "jobs"):
        process = subprocess.Popen(
            [sys.executable, "-c", FULL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            client = Client(process.stdout.readline().strip())
            id = begin(client, upload(client), hyperparameters={"n_epochs": 1}).document["id"]
            _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, most))
        except BaseException:
            process.kill()
            raise
    try:
        time.sleep(2.5)  # it takes over within a second, and can't write that a job runs
        assert client("GET", f"/v1/fine_tuning/jobs/{id}").document["status"] == "queued"
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
        assert ended(client, id)["status"] == "succeeded"
        client.connection.close()
    finally:
        process.kill()
        process.communicate(timeout=10)


# ---------------------------------------------------------------- asked for at the same time
def test_an_upload_is_ended_once_however_many_ask(client: Client) -> None:
    content = npz(x=rows()[0], y=rows()[1])
    wish = {"purpose": "fine-tune", "bytes": len(content), "filename": "rows.npz"}
    id = client("POST", "/v1/uploads", wish).document["id"]
    part = client("POST", f"/v1/uploads/{id}/parts", *form(content, "data")).document["id"]
    before = len(client("GET", "/v1/files").document["data"])
    found: list[Any] = []

    def complete() -> None:
        ask = Client(client.url)
        found.append(ask("POST", f"/v1/uploads/{id}/complete", {"part_ids": [part]}))
        ask.connection.close()

    together(complete, 8)
    assert [answer.status for answer in found] == [200] * 8
    assert len({answer.document["file"]["id"] for answer in found}) == 1
    assert len(client("GET", "/v1/files").document["data"]) == before + 1
    assert [path.name for path in (client.folder / "uploads" / id).iterdir()] == ["record.json"]


def test_a_file_that_is_deleted_meanwhile_is_told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = jobs._check_files
    for deleted_first in (True, False):
        file = upload(client)

        def check(files: dict[str, Path], info: Any, first: bool = deleted_first) -> None:
            if not first:
                checked(files, info)
            for path in files.values():
                path.unlink()
            if first:
                checked(files, info)

        monkeypatch.setattr(jobs, "_check_files", check)
        answer = begin(client, file)
        assert answer.status == 400
        assert "deleted meanwhile" in answer.document["error"]["message"]


@pytest.mark.parametrize("twice", [True, False])
def test_a_job_that_isnt_begun_takes_no_checkpoints(tmp_path: Path, twice: bool) -> None:
    """Another request was quicker, or its record can't be written: then the earlier job still has them."""
    records = JobRecords(tmp_path)
    checkpoints = tmp_path / "jobs" / "ftjob-earlier" / CHECKPOINTS
    checkpoints.mkdir(parents=True)
    (checkpoints / "step-7").write_bytes(b"weights")
    record: dict[str, Any] = {"id": records.new_id("key")}
    if twice:
        assert records.add(record, {}, None)
        assert not records.add(record, {}, checkpoints)
    else:
        with pytest.raises(TypeError):
            records.add({**record, "fit": object()}, {}, checkpoints)
    assert (checkpoints / "step-7").read_bytes() == b"weights"
    assert [path.name for path in (tmp_path / "jobs").iterdir() if path.name.startswith(".new")] == []


def together(work: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
