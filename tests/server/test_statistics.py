"""What is counted of each model: Triton's statistics, over all protocols and versions."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from contextvars import copy_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.prediction import Prediction
from aiaas_sdk.server.room import Room
from aiaas_sdk.server.statistics import Statistics
from aiaas_sdk.server.visits import begun
from aiaas_sdk.testing.scripted import Script

ROWS = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}]}
CHAT = {"model": "llm", "messages": [{"role": "user", "content": "hello"}]}


def stats(client: Any, path: str = "/v2/models/one/stats") -> dict[str, Any]:
    (row,) = client("GET", path).document["model_stats"]
    assert isinstance(row, dict)
    return row


def test_calls_rows_and_times_are_counted(serving: Any) -> None:
    client = serving("one=echo:?x=FP32[-1,3]")
    before = time.time() * 1000
    for _ in range(3):
        assert client("POST", "/v2/models/one/infer", ROWS).status == 200
    found = stats(client)
    assert (found["name"], found["version"]) == ("one", "1")
    assert (found["inference_count"], found["execution_count"]) == (6, 3)
    assert before - 1 <= found["last_inference"] <= time.time() * 1000 + 1
    times = found["inference_stats"]
    assert times["success"]["count"] == times["queue"]["count"] == times["compute_infer"]["count"] == 3
    assert times["success"]["ns"] >= times["queue"]["ns"] > 0
    assert times["fail"] == {"count": 0, "ns": 0}
    assert [row["batch_size"] for row in found["batch_stats"]] == [2]
    assert found["batch_stats"][0]["compute_infer"]["count"] == 3


def test_the_shape_is_tritons(serving: Any) -> None:
    """The members that tritonclient's users read; extension_statistics.md has them."""
    found = stats(serving("one=echo:?x=FP32[-1,3]"))
    assert found.keys() == {
        "name",
        "version",
        "last_inference",
        "inference_count",
        "execution_count",
        "inference_stats",
        "response_stats",
        "batch_stats",
        "memory_usage",
    }
    assert found["inference_stats"].keys() == {
        "success",
        "fail",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
        "cache_hit",
        "cache_miss",
    }
    assert all(value == {"count": 0, "ns": 0} for value in found["inference_stats"].values())


def test_what_fails_is_counted_apart(serving: Any) -> None:
    script = Script(inputs={"x": ("FP32", (-1, 3))}, outputs={"y": ("FP32", (-1,))})
    script.answer([1.0, 2.0])
    script.answer(aiaas.ModelError("it broke"))
    client = serving(f"one={script.address}")
    assert client("POST", "/v2/models/one/infer", ROWS).status == 200
    assert client("POST", "/v2/models/one/infer", ROWS).status == 500
    found = client("GET", "/v2/models/one/stats").document["model_stats"]
    assert sum(row["inference_stats"]["success"]["count"] for row in found) == 1
    assert sum(row["inference_stats"]["fail"]["count"] for row in found) == 1


def test_language_calls_are_counted_too(serving: Any) -> None:
    script = Script()
    script.say("Hello!")
    script.stream(["Hel", "lo"])
    script.embed([[0.1, 0.9], [0.2, 0.8]])
    client = serving(f"llm={script.address}")
    assert client("POST", "/v1/chat/completions", CHAT).status == 200
    assert b"[DONE]" in client("POST", "/v1/chat/completions", {**CHAT, "stream": True}).body
    assert client("POST", "/v1/embeddings", {"model": "llm", "input": ["a", "b"]}).status == 200
    found = client("GET", "/v2/models/llm/stats").document["model_stats"]
    assert sum(row["inference_stats"]["success"]["count"] for row in found) == 3


def test_rows_that_share_a_pass_are_one_execution(serving: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.server.slow import save_slow

    client = serving(f"one=torch:{save_slow(tmp_path / 'slow')}", max_batch_delay=0.05)
    with aiaas.load(f"{client.url}/v2/models/one") as model:
        model.predict(np.zeros((1, 1), np.float32))
        first = threading.Thread(target=model.predict, args=(np.full((1, 1), 1000.6, np.float32),))
        first.start()
        time.sleep(0.1)
        others = [threading.Thread(target=model.predict, args=(np.zeros((2, 1), np.float32),)) for _ in range(3)]
        for thread in others:
            thread.start()
        for thread in (first, *others):
            thread.join()
    found = stats(client)
    assert found["inference_count"] == 8
    # the three calls of two rows waited together, and shared a pass, which is told among those of up to 8
    assert {row["batch_size"]: row["compute_infer"]["count"] for row in found["batch_stats"]} == {1: 2, 8: 1}
    assert found["execution_count"] == 3


def test_each_version_has_its_own_and_a_strange_one_is_404(serving: Any) -> None:
    client = serving("one=echo:?x=FP32[-1,3]", "two=echo:?x=FP32[-1,3]")
    client("POST", "/v2/models/one/versions/1/infer", ROWS)
    assert stats(client, "/v2/models/one/versions/1/stats")["inference_count"] == 2
    assert client("GET", "/v2/models/one/versions/7/stats").status == 404
    assert client("GET", "/v2/models/nothing/stats").status == 404
    told = {row["name"]: row["inference_count"] for row in client("GET", "/v2/models/stats").document["model_stats"]}
    assert told == {"one": 2, "two": 0}


def test_a_call_costs_little() -> None:
    """2 us on a quiet machine; the bound here is for one on which others work, too."""
    counted = Statistics("m")
    answer = Prediction(Call("predict", version="1", queue=0.001, compute=0.002, rows=3), {}, {}, None)

    def once() -> float:
        begin = time.process_time()
        for _ in range(2000):
            with counted.measured("predict", shared=True) as measured:
                measured.told(answer)
        return (time.process_time() - begin) / 2000

    def least() -> float:
        begun(Room(1))
        return min(once() for _ in range(9))

    assert copy_context().run(least) < 20e-6


TRITONCLIENT = """
import json, sys
import tritonclient.http as triton
with triton.InferenceServerClient(sys.argv[1]) as client:
    one = client.get_inference_statistics("one")
    both = client.get_inference_statistics()
print(json.dumps([one, both]))
"""


@pytest.mark.peer
@pytest.mark.slow
def test_tritons_own_client_reads_them(serving: Any) -> None:
    python = Path(__file__).parents[2] / ".peers/triton/bin/python"
    if not python.exists():
        pytest.skip("scripts/peers.sh triton makes the environment")
    client = serving("one=echo:?x=FP32[-1,3]", "two=echo:")
    client("POST", "/v2/models/one/infer", ROWS)
    where = f"{client.host}:{client.port}"
    told = subprocess.run([python, "-c", TRITONCLIENT, where], capture_output=True, text=True, timeout=60)
    one, both = json.loads(told.stdout)
    assert one["model_stats"][0]["inference_count"] == 2
    assert [row["name"] for row in both["model_stats"]] == ["one", "two"]


def test_versions_without_end_and_passes_of_any_size_leave_room_for_others() -> None:
    counted = Statistics("m")
    for version in range(300):
        for rows in (1, 2, 3, 60, 5000):
            counted.passed(str(version), rows, 0.1)
    assert len(counted.ledger.totals()) < 40
    assert counted.to_dict("0")["execution_count"] == 5
    sizes = {row["batch_size"]: row["compute_infer"]["count"] for row in counted.to_dict("0")["batch_stats"]}
    assert sizes == {1: 1, 2: 1, 4: 1, 64: 1, 2048: 1}
    assert counted.to_dict("other")["execution_count"] == 5 * (300 - 32)
