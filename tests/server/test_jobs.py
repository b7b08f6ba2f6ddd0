"""OpenAI's fine-tuning jobs: what is asked for, refused, listed; nobody does the jobs of this module's server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.server.training.records import EVENTS, Teller
from aiaas_sdk.wire import rowfile
from tests.server.conftest import Answer, Client
from tests.server.test_access import Keys
from tests.server.training import begin, create, ended, nobody_works, npz, rows, upload
from tests.stopwatch import Stopwatch


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("server")
    targets = [str(create(folder)), "echo:", f"pinned=torch:{folder}/models/iris@1"]
    with nobody_works(folder / "jobs"), serve_in_thread(targets, jobs=folder / "jobs") as url:
        client = Client(url)
        client.folder = folder / "jobs"
        yield client
        client.connection.close()


@pytest.fixture(scope="module")
def file(client: Client) -> str:
    return upload(client)


@pytest.fixture(autouse=True)
def _room(client: Client) -> Iterator[None]:
    """No test leaves jobs that wait."""
    yield
    import shutil

    for path in (client.folder / "jobs").iterdir():
        shutil.rmtree(path)


def refused(answer: Answer, status: int = 400) -> Any:
    assert answer.status == status, answer.body
    assert set(answer.document["error"]) == {"message", "type", "param", "code"}
    return answer.document["error"]


# ---------------------------------------------------------------- announced
def test_what_can_be_trained_says_so(client: Client) -> None:
    assert "training" in client("GET", "/v2").document["extensions"]
    assert client("GET", "/v2/models/iris").document["parameters"]["training"] is True
    for name in ("echo", "pinned"):
        assert "training" not in client("GET", f"/v2/models/{name}").document.get("parameters", {})


# ---------------------------------------------------------------- asked for
def test_a_job_is_told_as_openai_tells_it(client: Client, file: str) -> None:
    wish = {
        "hyperparameters": {"n_epochs": 4, "batch_size": "auto", "learning_rate_multiplier": "auto"},
        "seed": 7,
        "suffix": "mine",
        "metadata": {"why": "a test"},
        "validation_file": file,
        "aiaas": {"fit": {"optimizer": "momentum", "metrics": ["accuracy", "f1"]}},
    }
    told = begin(client, file, **wish).document
    assert (told["object"], told["model"], told["status"]) == ("fine_tuning.job", "iris", "queued")
    assert (told["training_file"], told["validation_file"], told["seed"]) == (file, file, 7)
    assert told["method"]["supervised"]["hyperparameters"]["n_epochs"] == 4
    assert told["metadata"] == {"why": "a test"}
    assert told["user_provided_suffix"] == "mine"
    assert told["finished_at"] is told["fine_tuned_model"] is told["error"] is None
    fit = told["aiaas"]["fit"]
    assert (fit["epochs"], fit["batch_size"], fit["optimizer"], fit["metrics"]) == (
        4,
        32,
        "momentum",
        ["accuracy", "f1"],
    )
    assert told["aiaas"]["version"] == "1"
    assert client("GET", f"/v1/fine_tuning/jobs/{told['id']}").document == told
    assert str(client.folder) not in json.dumps(told)


def test_a_seed_that_nobody_gave_is_drawn_and_noted(client: Client, file: str) -> None:
    one, other = (begin(client, file).document["seed"] for _ in range(2))
    assert isinstance(one, int)
    assert one != other


def test_a_version_can_be_asked_for(client: Client, file: str) -> None:
    assert begin(client, file, model="iris@1").document["aiaas"]["version"] == "1"
    assert "no version" in refused(begin(client, file, model="iris@9"), 404)["message"]


@pytest.mark.parametrize(
    ("wish", "status", "said"),
    [
        ({"model": "nothing"}, 404, "no model"),
        ({"model": ""}, 400, "model"),
        ({"model": "echo"}, 400, "can't be trained"),
        ({"model": "pinned"}, 400, "can't be trained"),
        ({"training_file": "file-" + "0" * 24}, 400, "training_file"),
        ({"training_file": "../../etc/passwd"}, 400, "training_file"),
        ({"training_file": 1}, 400, "training_file"),
        ({"validation_file": "file-x"}, 400, "validation_file"),
        ({"hyperparameters": {"n_epochs": 0}}, 400, "epochs"),
        ({"hyperparameters": {"learning_rate_multiplier": 2}}, 400, "learning_rate_multiplier"),
        ({"method": {"type": "dpo"}}, 400, "dpo"),
        ({"integrations": [{"type": "wandb"}]}, 400, "integrations"),
        ({"metadata": {"a": 1}}, 400, "metadata"),
        ({"metadata": {str(n): "x" for n in range(17)}}, 400, "metadata"),
        ({"seed": "x"}, 400, "seed"),
        ({"aiaas": []}, 400, "aiaas"),
        ({"aiaas": {"fit": {"optimizer": "adamm"}}}, 400, "adam"),
        ({"aiaas": {"fit": {"nonsense": 1}}}, 400, "nonsense"),
        ({"aiaas": {"fit": {"checkpoint": "/tmp/x"}}}, 400, "no request names one"),
        ({"aiaas": {"fit": {"tensorboard": "/tmp/x"}}}, 400, "no request names one"),
        ({"aiaas": {"fit": {"workers": 2}}}, 400, "one process"),
        ({"aiaas": {"fit": {"loss": {"a": 1}}}}, 400, "loss"),
    ],
)
def test_a_job_that_cannot_be_is_refused_and_leaves_nothing(
    client: Client, file: str, wish: dict[str, Any], status: int, said: str
) -> None:
    answer = client("POST", "/v1/fine_tuning/jobs", {"model": "iris", "training_file": file, **wish})
    assert said in refused(answer, status)["message"]
    assert list((client.folder / "jobs").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"messages": [{"role": "user", "content": "x"}]}\n' * 40, "JSONL"),
        (b"x", "neither safetensors nor npz"),
        (b"", "empty"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{      }", "no array x"),
        (b"".join(rowfile.encode(rowfile.named({}, {}))), "no array x"),
    ],
)
def test_a_file_that_holds_no_rows_is_refused(client: Client, content: bytes, said: str) -> None:
    error = refused(begin(client, upload(client, content)))
    assert said in error["message"]
    assert (error["param"], error["code"]) == ("training_file", "invalid_training_file")


def test_one_key_makes_one_job(client: Client, file: str) -> None:
    key = {"idempotency-key": "mine"}
    ids = {begin(client, file, key).document["id"] for _ in range(3)}
    assert len(ids) == 1
    assert refused(begin(client, file, key, seed=1), 422)["code"] == "idempotency_key_reused"
    assert begin(client, file, {"idempotency-key": "other"}).document["id"] not in ids
    assert len(client("GET", "/v1/fine_tuning/jobs").document["data"]) == 2
    refused(begin(client, file, {"idempotency-key": "x" * 300}))


def test_a_deleted_file_harms_no_job(client: Client) -> None:
    x, y = rows(8)
    file = upload(client, npz(x=x, y=y))
    id = begin(client, file).document["id"]
    client("DELETE", f"/v1/files/{file}")
    assert np.array_equal(rowfile.decode((client.folder / "jobs" / id / "training").read_bytes())["x"].array, x)


def test_nobody_fills_the_queue(client: Client, file: str) -> None:
    answers = [begin(client, file) for _ in range(17)]
    assert [answer.status for answer in answers[:-1]] == [200] * 16
    assert "too many jobs" in refused(answers[-1], 429)["message"]
    assert answers[-1].headers["retry-after"] == "60"


# ---------------------------------------------------------------- lists
def test_jobs_are_listed_in_pages_newest_first(client: Client, file: str) -> None:
    ids = [begin(client, file).document["id"] for _ in range(5)]
    first = client("GET", "/v1/fine_tuning/jobs?limit=2").document
    assert [one["id"] for one in first["data"]] == ids[:2:-1]
    assert first["has_more"]
    rest = client("GET", f"/v1/fine_tuning/jobs?limit=10&after={ids[3]}").document
    assert [one["id"] for one in rest["data"]] == ids[2::-1]
    assert not rest["has_more"]


def told(client: Client, id: str, count: int, begin: int = 0) -> None:
    """Events of a job, as its process tells them."""
    teller = Teller(client.folder / "jobs" / id / EVENTS)
    for step in range(begin, begin + count):
        teller.tell({"type": "step", "epoch": 1, "step": step, "metrics": {"loss": float(step)}})
    teller.tell({"type": "checkpoint", "epoch": 1, "step": begin + count})
    teller.close()


def test_events_are_listed_newest_first_as_openai_does_and_oldest_first_on_request(client: Client, file: str) -> None:
    id = begin(client, file).document["id"]
    path = f"/v1/fine_tuning/jobs/{id}/events"
    assert client("GET", path).document["data"] == []
    told(client, id, 5)
    first = client("GET", f"{path}?limit=4").document
    assert [event["data"].get("step") for event in first["data"]] == [5, 4, 3, 2]
    assert first["has_more"]
    assert first["data"][1]["type"] == "metrics"
    assert first["data"][1]["message"] == "step 4: loss 4"
    rest = client("GET", f"{path}?after={first['last_id']}").document
    assert [event["data"]["step"] for event in rest["data"]] == [1, 0]
    assert not rest["has_more"]
    asc = client("GET", f"{path}?order=asc&after=4").document
    assert [event["data"]["step"] for event in asc["data"]] == [4, 5]
    by_id = client("GET", f"{path}?order=asc&after={asc['first_id']}").document
    assert [event["data"]["step"] for event in by_id["data"]] == [5]
    refused(client("GET", f"{path}?after=x"))
    refused(client("GET", f"{path}?order=asc&wait=x"))


def test_events_can_be_waited_for(client: Client, file: str) -> None:
    id = begin(client, file).document["id"]
    watch = Stopwatch()
    path = f"/v1/fine_tuning/jobs/{id}/events?order=asc&after=0"
    assert client("GET", f"{path}&wait=1").document["data"] == []
    assert 0.8 < watch.took() < 4
    told(client, id, 1)
    watch = Stopwatch()
    assert len(client("GET", f"{path}&wait=20").document["data"]) == 2
    assert watch.took() < 4


def test_events_come_as_a_stream_that_can_be_gone_on_with(client: Client, file: str) -> None:
    id = begin(client, file).document["id"]
    told(client, id, 3)
    teller = Teller(client.folder / "jobs" / id / EVENTS)
    teller.tell({"type": "ended", "status": "cancelled"})
    teller.close()
    record = client.folder / "jobs" / id / "record.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "status": "cancelled"}))
    path = f"/v1/fine_tuning/jobs/{id}/events?stream=true"
    answer = client("GET", path)
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = answer.body.decode().split("\n\n")
    assert [block.partition("\n")[0] for block in blocks[:-1]] == [*(f"id: {n}" for n in range(1, 6)), "data: [DONE]"]
    assert json.loads(blocks[4].partition("data: ")[2])["data"]["status"] == "cancelled"
    rest = client("GET", path, headers={"last-event-id": "4"}).body.decode()
    assert rest.startswith("id: 5\n")
    assert client("GET", f"{path}&after=5").body == b"data: [DONE]\n\n"


def test_half_an_event_is_not_told_and_is_cut_off_by_who_goes_on(client: Client, file: str) -> None:
    id = begin(client, file).document["id"]
    told(client, id, 2)
    path = client.folder / "jobs" / id / EVENTS
    with path.open("ab") as file_:
        file_.write(b'{"type": "st')
    assert len(client("GET", f"/v1/fine_tuning/jobs/{id}/events").document["data"]) == 3
    told(client, id, 1, begin=9)
    asc = client("GET", f"/v1/fine_tuning/jobs/{id}/events?order=asc").document["data"]
    assert [event["data"]["step"] for event in asc] == [0, 1, 2, 9, 10]


def test_checkpoints_are_listed(client: Client, file: str) -> None:
    id = begin(client, file).document["id"]
    told(client, id, 3)
    (one,) = client("GET", f"/v1/fine_tuning/jobs/{id}/checkpoints").document["data"]
    assert (one["object"], one["step_number"], one["fine_tuning_job_id"]) == ("fine_tuning.job.checkpoint", 3, id)
    assert one["metrics"] == {"step": 3, "train_loss": 2.0}


# ---------------------------------------------------------------- whose they are
def test_a_caller_sees_his_own_alone(tmp_path: Path, keys: Keys) -> None:
    for name in ("ann", "bob", "eve"):
        keys.add(name, training=True, **({"models": ["echo"]} if name == "eve" else {}))
    ann, bob, eve = ({"authorization": f"Bearer {keys.texts[name]}"} for name in ("ann", "bob", "eve"))
    targets = [str(create(tmp_path)), "echo:"]
    with nobody_works(tmp_path / "jobs"), serve_in_thread(targets, jobs=tmp_path / "jobs", api_keys=keys.path) as url:
        client = Client(url)
        assert client("GET", "/v1/files").status == 401
        key = {"idempotency-key": "same"}
        file = upload(client, headers=ann)
        id = begin(client, file, {**ann, **key}).document["id"]
        other = begin(client, upload(client, headers=bob), {**bob, **key}).document["id"]
        assert other != id
        assert "training_file" in refused(begin(client, file, bob))["message"]
        for path in ("", "/events", "/events?stream=true", "/checkpoints"):
            refused(client("GET", f"/v1/fine_tuning/jobs/{id}{path}", headers=bob), 404)
        refused(client("POST", f"/v1/fine_tuning/jobs/{id}/cancel", headers=bob), 404)
        for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            refused(client(method, f"/v1/files/{file}{path}", headers=bob), 404)
        assert [one["id"] for one in client("GET", "/v1/fine_tuning/jobs", headers=bob).document["data"]] == [other]
        assert file not in [one["id"] for one in client("GET", "/v1/files", headers=bob).document["data"]]
        refused(begin(client, upload(client, headers=eve), eve), 404)  # which may not use the model
        client.connection.close()


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


# ---------------------------------------------------------------- an end before the beginning
def test_a_job_that_waits_can_be_cancelled(tmp_path: Path) -> None:
    targets = [str(create(tmp_path))]
    with nobody_works(tmp_path / "jobs"), serve_in_thread(targets, jobs=tmp_path / "jobs") as url:
        client = Client(url)
        id = begin(client, upload(client)).document["id"]
        assert client("POST", f"/v1/fine_tuning/jobs/{id}/cancel").document["id"] == id
        client.connection.close()
    with serve_in_thread(targets, jobs=tmp_path / "jobs") as url:  # another server, which does its jobs
        client = Client(url)
        job = ended(client, id)
        assert job["status"] == "cancelled"
        assert job["finished_at"]
        assert client("POST", f"/v1/fine_tuning/jobs/{id}/cancel").document["status"] == "cancelled"
        assert not (tmp_path / "jobs" / "jobs" / id / "training").exists()
        client.connection.close()


def test_the_description_of_the_server_has_it_all(client: Client) -> None:
    document = client("GET", "/openapi.json").document
    training = [path for path in document["paths"] if path.startswith(("/v1/files", "/v1/uploads", "/v1/fine_tuning"))]
    assert len(training) == 12
    events = document["paths"]["/v1/fine_tuning/jobs/{job}/events"]["get"]
    assert {one["name"] for one in events["parameters"]} == {"job", "after", "limit", "order", "wait", "stream"}
