"""The engine: answers join, advance together and leave; whoever goes costs the others nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

import aiaas_sdk as aiaas
from aiaas_sdk.architectures.attention import Past
from aiaas_sdk.architectures.transformer import Transformer
from aiaas_sdk.backends.torch import batching
from aiaas_sdk.backends.torch.batching import Engine
from aiaas_sdk.backends.torch.jobs import Ask, Job
from aiaas_sdk.backends.torch.tokenizing import ByteTokenizer
from aiaas_sdk.errors import ClosedError, ModelError
from aiaas_sdk.records.chat import Spoken


class Slow(Transformer):
    """Counts its steps, notes how many rows each had, and takes a little time for them."""

    pause = 0.0
    fault: Exception | None = None

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.rows: list[int] = []

    def advance(self, ids: Tensor, past: Past) -> Tensor:
        if self.fault is not None:
            raise self.fault
        time.sleep(self.pause)
        self.rows.append(len(ids))
        return super().advance(ids, past)


@pytest.fixture
def model() -> Slow:
    """What it says next hangs on all that it has said: its weights are large."""
    torch.manual_seed(0)
    made = Slow(vocabulary=257, width=32, layers=2, heads=4, kv_heads=2, context=400, tied=False)
    made.eval().requires_grad_(False)
    for weight in made.parameters():
        if weight.ndim == 2:
            weight.mul_(3)
    return made


@pytest.fixture
def engine(model: Slow) -> Iterator[Engine]:
    def told(error: Exception) -> ModelError:
        return ModelError(f"the model raised {type(error).__name__}")

    made = Engine(model, torch.device("cpu"), ByteTokenizer(), [256], 400, told)
    yield made
    made.close()
    made.join(10)


def ask(text: str, limit: int, **options: Any) -> Ask:
    return Ask(list(text.encode()), limit, options, streaming=options.pop("streaming", False))


def heard(job: Job) -> Spoken:
    while True:
        piece = job.next().result(60)
        if isinstance(piece, Spoken):
            return piece


def tokens(engine: Engine, *asks: Ask) -> list[list[int]]:
    jobs = [engine.submit(one) for one in asks]
    for job in jobs:
        heard(job)
    return [answer.drawn for job in jobs for answer in job.answers]


ASKS = [
    ask("a", 30),
    ask("a longer prompt than the others have, by far", 20, temperature=1.0, seed=1),
    ask("bc", 9, temperature=1.3, seed=2, top_k=20, n=3),
    ask("x" * 70, 25, temperature=0.8, seed=3, top_p=0.9),
    ask("y", 1),
]


def test_together_as_alone(engine: Engine, model: Slow) -> None:
    alone = [drawn for one in ASKS for drawn in tokens(engine, one)]
    model.rows.clear()
    assert tokens(engine, *ASKS) == alone
    assert max(model.rows) >= 5


def test_a_long_prompt_is_read_between_the_steps_of_others(
    engine: Engine, model: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tokens(engine, ask("a", 40), ask("z" * 200, 10))
    monkeypatch.setattr(batching, "PIECE", 16)
    model.pause = 0.002
    first = engine.submit(ask("a", 40))
    while len(first.answers[0].drawn) < 3:
        time.sleep(0.002)
    second = engine.submit(ask("z" * 200, 10))
    while not second.answers[0].drawn:
        time.sleep(0.002)
    assert len(first.answers[0].drawn) >= 3 + 200 // 16 - 2
    assert [first.answers[0].drawn, second.answers[0].drawn] == alone if heard(first) and heard(second) else False


def test_whoever_leaves_is_gone_within_two_tokens(engine: Engine, model: Slow) -> None:
    model.pause = 0.01
    stays = engine.submit(ask("a", 60))
    goes = engine.submit(ask("b", 300, streaming=True))
    while len(goes.answers[0].drawn) < 5:
        time.sleep(0.002)
    goes.leave()
    drawn = len(goes.answers[0].drawn)
    heard(stays)
    assert len(goes.answers[0].drawn) <= drawn + 2
    assert model.rows[-5:] == [1] * 5
    assert stays.answers[0].drawn == tokens(engine, ask("a", 60))[0]


def test_who_leaves_while_waiting_or_being_read_costs_nothing(
    engine: Engine, model: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "PIECE", 8)
    model.pause = 0.005
    jobs = [engine.submit(ask("q" * 300, 50)) for _ in range(3)]
    time.sleep(0.03)
    for job in jobs:
        job.leave()
    model.pause = 0.0
    assert tokens(engine, ask("a", 5)) == tokens(engine, ask("a", 5))
    assert not any(job.answers[0].drawn for job in jobs)


def test_where_memory_is_short_answers_take_turns_and_stay_the_same(
    engine: Engine, model: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = [ask(letter * 20, 150, temperature=1.0, seed=seed) for seed, letter in enumerate("abcdef")]
    alone = [tokens(engine, one)[0] for one in asks]
    monkeypatch.setattr(batching, "MEMORY", model.cache().bytes_for(3, 128))
    model.rows.clear()
    assert tokens(engine, *asks) == alone
    assert max(model.rows) == 6  # as long as they are short
    assert len(model.rows) > 2 * 150  # then a few at a time
    assert tokens(engine, ask("n", 30, n=9, temperature=1.0, seed=4))  # more than there is room for at once


def test_more_answers_than_rows(engine: Engine, model: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "ROWS", 4)
    found = tokens(engine, ask("n", 12, n=11, temperature=1.5, seed=4))
    assert max(model.rows) == 4
    monkeypatch.setattr(batching, "ROWS", 64)
    assert tokens(engine, ask("n", 12, n=11, temperature=1.5, seed=4)) == found


def test_a_failure_is_told_to_all_and_the_engine_goes_on(engine: Engine, model: Slow) -> None:
    model.fault = RuntimeError("no luck")
    jobs = [engine.submit(ask("a", 5)) for _ in range(2)]
    for job in jobs:
        with pytest.raises(ModelError, match="raised RuntimeError"):
            heard(job)
    model.fault = None
    assert len(tokens(engine, ask("a", 5))[0]) == 5


def test_closing_ends_what_runs(engine: Engine, model: Slow) -> None:
    model.pause = 0.01
    job = engine.submit(ask("a", 300))
    engine.close()
    with pytest.raises(ClosedError):
        heard(job)
    with pytest.raises(ClosedError):
        engine.submit(ask("a", 1))
    engine.join(10)
    assert not any(thread.name == "aiaas-speaking" and thread.is_alive() for thread in threading.enumerate())


def test_a_caller_who_gave_up_waiting_loses_nothing(engine: Engine) -> None:
    job = engine.submit(ask("a", 3, streaming=True))
    job.next().cancel()
    assert heard(job).output_tokens == 3


# ---------------------------------------------------------------- through a model
def test_calls_of_many_threads_are_one_batch(talker: str) -> None:
    said = {"greet": "Grüße, 世界 🙂! Fine.", "count": "one two three four five six"}
    with aiaas.load(talker) as model, ThreadPoolExecutor(12) as pool:
        model.info()
        found = list(pool.map(lambda text: model.generate(text).text, list(said) * 12))
    assert found == list(said.values()) * 12


def test_a_stream_that_is_left_ends_its_work(load: Callable[..., Any], talker: str) -> None:
    with load(talker) as model:
        stream = model.stream("count", temperature=2.0, seed=1, top_p=0.99)
        next(iter(stream))
        stream.close()
        inner = getattr(model, "_model", model)
        engine = inner._engine.backend._speaker._engine
        until = time.monotonic() + 10
        while _busy(engine) and time.monotonic() < until:
            time.sleep(0.01)
        assert not _busy(engine)


def _busy(engine: Engine) -> bool:
    work = engine._work
    return bool(work is not None and (work._running or work._reading or work._waiting))


def test_predict_goes_on_beside_it(talker: str) -> None:
    import numpy as np

    with aiaas.load(talker) as model, model.stream("count", temperature=2.0, seed=1) as stream:
        next(stream)
        assert model.predict(np.array([[1, 2, 3]]))["logits"].shape[:2] == (1, 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.slow
def test_the_interpreter_ends_cleanly_while_it_speaks(talker: str) -> None:
    program = f"""
import aiaas_sdk as aiaas
model = aiaas.load({talker!r})
stream = model.stream("count", temperature=2.0, seed=1)
next(stream)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


AT_WORK = """
import threading
import torch
from aiaas_sdk.architectures.transformer import Transformer
from aiaas_sdk.backends.torch.batching import Engine
from aiaas_sdk.backends.torch.jobs import Ask
from aiaas_sdk.backends.torch.tokenizing import ByteTokenizer

begun = threading.Event()
wide = torch.ones(1500, 1500)


class Slow(Transformer):
    def advance(self, ids, past):
        begun.set()
        for _ in range(10):
            wide @ wide
        print("done", flush=True)
        return super().advance(ids, past)


model = Slow(vocabulary=257, width=32, layers=1, heads=4, context=64).eval()
engine = Engine(model, torch.device("cpu"), ByteTokenizer(), [256], 64, RuntimeError)
engine.submit(Ask([1, 2], 4, {}, streaming=False))
begun.wait(30)
engine.close()
del engine
"""


@pytest.mark.slow
def test_the_interpreter_ends_cleanly_in_the_last_step_of_a_closed_model() -> None:
    """Nobody holds the closed model any more, and its step still runs."""
    ended = subprocess.run([sys.executable, "-c", AT_WORK], capture_output=True, text=True, timeout=100)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("done\n")
