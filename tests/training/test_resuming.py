"""A run that was ended at any moment goes on, and ends with the bits of one that wasn't."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.backends.torch.training.loop import Loop
from tests.training.modules import flowers, same, saved, weights

ROOT = Path(__file__).parent.parent.parent
KILLS = 5
"""For each kind of rows."""


class Nursery:
    """A process that has loaded everything, and forks one for each run: a start takes no time then."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "tests.training.killed"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)

    def begin(self, *arguments: str) -> int:
        """Begin a run; its process."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(arguments) + "\n")
        self._process.stdin.flush()
        return int(self._line("began"))

    def finish(self) -> tuple[str, str]:
        """The address of the new version and the history."""
        return self._line("version"), self._line("history")

    def started(self) -> int:
        """After how many steps it begins."""
        return int(self._line("started"))

    def kept(self, checkpoints: int) -> int:
        """Wait for so many checkpoints, or for the last; after how many steps the last was written, 0 where none was.

        For a run that is held.
        """
        step = 0
        for _ in range(checkpoints):
            if (line := self._line("kept")) == "all":
                break
            step = int(line)
        return step

    def ended(self) -> None:
        """The last one has ended, however that was."""
        self._line("ended")

    def _line(self, kind: str) -> str:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith(kind + " "):
                return line[len(kind) + 1 :].strip()
        pytest.fail("the run's process has ended")

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.stdout.close()  # type: ignore[union-attr]
        self._process.wait(20)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs' processes are forked")
@pytest.mark.parametrize("kind", ["arrays", "dataset", "loader", "generator"])
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path, nursery: Nursery, kind: str) -> None:
    """Killed at random moments, again and again, then left to its end.

    How far it comes is counted in checkpoints, for a machine may be fast or busy; where in a step it is, is left to
    chance.
    """
    drawn = random.Random(kind)
    nursery.begin(saved(tmp_path / "whole"), kind, "new", "free")
    wanted, history = nursery.finish()
    nursery.ended()
    address = saved(tmp_path / "cut")
    kept = 0
    for kill, checkpoints in enumerate(drawn.sample(range(KILLS), KILLS)):
        process = nursery.begin(address, kind, "resume" if kill else "new", "held")
        assert nursery.started() >= kept  # nothing that was kept is lost
        kept = max(kept, nursery.kept(checkpoints))
        time.sleep(drawn.uniform(0, 0.01))
        os.kill(process, signal.SIGKILL)
        nursery.ended()
    nursery.begin(address, kind, "resume", "free")
    assert nursery.started() >= kept > 0
    after, again = nursery.finish()
    nursery.ended()
    assert again == history
    assert same(after, wanted)
    assert not list((tmp_path / "cut" / "model").glob(".training/*/*"))


@pytest.mark.parametrize("steps", [1, 7, 30])
def test_a_cancelled_run_goes_on_where_it_stopped(tmp_path: Path, load: Any, steps: int) -> None:
    x, y = flowers(200)
    address = saved(tmp_path)
    settings: dict[str, Any] = {"epochs": 5, "batch_size": 20, "seed": 2, "validation": 0.2, "early_stopping": 5}
    with load(address) as model:
        wanted = model.fit(x, y, **settings).wait(60)
        before = list(wanted.events())[-1]["address"]
        Stopping(model, steps).cut(x, y, settings)
        going = model.fit(x, y, resume=True, **settings)
        events = list(going.events())
        assert events[0]["resumed"]
        assert events[0]["step"] == steps
        assert going.history == wanted.history
        assert same(events[-1]["address"], before)


def test_a_run_stops_within_its_validation_and_goes_on(tmp_path: Path, load: Any) -> None:
    x, y = flowers(100)
    settings: dict[str, Any] = {"epochs": 3, "seed": 2, "validation": flowers(2000, 1)}
    with load(saved(tmp_path)) as model:
        wanted = model.fit(x, y, **settings).wait(60)
        validated, within = Loop._validated, threading.Event()

        def halting(loop: Loop, stopped: Any) -> Any:
            within.set()
            while not stopped():
                time.sleep(0.001)
            return validated(loop, stopped)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Loop, "_validated", halting)
            run = model.fit(x, y, **settings)
            assert within.wait(20)
            run.cancel()
            assert run.wait(60).status == "cancelled"
        going = model.fit(x, y, resume=True, **settings)
        events = list(going.events())
        assert events[0]["step"] == 4
        assert going.history == wanted.history
        assert same(events[-1]["address"], list(wanted.events())[-1]["address"])


class Stopping:
    """Cancels a run after so many steps."""

    def __init__(self, model: Any, steps: int) -> None:
        self._model, self._steps = model, steps
        self._there, self._go = threading.Event(), threading.Event()

    def cut(self, x: Any, y: Any, settings: Any) -> None:
        step = Loop._step

        def halting(loop: Loop, *arguments: Any) -> Any:
            if loop.step == self._steps - 1:
                self._there.set()
                self._go.wait(20)
            return step(loop, *arguments)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Loop, "_step", halting)
            run = self._model.fit(x, y, **settings)
            assert self._there.wait(20)
            run.cancel()
            self._go.set()
            assert run.wait(60).status == "cancelled"


def test_nothing_to_resume_begins_anew_and_another_run_is_refused(tmp_path: Path, load: Any) -> None:
    x, y = flowers(100)
    folder = tmp_path / "checkpoints"
    with load(saved(tmp_path)) as model:
        run = model.fit(x, y, epochs=1_000_000, resume=True, checkpoint=folder, seed=1)
        assert next(iter(run.events()))["type"] == "started"
        other = model.fit(x, y, epochs=1_000_000, checkpoint=folder, seed=1).wait(60)
        with pytest.raises(aiaas.ConfigError, match="another run with these settings is at work"):
            other.result()
        run.cancel()
        run.wait(60)
        changed = model.fit(x, y, epochs=1_000_000, checkpoint=folder, seed=1, resume=True, batch_size=16).wait(60)
        with pytest.raises(aiaas.ConfigError, match="a run with another batch_size"):
            changed.result()
        rows = model.fit(x + 1, y, epochs=1_000_000, checkpoint=folder, seed=1, resume=True).wait(60)
        with pytest.raises(aiaas.ConfigError, match="a run with another digest"):
            rows.result()


def interrupted(folder: Path, model: Any, x: Any, y: Any, **settings: Any) -> None:
    """A run that leaves two checkpoints or more."""
    run = model.fit(x, y, checkpoint=folder, checkpoint_steps=1, **settings)
    count = 0
    for event in run.events():
        count += event["type"] == "checkpoint"
        if count == 3:
            run.cancel()
    assert run.status == "cancelled"


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, load: Any) -> None:
    x, y = flowers(1000)
    folder = tmp_path / "checkpoints"
    settings: dict[str, Any] = {"epochs": 2, "seed": 1}
    with load(saved(tmp_path)) as model:
        wanted = list(model.fit(x, y, **settings).wait(60).events())[-1]["address"]
        interrupted(folder, model, x, y, **settings)
        older, newest = sorted(path for path in folder.iterdir() if path.is_dir())
        data = bytearray((newest / "state.safetensors").read_bytes())
        data[-1] ^= 1
        (newest / "state.safetensors").write_bytes(data)
        run = model.fit(x, y, checkpoint=folder, resume=True, **settings)
        events = list(run.events())
        assert events[0]["step"] == int(older.name)
        assert same(events[-1]["address"], wanted)


def test_only_damaged_checkpoints_are_told(tmp_path: Path, load: Any) -> None:
    x, y = flowers(1000)
    folder = tmp_path / "checkpoints"
    with load(saved(tmp_path)) as model:
        interrupted(folder, model, x, y, epochs=2, seed=1)
        for path in folder.glob("*/state.json"):
            path.write_bytes(path.read_bytes()[:100])
        run = model.fit(x, y, checkpoint=folder, resume=True, epochs=2, seed=1).wait(60)
        with pytest.raises(aiaas.TrainingError, match=r"no checkpoint in .* is whole.*resume=False"):
            run.result()


def test_d13_a_disk_that_refuses_a_checkpoint_leaves_the_one_before(
    tmp_path: Path, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiaas_sdk import disk
    from aiaas_sdk.backends.torch.training import checkpoints

    new_file, write, writes, looked = disk.new_file, checkpoints.Shelf.write, count(1), threading.Event()
    full = False

    def refusing(path: Path, data: bytes, mode: int = 0o666) -> None:
        if full and path.name == checkpoints.STATE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        new_file(path, data, mode)

    def writing(shelf: Any, checkpoint: Any) -> Path:
        """The first is written, and all others refused; after the second the run waits until it was looked at."""
        nonlocal full
        place = next(writes)
        full = place > 1
        if place == 3:
            looked.wait(60)
        return write(shelf, checkpoint)

    monkeypatch.setattr(disk, "new_file", refusing)
    monkeypatch.setattr(checkpoints.Shelf, "write", writing)
    x, y = flowers(200)
    folder = tmp_path / "checkpoints"
    with load(saved(tmp_path)) as model:
        run = model.fit(x, y, epochs=3, seed=1, checkpoint=folder, checkpoint_steps=1)
        events = run.events()
        written, refused = islice((event for event in events if event["type"] == "checkpoint"), 2)
        assert refused["path"] is None
        assert "No space left on device" in refused["error"]
        assert [str(path) for path in folder.iterdir() if path.is_dir()] == [written["path"]]
        looked.set()
        assert run.wait(60).status == "succeeded"
        assert not folder.exists()  # no other refusal left anything, either


def test_d17_a_checkpoint_holds_no_pickle(tmp_path: Path, load: Any) -> None:
    x, y = flowers(200)
    folder = tmp_path / "checkpoints"
    with load(saved(tmp_path)) as model:
        interrupted(folder, model, x, y, epochs=3, seed=1)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"lock", "state.json", "state.safetensors"}
    assert not any(path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04", b"PK") for path in files)


def test_d14_a_new_version_is_whole_or_not_there(tmp_path: Path, load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiaas_sdk import disk

    new_file = disk.new_file

    def refusing(path: Path, data: Any, mode: int = 0o666) -> None:
        if ".training" not in path.parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        new_file(path, data, mode)

    x, y = flowers(200)
    address = saved(tmp_path)
    with load(address) as model:
        with monkeypatch.context() as patched:
            patched.setattr(disk, "new_file", refusing)
            run = model.fit(x, y, epochs=2, seed=1).wait(60)
            with pytest.raises(aiaas.BundleError, match="No space left"):
                run.result()
        assert [path.name for path in (tmp_path / "model").iterdir() if path.name != ".training"] == ["1"]
        again = model.fit(x, y, epochs=2, seed=1, resume=True)  # there is room now: nothing is learned twice
        events = list(again.events())
        assert events[0]["step"] == 14
        assert events[-1]["address"].endswith("@2")
        assert all(np.isfinite(tensor).all() for tensor in weights(events[-1]["address"]).values())
