"""`fit(workers=2)`: real processes, and what becomes of them."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import aiaas_sdk as aiaas
from aiaas_sdk.backends.torch.training import processes, sharding
from tests.training.modules import flowers, weights
from tests.training.worker_modules import Fragile, Level, Slow, step

ROOT = Path(__file__).parent.parent.parent
SCRIPT = """
import sys
import aiaas_sdk as aiaas
from tests.training.worker_modules import Slow
from pathlib import Path

print("begun", flush=True)
model = aiaas.load(sys.argv[1])
run = model.fit(Slow(Path(sys.argv[2]), 400, 0.02), epochs=50, batch_size=8, workers=2)
for event in run.events():
    if event["type"] == "step":
        print("learning", flush=True)
        break
run.wait()
"""


def save(folder: Path, module: torch.nn.Module | None = None) -> str:
    torch.manual_seed(0)
    aiaas.save(module or Level(), folder / "model", example=torch.zeros(2, 4))
    return f"torch:{folder / 'model'}"


def alive(pid: int) -> bool:
    """Whether it runs; one that has ended and whose parent hasn't asked yet doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(met: Callable[[], Any], seconds: float = 40.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := met()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def pids(folder: Path, round: int = 0) -> list[int]:
    """Of both workers, once both read rows."""

    def both() -> list[int]:
        texts = [p.read_text() for p in (folder / f"{rank}-{round}" for rank in (0, 1)) if p.exists()]
        return [int(text) for text in texts if text] if len([t for t in texts if t]) == 2 else []

    return until(both)  # type: ignore[no-any-return]


def apart(a: Any, b: Any) -> float:
    one, other = weights(a), weights(b)
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def made(run: Any) -> str:
    run.wait(100)
    assert run.status == "succeeded", list(run.events())[-1]
    return str(list(run.events())[-1]["address"])


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


# ---------------------------------------------------------------- as one
@pytest.mark.slow
def test_two_workers_give_what_one_gives_and_leave_no_trace(
    tmp_path: Path, load: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    x, y = flowers(203)
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 25, "seed": 1, "validation": 0.2, "optimizer": step}
    with load(save(tmp_path)) as model:
        wanted = model.fit(x, y, **settings)
        alone = made(wanted)
        environment, filters = dict(os.environ), {name: list(_filters(name)) for name in _torch_loggers()}
        run = model.fit(x, y, workers=2, **settings)
        together = made(run)
        result = run.result()
        assert result.info().metadata["lineage"]["settings"]["workers"] == 2
        result.close()
    assert apart(alone, together) <= 1e-6
    assert run.history.keys() == wanted.history.keys()
    for name, values in wanted.history.items():
        assert run.history[name] == pytest.approx(values, abs=1e-6)
    events = list(run.events())
    assert events[0]["type"] == "started"
    assert events[0]["rows"] == 162
    assert [e["epoch"] for e in events if e["type"] == "epoch"] == [1, 2, 3]
    assert dict(os.environ) == environment
    assert {name: list(_filters(name)) for name in filters} == filters
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert not list((tmp_path / "model").glob(".training*"))


def _torch_loggers() -> list[str]:
    return [name for name in logging.root.manager.loggerDict if name.startswith("torch")]


def _filters(name: str) -> list[Any]:
    return logging.getLogger(name).filters


@pytest.mark.slow
def test_a_model_too_large_for_a_device_is_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = flowers(100)
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 20, "seed": 1, "optimizer": "adamw"}
    with aiaas.load(save(tmp_path)) as model:
        alone = made(model.fit(x, y, **settings))
        monkeypatch.setattr(sharding, "memory", lambda device, world: 64)
        assert apart(alone, made(model.fit(x, y, workers=2, **settings))) <= 1e-6


# ---------------------------------------------------------------- killed, stopped, failed
@linux
@pytest.mark.slow
def test_a_killed_worker_is_started_anew_and_all_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 12, "seed": 5, "workers": 2, "checkpoint_steps": 5}
    with aiaas.load(save(tmp_path)) as model:
        wanted = model.fit(Slow(tmp_path), **{**settings, "workers": 1})
        whole = made(wanted)
        run = model.fit(Slow(tmp_path, seconds=0.03), **settings)
        kills = [(10, 1), (25, 0)]
        for event in run.events():
            if kills and event["type"] == "checkpoint" and event["step"] >= kills[0][0]:
                os.kill(pids(tmp_path, 2 - len(kills))[kills.pop(0)[1]], signal.SIGKILL)
        cut = made(run)
    again = [event for event in run.events() if event["type"] == "started"]
    assert [event["resumed"] for event in again] == [False, True, True]
    assert again[2]["step"] >= 25
    assert apart(whole, cut) <= 1e-6
    assert run.history["loss"] == pytest.approx(wanted.history["loss"], abs=1e-6)
    assert "died" in caplog.text
    assert not any(alive(pid) for pid in pids(tmp_path) + pids(tmp_path, 1) + pids(tmp_path, 2))


@linux
@pytest.mark.slow
def test_a_worker_that_is_killed_each_time_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_FRAGILE", "killed")
    monkeypatch.setattr(processes, "RESTARTS", 1)
    with aiaas.load(save(tmp_path, Fragile())) as model:
        run = model.fit(*flowers(60), workers=2)
        with pytest.raises(aiaas.TrainingError, match=r"worker 1 was killed by SIGKILL.* started anew 1 times"):
            run.result()
    assert run.status == "failed"


@pytest.mark.slow
def test_what_one_worker_raises_is_the_run_s_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_FRAGILE", "the moon is full")
    with aiaas.load(save(tmp_path, Fragile())) as model:
        begun = time.monotonic()
        run = model.fit(*flowers(60), workers=2)
        with pytest.raises(aiaas.TrainingError, match=r"raised ValueError .*: the moon is full") as raised:
            run.result()
        assert "In worker 1" in raised.value.__notes__[0]
        assert time.monotonic() - begun < 40


@linux
@pytest.mark.slow
def test_a_cancelled_run_ends_its_workers_and_one_alone_goes_on(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 12, "seed": 5, "learning_rate": 0.01}
    with aiaas.load(save(tmp_path)) as model:
        wanted = model.fit(Slow(tmp_path, seconds=0), **settings)
        whole = made(wanted)
        run = model.fit(Slow(tmp_path, seconds=0.03), workers=2, **settings)
        next(event for event in run.events() if event["type"] == "step")
        run.cancel()
        assert run.wait(30).status == "cancelled"
        assert not any(alive(pid) for pid in pids(tmp_path))
        going = model.fit(Slow(tmp_path, seconds=0), resume=True, **settings)
        assert apart(whole, made(going)) <= 1e-6
    assert next(iter(going.events()))["resumed"]
    assert going.history["loss"] == pytest.approx(wanted.history["loss"], abs=1e-6)


@linux
@pytest.mark.slow
@pytest.mark.parametrize("word", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_who_trains(tmp_path: Path, word: signal.Signals) -> None:
    """Of a script that has no `if __name__ == "__main__"`."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), save(tmp_path), str(tmp_path)]
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary")}
    training = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert training.stdout is not None
    try:
        assert [training.stdout.readline() for _ in range(2)] == ["begun\n", "learning\n"]
        workers = pids(tmp_path)
        assert all(alive(pid) for pid in workers)
        training.send_signal(word)
        training.wait(30)
        until(lambda: not any(alive(pid) for pid in workers), 5)
        assert not list((tmp_path / "temporary").glob("aiaas*"))
        assert training.stdout.read() == ""  # the workers didn't run the script again
    finally:
        training.kill()
        training.communicate()


# ---------------------------------------------------------------- what can't be
@pytest.mark.parametrize(
    ("settings", "kind", "told"),
    [
        ({"loss": lambda o, t: (o - t).mean()}, aiaas.UnsupportedOperationError, "the loss can't be handed"),
        ({"optimizer": lambda p: torch.optim.SGD(p, 0.1)}, aiaas.UnsupportedOperationError, "the optimizer can't"),
        ({"batch_size": 1}, aiaas.ConfigError, "workers is 2 and batch_size 1"),
    ],
)
def test_what_cannot_be_is_said_before_a_process_is_started(
    tmp_path: Path, settings: dict[str, Any], kind: type[Exception], told: str
) -> None:
    with aiaas.load(save(tmp_path)) as model, pytest.raises(kind, match=told):
        model.fit(*flowers(20), workers=2, **settings).result()


def test_a_generator_cannot_be_handed_to_workers(tmp_path: Path) -> None:
    x, y = flowers(20)
    batches = ((x[a : a + 5], y[a : a + 5]) for a in range(0, 20, 5))
    with aiaas.load(save(tmp_path)) as model, pytest.raises(aiaas.UnsupportedOperationError, match="x can't be handed"):
        model.fit(batches, workers=2).result()


@pytest.mark.slow
def test_a_loader_that_shuffles_gives_all_processes_the_same_rows_to_validate_with(tmp_path: Path) -> None:
    x, y = flowers(90)
    tensors = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    loader = torch.utils.data.DataLoader(tensors, batch_size=8, shuffle=True)
    with aiaas.load(save(tmp_path)) as model:
        run = model.fit(x, y, epochs=1, seed=1, workers=2, validation=loader)
        with run.result() as better:
            logits = torch.from_numpy(better.predict(x).array)
    wanted = float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(y)))
    assert run.history["validation_loss"][-1] == pytest.approx(wanted, abs=1e-5)
