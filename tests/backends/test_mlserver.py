"""Both faces against a real MLServer: JSON, its metadata, its errors."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import aiaas_sdk as aiaas
from tests.stopwatch import Stopwatch

pytestmark = pytest.mark.peer
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_predict_plain_and_awaited_agree(mlserver: str) -> None:
    address = f"{mlserver}/v2/models/double"

    async def awaited() -> aiaas.Prediction:
        async with aiaas.load_async(address, timeout=30) as model:
            return await model.predict(X)

    with aiaas.load(address, timeout=30) as model:
        here = [model.predict(X) for _ in range(3)][-1]
        assert model.ready()
        assert model.stats().attempts == 3
    there = asyncio.run(awaited())
    assert np.array_equal(here.array, 2 * X)
    assert np.array_equal(there.array, here.array)
    assert (here.backend, here.attempts) == ("oip", 1)


def test_an_unknown_model_is_not_found(mlserver: str) -> None:
    with pytest.raises(aiaas.ModelNotFoundError):
        aiaas.load(f"{mlserver}/v2/models/nothing", timeout=30).info()


def test_its_errors_are_ours_and_the_connection_lives_on(mlserver: str) -> None:
    with aiaas.load(f"{mlserver}/v2/models/double", timeout=30) as model:
        with pytest.raises(aiaas.ModelError) as raised:  # 500 text/plain, the message lost
            model.predict(np.full((1, 3), -1, np.float32))
        assert (raised.value.status, raised.value.attempts) == (500, 1)
        with pytest.raises(aiaas.InvalidRequestError, match="rows out of season") as refused:
            model.predict(np.full((1, 3), -2, np.float32))
        assert refused.value.status == 422
        assert np.array_equal(model.predict(X).array, 2 * X)


def test_what_json_can_not_carry_is_refused_before_it_is_sent(mlserver: str) -> None:
    with aiaas.load(f"{mlserver}/v2/models/double", timeout=30) as model:
        with pytest.raises(aiaas.InputError, match="NaN or infinity") as caught:
            model.predict(np.full((1, 3), np.nan, np.float32))
        assert caught.value.attempts == 0


def test_map_over_json_gives_every_row(mlserver: str) -> None:
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    with aiaas.load(f"{mlserver}/v2/models/double", timeout=30) as model:
        answers = list(model.map(rows, batch_size=3, concurrency=2))
    assert np.array_equal(np.stack([answer.array for answer in answers]), 2 * rows)


def test_nobody_there_is_a_connect_error_for_both() -> None:
    address = "http://127.0.0.1:9/v2/models/m"
    with pytest.raises(aiaas.ConnectError, match=r"127\.0\.0\.1:9"):
        aiaas.load(address, retry=None).info()
    with pytest.raises(aiaas.ConnectError, match=r"127\.0\.0\.1:9"):
        asyncio.run(aiaas.load_async(address, retry=None).info())


def test_a_silent_peer_cannot_outlive_the_deadline() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/v2/models/m"
        for ask in (
            lambda: aiaas.load(address, timeout=0.5).info(),
            lambda: asyncio.run(aiaas.load_async(address, timeout=0.5).info()),
        ):
            watch = Stopwatch()
            with pytest.raises(aiaas.DeadlineExceededError):
                ask()
            assert watch.took() < 0.9
