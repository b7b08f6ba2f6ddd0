"""The same `fit` on an endpoint, both faces: what is sent, what comes back, and what happens where the way breaks."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

import aiaas_sdk as aiaas
from aiaas_sdk.backends import training
from aiaas_sdk.errors import ConfigError, InputError, TrainingError, UnsupportedOperationError
from aiaas_sdk.server import serve_in_thread
from tests.server.conftest import Client
from tests.server.training import create, nobody_works, rows
from tests.stopwatch import Stopwatch
from tests.training.modules import Held, same


class Served:
    """A server that trains, and its folders."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.address = f"{url}/v2/models/iris"

    def jobs(self) -> list[Any]:
        return self._get("/v1/fine_tuning/jobs?limit=100")

    def files(self) -> list[Any]:
        return self._get("/v1/files")

    def _get(self, path: str) -> Any:
        client = Client(self.url)
        try:
            return client("GET", path).document["data"]
        finally:
            client.connection.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve_in_thread([str(create(tmp_path))], jobs=tmp_path / "jobs") as url:
        yield Served(tmp_path, url)


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Served]:
    """One whose jobs wait."""
    with nobody_works(tmp_path / "jobs"), serve_in_thread([str(create(tmp_path))], jobs=tmp_path / "jobs") as url:
        yield Served(tmp_path, url)


LONG: dict[str, Any] = {"epochs": 6, "batch_size": 8, "checkpoint_seconds": 0.1}
"""A minute's work for a model that is held."""


def held(folder: Path) -> str:
    """A repository whose model is held until there is folder/free."""
    torch.manual_seed(0)
    module = Held(str(folder / "free"))
    aiaas.save(module, folder / "models" / "iris", example=torch.zeros(2, 4), labels=["a", "b", "c"])
    return str(folder / "models")


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Served]:
    """One whose runs are caught at work, until there is folder/free."""
    with serve_in_thread([held(tmp_path)], jobs=tmp_path / "jobs", architecture=Held) as url:
        yield Served(tmp_path, url)


# ---------------------------------------------------------------- the same as here
@pytest.mark.slow
def test_a_run_there_is_a_run_here(load: Any, served: Served) -> None:
    x, y = rows()
    settings = {"epochs": 3, "seed": 1, "validation": 0.2, "optimizer": "momentum", "metrics": ("accuracy", "f1")}
    with load(served.address, timeout=60) as model:
        assert "fit" in model.info().verbs
        run = model.fit(x, y, **settings)
        kinds = [event["type"] for event in run.events()]
        assert (kinds[0], kinds[-1], kinds.count("epoch")) == ("started", "ended", 3)
        assert run.wait(30).status == "succeeded"
        assert run.id.startswith("ftjob-")
        better = run.result()
        assert better.info().version == "2"
        assert "versions/2" in str(list(run.events())[-1]["address"])
        asked = better.predict(x)
        better.close()
    with load(f"torch:{served.folder}/models/iris@1") as model:
        here = model.fit(x, y, **settings)
        assert here.result().predict(x).array.tobytes() == asked.array.tobytes()
        assert here.history == run.history
    assert same(*(f"torch:{served.folder}/models/iris@{version}" for version in (2, 3)))


@pytest.mark.slow
def test_rows_of_its_own_check_the_result(load: Any, served: Served) -> None:
    x, y = rows()
    with load(served.address, timeout=60) as model:
        run = model.fit(torch.from_numpy(x), torch.from_numpy(y), validation=(x[:32], y[:32]), epochs=2, seed=1)
        assert run.wait(60).status == "succeeded"
        assert set(run.history) == {"loss", "accuracy", "validation_loss", "validation_accuracy"}
    assert len(served.files()) == 2


@pytest.mark.slow
def test_a_run_there_is_cancelled_and_gone_on_with(load: Any, slow: Served) -> None:
    x, y = rows()
    settings = {**LONG, "seed": 3}
    with load(slow.address, timeout=60) as model:
        run = model.fit(x, y, **settings)
        assert any(event["type"] == "checkpoint" for event in run.events())
        run.cancel()
        assert run.wait(60).status == "cancelled"
        run.cancel()
        with pytest.raises(TrainingError, match="was cancelled"):
            run.result()
        (slow.folder / "free").touch()
        rest = model.fit(x, y, resume=True, **settings)
        assert next(iter(rest.events()))["resumed"]
        assert rest.wait(60).status == "succeeded"
        assert len(rest.history["loss"]) == 6
        assert len(slow.files()) == 1  # the rows went once


@pytest.mark.slow
def test_what_ends_a_run_there_is_raised_as_it_would_be_here(load: Any, served: Served) -> None:
    x, y = rows()
    with load(served.address, timeout=60) as model:
        run = model.fit(x * 1e30, y, epochs=2, optimizer="sgd", learning_rate=1e30, seed=1)
        with pytest.raises(TrainingError, match="loss became") as raised:
            run.result()
        assert "learning_rate" in (raised.value.hint or "")
        assert run.status == "failed"


# ---------------------------------------------------------------- refused before anything is sent
@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"loss": lambda outputs, targets: 0}, UnsupportedOperationError, "loss is a function"),
        ({"optimizer": torch.optim.SGD}, UnsupportedOperationError, "optimizer is a function"),
        ({"workers": 2}, UnsupportedOperationError, "one process"),
        ({"checkpoint": "here"}, UnsupportedOperationError, "checkpoint is a folder"),
        ({"tensorboard": "here"}, UnsupportedOperationError, "tensorboard is a folder"),
        ({"optimizer": "adamm"}, ConfigError, "adamm"),
    ],
)
def test_what_an_endpoint_cannot_take_is_said_before_the_upload(
    load: Any, waiting: Served, settings: dict[str, Any], error: type[Exception], said: str
) -> None:
    with load(waiting.address, timeout=10) as model:
        with pytest.raises(error, match=said):
            model.fit(*rows(), **settings)
        with pytest.raises(InputError):
            model.fit(rows()[0].astype(np.float64), rows()[1])
        with pytest.raises(UnsupportedOperationError, match="can't be sent"):
            model.fit(TensorDataset(*map(torch.from_numpy, rows())))
    assert list((waiting.folder / "jobs" / "uploads").iterdir()) == []


def test_an_endpoint_without_jobs_says_what_would_help(load: Any, tmp_path: Path) -> None:
    with serve_in_thread([str(create(tmp_path))]) as url, load(f"{url}/v2/models/iris", timeout=10) as model:
        assert "fit" not in model.info().verbs
        with pytest.raises(UnsupportedOperationError, match="--jobs"):
            model.fit(*rows())


def test_a_version_that_is_pinned_is_the_one_that_is_trained(load: Any, waiting: Served) -> None:
    with load(f"{waiting.address}/versions/1", timeout=10) as model:
        model.fit(*rows())
    (job,) = waiting.jobs()
    assert (job["model"], job["aiaas"]["version"]) == ("iris", "1")


# ---------------------------------------------------------------- a broken way
class Cutting:
    """A way to a server on which answers are lost, or bodies are cut.

    Args:
        cut: is given the place of a request (from 0), its first line, and the bytes of its body that have gone up;
            "up" cuts it then, "down" takes it to the server and loses the answer, and "" lets it pass.
    """

    def __init__(self, url: str, cut: Any) -> None:
        parts = urlsplit(url)
        self._to, self._cut = (parts.hostname, parts.port), cut
        self.requests: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(stream,), daemon=True).start()

    def _pass(self, stream: socket.socket) -> None:
        """One request; its connection ends with it."""
        with stream, socket.create_connection(self._to, timeout=30) as there:
            stream.settimeout(30)
            data = b""
            while b"\r\n\r\n" not in data:
                if not (piece := stream.recv(65536)):
                    return
                data += piece
            head, _, body = data.partition(b"\r\n\r\n")
            line = head.decode().partition("\r\n")[0]
            place = len(self.requests)
            self.requests.append(line)
            length = next(
                (int(v.split(b":")[1]) for v in head.split(b"\r\n") if v.lower().startswith(b"content-length:")), 0
            )
            there.sendall(head + b"\r\nconnection: close\r\n\r\n" + body)
            gone = len(body)
            while gone < length:
                if self._cut(place, line, gone) == "up":
                    return
                piece = stream.recv(65536)
                there.sendall(piece)
                gone += len(piece)
            answer = b""
            while piece := there.recv(65536):
                answer += piece
            if self._cut(place, line, gone) != "down":
                stream.sendall(answer)

    def close(self) -> None:
        self._listener.close()


def test_a_lost_answer_makes_no_second_job(load: Any, waiting: Served) -> None:
    lost: list[int] = []

    def cut(place: int, line: str, gone: int) -> str:
        if line.startswith("POST /v1/fine_tuning/jobs ") and len(lost) < 2:
            lost.append(place)
            return "down"
        return ""

    way = Cutting(waiting.url, cut)
    with load(f"{way.url}/v2/models/iris", timeout=30) as model:
        run = model.fit(*rows())
        assert run.status == "queued"
    way.close()
    assert len(lost) == 2
    assert [job["id"] for job in waiting.jobs()] == [run.id]


@pytest.mark.parametrize("silent", ["POST /v1/uploads", "POST /v1/fine_tuning/jobs "])
def test_r03_a_submission_ends_with_its_timeout(load: Any, waiting: Served, silent: str) -> None:
    ended = threading.Event()

    def cut(place: int, line: str, gone: int) -> str:
        if line.startswith(silent):
            ended.wait(20)
            return "down"
        return ""

    way = Cutting(waiting.url, cut)
    try:
        with load(f"{way.url}/v2/models/iris", timeout=1) as model:
            model.info()
            watch = Stopwatch()
            with pytest.raises(aiaas.DeadlineExceededError):
                model.fit(*rows())
            assert watch.took() < 1 + 0.25
    finally:
        ended.set()
        way.close()


def test_every_lost_answer_of_an_upload_is_got_over(load: Any, waiting: Served) -> None:
    seen: set[str] = set()

    def cut(place: int, line: str, gone: int) -> str:
        kind = line.split()[1].rpartition("/")[2]
        if not line.startswith("POST") or kind in seen:
            return ""
        seen.add(kind)
        return "down"

    way = Cutting(waiting.url, cut)
    with load(f"{way.url}/v2/models/iris", timeout=30) as model:
        run = model.fit(*rows())
    way.close()
    assert seen == {"uploads", "parts", "complete", "jobs"}
    assert len(waiting.files()) == 1
    assert [job["id"] for job in waiting.jobs()] == [run.id]


def test_an_upload_goes_on_after_a_broken_connection_where_it_stopped(
    load: Any, waiting: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "PART", 256 * 1024)
    x, y = rows(100_000)
    parts = -(-(x.nbytes + y.nbytes + 200) // training.PART)
    broken = [True]

    def cut(place: int, line: str, gone: int) -> str:
        sent = sum("/parts" in one for one in way.requests)
        return "up" if broken[0] and "/parts" in line and sent > 4 and gone > 100_000 else ""

    way = Cutting(waiting.url, cut)
    with load(f"{way.url}/v2/models/iris", timeout=30) as model:
        with pytest.raises(aiaas.ConnectionLostError):
            model.fit(x, y, seed=1)
        assert waiting.jobs() == []
        before = sum("/parts" in one for one in way.requests)
        broken[0] = False
        model.fit(x, y, seed=1)
        assert sum("/parts" in one for one in way.requests) - before == parts - 4  # four had arrived
        again = len(way.requests)
        model.fit(x, y, seed=2)
        assert not any("/parts" in one for one in way.requests[again:])  # all of it is there
    way.close()
    (file,) = waiting.files()
    assert len(waiting.jobs()) == 2
    assert file["bytes"] > x.nbytes + y.nbytes


@pytest.mark.slow
def test_whoever_watches_a_run_gets_over_a_restart(load: Any, tmp_path: Path) -> None:
    targets, folder = [held(tmp_path)], tmp_path / "jobs"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    model = load(f"http://127.0.0.1:{port}/v2/models/iris", timeout=30)
    with serve_in_thread(targets, jobs=folder, port=port, architecture=Held):
        run = model.fit(*rows(), **LONG, seed=1)
        told = iter(run.events())
        assert any(event["type"] == "checkpoint" for event in told)
    (tmp_path / "free").touch()
    again = threading.Thread(target=_serve, args=(targets, folder, port, run), daemon=True)
    again.start()
    rest = list(told)
    again.join(60)
    assert [event["resumed"] for event in rest if event["type"] == "started"] == [True]
    assert run.status == "succeeded"
    assert len(run.history["loss"]) == 6
    model.close()


def _serve(targets: list[str], folder: Path, port: int, run: Any) -> None:
    time.sleep(1)  # nobody is there for a while
    with serve_in_thread(targets, jobs=folder, port=port, architecture=Held):
        end = time.monotonic() + 60
        while run.status not in ("succeeded", "failed", "cancelled") and time.monotonic() < end:
            time.sleep(0.05)


def test_waiting_has_an_end(load: Any, waiting: Served) -> None:
    with load(waiting.address, timeout=10) as model:
        run = model.fit(*rows())
        begun = time.monotonic()
        with pytest.raises(aiaas.DeadlineExceededError, match=r"run goes on|wait again") as raised:
            run.wait(0.5)
        assert time.monotonic() - begun < 5
        assert "wait again" in (raised.value.hint or "")
        assert run.status == "queued"
        run.cancel()
    assert json.dumps(waiting.jobs())
