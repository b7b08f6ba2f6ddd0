"""One suite for every backend and both faces: the same lines, the same answers, the same errors.

The model is the digits CNN: as a bundle here, behind `aiaas serve` in another process, behind a second server that
is a gateway to the first, and as a route whose first member isn't there.
"""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread
from tests.stopwatch import Stopwatch

torch = pytest.importorskip("torch")
CNN = pytest.importorskip("aiaas_sdk.architectures.cnn").CNN
LABELS = [str(digit) for digit in range(10)]


class DigitsCNN(CNN):
    """The digits network under a class that nobody registered, so that it is saved as a program."""


class Digit(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    inputs: np.ndarray


class Answer(BaseModel):
    label: str
    probability: float


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the user who saved the models: everything here runs as that user."""
    return tmp_path_factory.mktemp("digits home")


@pytest.fixture(autouse=True)
def _as_that_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIAAS_HOME", str(home))


@pytest.fixture(scope="session")
def module() -> Any:
    torch.manual_seed(0)
    return DigitsCNN().eval()


@pytest.fixture(scope="session")
def bundle(module: Any, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIAAS_HOME", str(home))
        aiaas.save(module, path, example=np.zeros((1, 1, 28, 28), np.float32), labels=LABELS)
    return path


@contextmanager
def _serving(target: str, home: Path, log: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "aiaas_sdk.cli", "serve", target, "--port", str(port)]
    environment = {"AIAAS_HOME": str(home), "PATH": "/usr/bin:/bin"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v2/models/digits"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def served(bundle: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with _serving(str(bundle.parent), home, tmp_path_factory.mktemp("log") / "serve.log") as address:
        yield address


@pytest.fixture(scope="session")
def gateway(served: str, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with _serving(f"digits={served}", home, tmp_path_factory.mktemp("log") / "gateway.log") as address:
        yield address


@pytest.fixture(params=["torch", "oip", "gateway", "route", "route of torch"])
def where(request: pytest.FixtureRequest, bundle: Path) -> Any:
    if request.param == "torch":
        return f"torch:{bundle}"
    if request.param == "oip":
        return request.getfixturevalue("served")
    if request.param == "gateway":
        return request.getfixturevalue("gateway")
    nobody = "http://127.0.0.1:9/v2/models/digits"
    return [nobody, request.getfixturevalue("served") if request.param == "route" else f"torch:{bundle}"]


def images(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, 1, 28, 28)).astype(np.float32)


def answers(module: Any, x: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        result: np.ndarray = module(torch.from_numpy(x)).numpy()
    return result


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("rows", [1, 2, 17, 64])
def test_the_answer_is_the_modules_own(load: Any, where: Any, module: Any, rows: int) -> None:
    x = images(rows)
    with load(where) as model:
        pred = model.predict(x)
    wanted = answers(module, x)
    assert np.abs(pred["logits"] - wanted).max() <= 1e-6
    assert pred["logits"].dtype == np.float32
    assert [int(best) for [(best, _)] in pred.top(1)] == wanted.argmax(1).tolist()
    assert pred.usage.rows == rows
    assert pred.version == "1"
    assert pred.timing.total > 0


def test_the_same_batch_is_bit_equal_everywhere(load: Any, where: Any, bundle: Path) -> None:
    x = images(5)
    assert np.array_equal(load(where).predict(x).array, aiaas.load(bundle).predict(x).array)


def test_it_says_the_same_of_itself(load: Any, where: Any, bundle: Path) -> None:
    here, there = aiaas.load(bundle).info(), load(where).info()
    for name in ("inputs", "outputs", "labels", "version", "verbs", "device"):
        assert getattr(there, name) == getattr(here, name), name
    assert there.metadata["digest"] == here.metadata["digest"]


def test_torch_tensors_come_back_as_torch_tensors(load: Any, where: Any) -> None:
    answer = load(where).predict(torch.from_numpy(images(2))).array
    assert isinstance(answer, torch.Tensor)
    assert answer.shape == (2, 10)


def test_no_rows_give_no_rows(load: Any, where: Any) -> None:
    assert load(where).predict(images(0)).array.shape == (0, 10)


@pytest.mark.parametrize(
    "x",
    [
        images(2).astype(">f4"),
        images(4)[::2],
        images(2)[::-1],
        np.asfortranarray(images(2)),
        images(2).tolist(),
    ],
    ids=["big-endian", "strided", "reversed", "fortran", "list"],
)
def test_odd_arrays_are_taken_right(load: Any, where: Any, x: Any, module: Any) -> None:
    wanted = answers(module, np.ascontiguousarray(x, dtype=np.float32))
    assert np.abs(load(where).predict(x).array - wanted).max() <= 1e-6


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (images(2).astype(np.float64), "wants FP32.*float64"),
        (images(2)[:, 0], r"shape \[2, 28, 28\]"),
        ({"picture": images(1)}, "unknown input 'picture'"),
        (np.zeros((1, 1, 28, 28), object), "object"),
        (np.float32(3), r"shape \[\]"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_sent(load: Any, where: Any, x: Any, words: str) -> None:
    model = load(where)
    with pytest.raises(aiaas.InputError, match=words) as caught:
        model.predict(x)
    assert caught.value.attempts == 0
    with pytest.raises(aiaas.InputError, match="no output 'scores'"):
        model.predict(images(1), outputs=["scores"])


def test_nan_and_infinity_travel(load: Any, where: Any) -> None:
    x = images(2)
    x[0, 0, 3, 3], x[1, 0, 3, 3] = np.nan, np.inf
    answer = load(where).predict(x).array
    assert np.isnan(answer[0]).all()


def test_map_gives_one_answer_a_row(load: Any, where: Any, module: Any) -> None:
    x = images(70)
    found = list(load(where).map(x, batch_size=16, concurrency=3))
    assert np.abs(np.stack([answer.array for answer in found]) - answers(module, x)).max() <= 1e-5
    bad = [*x[:3], np.zeros((1, 28, 27), np.float32), *x[3:5]]
    found = list(load(where).map(bad, on_error="return"))
    assert [isinstance(answer, aiaas.InputError) for answer in found] == [False] * 3 + [True] + [False] * 2


def test_records_go_in_and_come_out(load: Any, where: Any, module: Any) -> None:
    x = images(3)
    model = load(where, input=Digit, output=Answer)
    found = model.predict([Digit(inputs=row) for row in x])
    assert [int(answer.label) for answer in found] == answers(module, x).argmax(1).tolist()
    assert model.predict(Digit(inputs=x[0])).label == found[0].label


def test_other_verbs_say_what_it_can(load: Any, where: Any) -> None:
    for verb, arguments in (("generate", ("x",)), ("embed", ("x",)), ("fit", (images(1),))):
        with pytest.raises(aiaas.UnsupportedOperationError, match=f"{verb} isn't available.*It can .*predict"):
            getattr(load(where), verb)(*arguments)


def test_it_is_ready_counts_and_closes(load: Any, where: Any) -> None:
    model = load(where, timeout=30)
    model.wait_ready(30)
    assert model.ready()
    view = model.with_options(timeout=20)
    view.predict(images(3))
    assert (model.stats().calls, model.stats().rows) == (1, 3)
    model.close()
    with pytest.raises(aiaas.ClosedError):
        model.predict(images(1))
    view.predict(images(1))
    view.close()


def test_a_deadline_is_kept(load: Any, where: Any) -> None:
    model = load(where)
    model.info()
    watch = Stopwatch()
    with pytest.raises(aiaas.DeadlineExceededError):
        model.predict(images(2000), timeout=0.02)
    assert watch.took() < 2
    assert model.predict(images(1), timeout=30).array.shape == (1, 10)


def test_another_version_is_not_there(load: Any, where: Any) -> None:
    if isinstance(where, list):
        pytest.skip("a route passes over what isn't there")
    with pytest.raises(aiaas.ModelNotFoundError):
        load(f"{where}@7").info()


def test_both_sides_compare_equal(bundle: Path, served: str) -> None:
    report = aiaas.compare(f"torch:{bundle}", served, images(8), repeat=3)
    assert report.equal
    assert report.max_abs == 0
    assert report.label_agreement == 1


def test_an_answer_that_is_dropped_gives_its_memory_back_at_once(load: Any) -> None:
    """Not only when the garbage collector comes: of large answers a few fill the memory."""
    with serve_in_thread(["wide=echo:?x=FP32[-1]"]) as url, load(f"{url}/v2/models/wide") as model:
        for size in (3, 1 << 20):
            gc.collect()
            gc.disable()
            try:
                answer = model.predict(np.ones(size, np.float32))
                memory = answer.array
                while isinstance(memory.base, np.ndarray):
                    memory = memory.base
                assert memory.flags.owndata
                held = weakref.ref(memory)
                del answer, memory
                if size > 3:
                    assert held() is None
                model.predict(np.ones(3, np.float32))
                assert held() is None
            finally:
                gc.enable()
