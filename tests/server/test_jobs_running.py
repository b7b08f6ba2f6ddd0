"""Jobs that are done: beside the serving, through crashes, restarts and cancellations."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread
from tests.conftest import ROOT
from tests.server.conftest import Client
from tests.server.training import Slow, begin, create_slow, ended, npz, rows, until, upload

pytestmark = pytest.mark.slow

LONG = {"aiaas": {"fit": {"epochs": 6, "checkpoint_seconds": 0.1}}, "seed": 3}
"""Some seconds of work."""

PROGRAM = """
import sys
from aiaas_sdk.server import serve
import tests.server.training  # the architecture, here and in the processes that this one starts
if __name__ == "__main__":
    options = {"jobs": sys.argv[2], "workers": int(sys.argv[3])}
    serve([sys.argv[1]], port=0, announce=lambda url, names: print(url, flush=True), **options)
"""
UNGUARDED = """
import sys
import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread
from tests.server.training import rows
folder = sys.argv[1]
with serve_in_thread([f"{folder}/models"], jobs=f"{folder}/jobs") as url, aiaas.load(f"{url}/v2/models/iris") as model:
    try:
        model.fit(*rows()).result()
    except aiaas.TrainingError as error:
        print(error)
"""


class Process:
    """A server of its own process group."""

    def __init__(self, folder: Path, workers: int = 1) -> None:
        program = folder / "program.py"
        program.write_text(PROGRAM)
        command = [sys.executable, str(program), str(folder / "models"), str(folder / "jobs"), str(workers)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert self.process.stdout is not None
        self.client = Client(self.process.stdout.readline().strip())

    def end(self, number: int = signal.SIGTERM) -> None:
        self.client.connection.close()
        self.process.send_signal(number)
        try:
            self.process.communicate(timeout=30)
        finally:
            self.process.kill()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts servers of one folder, one after the other; all end with the test."""
    started: list[Process] = []

    def one(workers: int = 1) -> Process:
        started.append(Process(tmp_path, workers))
        return started[-1]

    yield one
    for process in started:
        if process.process.poll() is None:
            process.end()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_slow(tmp_path)
    return tmp_path


def events(client: Client, id: str) -> list[Any]:
    found = client("GET", f"/v1/fine_tuning/jobs/{id}/events?order=asc&limit=1000").document["data"]
    return [event["data"] for event in found]


def at_work(client: Client, id: str) -> None:
    """Wait until there is a checkpoint to go on from."""
    until(lambda: any(event["type"] == "checkpoint" for event in events(client, id)))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights that the same run gives here, where nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    create_slow(folder)
    with aiaas.load(f"torch:{folder}/models/iris") as model:
        assert model.fit(*rows(), epochs=6, seed=3).wait(100).status == "succeeded"
    return weights(folder)


def weights(folder: Path, version: int = 2) -> bytes:
    return (folder / "models" / "iris" / str(version) / "weights.safetensors").read_bytes()


def versions(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "models" / "iris").iterdir() if path.name.isdigit())


# ---------------------------------------------------------------- beside the serving
def test_a_job_makes_a_new_version_and_the_server_serves_it(folder: Path) -> None:
    with serve_in_thread([str(folder / "models")], jobs=folder / "jobs", architecture=Slow) as url:
        client = Client(url)
        id = begin(client, upload(client), hyperparameters={"n_epochs": 3}, seed=1).document["id"]
        job = ended(client, id)
        assert (job["status"], job["fine_tuned_model"]) == ("succeeded", "iris@2")
        assert job["error"] is None
        told = events(client, id)
        assert [event["epoch"] for event in told if event["type"] == "epoch"] == [1, 2, 3]
        assert told[-1]["type"] == "ended"
        assert str(folder) not in json.dumps(told)
        assert client("GET", "/v2/models/iris/versions/2").document["versions"] == ["1", "2"]
        assert client("GET", f"/v1/fine_tuning/jobs/{id}/checkpoints").document["data"]
        assert not (folder / "jobs" / "jobs" / id / "training").exists()
        client.connection.close()


def test_rows_that_do_not_fit_fail_the_job_with_the_reason(folder: Path) -> None:
    with serve_in_thread([str(folder / "models")], jobs=folder / "jobs", architecture=Slow) as url:
        client = Client(url)
        wrong = upload(client, npz(x=np.zeros((8, 5), np.float32), y=np.zeros(8, np.int64)))
        pickled = upload(client, npz(x=np.array([{"a": 1}], dtype=object), y=np.zeros(1)))
        ids = [begin(client, file).document["id"] for file in (wrong, pickled)]
        first, second = (ended(client, id) for id in ids)
        assert (first["status"], first["error"]["code"]) == ("failed", "InputError")
        assert "[8, 5]" in first["error"]["message"]
        assert (second["status"], second["error"]["code"]) == ("failed", "InputError")
        assert "npy" in second["error"]["message"]
        assert str(folder) not in json.dumps([first, second, events(client, ids[0])])
        assert versions(folder) == ["1"]
        client.connection.close()


def test_a_job_that_dies_harms_no_serving_and_is_gone_on_with_on_request(folder: Path, undisturbed: bytes) -> None:
    with serve_in_thread([str(folder / "models")], jobs=folder / "jobs", architecture=Slow) as url:
        client = Client(url)
        file = upload(client)
        id = begin(client, file, **LONG).document["id"]
        at_work(client, id)
        infer = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]}]}
        assert client("POST", "/v2/models/iris/infer", infer).status == 200
        (child,) = [one for one in multiprocessing.active_children() if one.name == "aiaas-job"]
        os.kill(child.pid, signal.SIGSEGV)
        job = ended(client, id)
        assert job["status"] == "failed"
        assert "died (signal 11)" in job["error"]["message"]
        assert client("POST", "/v2/models/iris/infer", infer).status == 200
        wish = {"aiaas": {"fit": {**LONG["aiaas"]["fit"], "resume": True}}, "seed": 3}
        again = ended(client, begin(client, file, **wish).document["id"])
        assert again["status"] == "succeeded"
        assert events(client, again["id"])[0]["resumed"]
        client.connection.close()
    assert weights(folder) == undisturbed


# ---------------------------------------------------------------- the end of a server
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_goes_on_with_the_next_server_as_if_nothing_had_been(
    folder: Path, start: Callable[..., Process], undisturbed: bytes, number: int
) -> None:
    first = start()
    id = begin(first.client, upload(first.client), **LONG).document["id"]
    at_work(first.client, id)
    first.end(number)
    second = start()
    job = ended(second.client, id)
    assert job["status"] == "succeeded"
    told = events(second.client, id)
    assert [event["resumed"] for event in told if event["type"] == "started"] == [False, True]
    assert versions(folder) == ["1", "2"]
    assert weights(folder) == undisturbed


def test_a_job_whose_end_was_never_told_makes_no_second_version(folder: Path) -> None:
    """The server was killed after the new version was saved, and before anybody knew."""
    options = {"jobs": folder / "jobs", "architecture": Slow}
    with serve_in_thread([str(folder / "models")], **options) as url:
        client = Client(url)
        id = begin(client, upload(client), seed=1).document["id"]
        assert ended(client, id)["status"] == "succeeded"
        client.connection.close()
    job = folder / "jobs" / "jobs" / id
    (job / "events.jsonl").write_text("".join((job / "events.jsonl").read_text().splitlines(True)[:-1]))
    record = json.loads((job / "record.json").read_text())
    (job / "record.json").write_text(json.dumps({**record, "status": "running", "fine_tuned_model": None}))
    with serve_in_thread([str(folder / "models")], **options) as url:
        client = Client(url)
        assert ended(client, id)["fine_tuned_model"] == "iris@2"
        client.connection.close()
    assert versions(folder) == ["1", "2"]


def test_of_several_processes_one_does_the_jobs_and_all_tell_of_them(
    folder: Path, start: Callable[..., Process]
) -> None:
    server = start(2)
    ids = [begin(server.client, upload(server.client), seed=seed).document["id"] for seed in range(2)]
    for place, id in enumerate(ids):
        assert ended(server.client, id)["fine_tuned_model"] == f"iris@{place + 2}"  # one after the other
    for _ in range(8):  # on new connections: either process may answer
        client = Client(server.client.url)
        assert client("GET", "/v2/models/iris/versions/3").status == 200
        assert len(client("GET", "/v1/fine_tuning/jobs").document["data"]) == 2
        client.connection.close()


# ---------------------------------------------------------------- cancelled
def _read(url: str, path: str) -> str:
    client = Client(url)
    try:
        return client("GET", path).body.decode()
    finally:
        client.connection.close()


def test_a_job_at_work_is_cancelled_within_a_step_and_another_goes_on_from_it(folder: Path) -> None:
    with serve_in_thread([str(folder / "models")], jobs=folder / "jobs", architecture=Slow) as url:
        client = Client(url)
        file = upload(client)
        id = begin(client, file, **LONG).document["id"]
        waiting = begin(client, file, seed=5).document["id"]
        at_work(client, id)
        found: list[Any] = []
        path = f"/v1/fine_tuning/jobs/{id}/events?stream=true"
        watching = threading.Thread(target=lambda: found.append(_read(url, path)))
        watching.start()
        client("POST", f"/v1/fine_tuning/jobs/{id}/cancel")
        job = ended(client, id, 10)
        assert (job["status"], job["fine_tuned_model"]) == ("cancelled", None)
        watching.join(10)
        assert '"status":"cancelled"' in found[0]
        assert found[0].endswith("data: [DONE]\n\n")
        assert ended(client, waiting)["status"] == "succeeded"
        resumed = {"aiaas": {"fit": {**LONG["aiaas"]["fit"], "resume": True}}, "seed": 3}
        again = ended(client, begin(client, file, **resumed).document["id"])
        assert (again["status"], again["fine_tuned_model"]) == ("succeeded", "iris@3")
        assert again["aiaas"]["version"] == "1"  # though version 2 is served by now
        assert events(client, again["id"])[0]["resumed"]
        client.connection.close()


def test_a_script_that_would_serve_again_in_its_jobs_is_told_so(folder: Path) -> None:
    """It isn't guarded by __main__: the job's process imports it, and would wait for a job of its own."""
    program = folder / "program.py"
    program.write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, str(program), str(folder)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "the job's process died (status 1)" in done.stdout
    assert "must do so below if __name__ ==" in done.stdout
    assert "must not serve again" in done.stderr
