"""Hedging: a second request while the first is slow."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.errors import DeadlineExceededError, ModelError
from aiaas_sdk.policies.hedge import Seen
from aiaas_sdk.policies.tokens import FULL, tokens_of
from aiaas_sdk.transport.origin import origin_of


def slow_first(seconds: float) -> Callable[[int], None]:
    return lambda n: time.sleep(seconds) if n == 0 else None


def test_the_second_request_answers_while_the_first_is_slow(endpoint: Any, load: Any) -> None:
    endpoint.behave = slow_first(2)
    with load(endpoint.address, hedge=aiaas.Hedge(delay=0.05)) as model:
        begun = time.monotonic()
        answer = model.predict([3.0])
        assert time.monotonic() - begun < 1
        assert answer.array.tolist() == [6.0]
        assert answer.attempts == 2
        assert model.predict([4.0]).array.tolist() == [8.0]


def test_a_quick_answer_is_not_hedged(endpoint: Any, load: Any) -> None:
    with load(endpoint.address, hedge=aiaas.Hedge(delay=1)) as model:
        assert model.predict([1.0]).attempts == 1
    assert len(endpoint.seen) == 1


def test_a_failure_is_told_at_once_and_may_be_tried_again(endpoint: Any, load: Any) -> None:
    endpoint.behave = lambda n: (503, {}) if n == 0 else None
    with load(endpoint.address, hedge=aiaas.Hedge(delay=5)) as model:
        begun = time.monotonic()
        assert model.predict([1.0]).attempts == 2
        assert time.monotonic() - begun < 2
    endpoint.seen.clear()
    endpoint.behave = lambda n: (500, {})
    with load(endpoint.address, hedge=aiaas.Hedge(delay=5)) as model, pytest.raises(ModelError):
        model.predict([1.0])


def test_three_requests_where_three_are_allowed(endpoint: Any, load: Any) -> None:
    endpoint.behave = lambda n: time.sleep(2) if n < 2 else None
    with load(endpoint.address, hedge=aiaas.Hedge(delay=0.05, requests=3)) as model:
        begun = time.monotonic()
        assert model.predict([1.0]).attempts == 3
        assert time.monotonic() - begun < 1


def test_all_slow_ends_with_the_deadline(endpoint: Any, load: Any) -> None:
    endpoint.behave = lambda n: time.sleep(2)
    with load(endpoint.address, hedge=aiaas.Hedge(delay=0.05), retry=None) as model:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            model.predict([1.0], timeout=0.3)
        assert time.monotonic() - begun < 0.6


def test_each_further_request_takes_from_the_retry_budget(endpoint: Any, load: Any) -> None:
    endpoint.behave = lambda n: time.sleep(0.3)
    tokens = tokens_of(origin_of(endpoint.address))
    assert tokens.take(FULL - 10)
    with load(endpoint.address, hedge=aiaas.Hedge(delay=0.02)) as model:
        assert model.predict([1.0]).attempts == 1  # 10 tokens are too few
    assert len(endpoint.seen) == 1


def test_a_plain_model_inside_of_a_running_loop_hedges_too(endpoint: Any) -> None:
    """As in a notebook."""
    endpoint.behave = slow_first(2)
    with aiaas.load(endpoint.address, hedge=aiaas.Hedge(delay=0.05)) as model:

        async def cell() -> Any:
            return model.predict([3.0])

        assert asyncio.run(cell()).array.tolist() == [6.0]


def test_the_loser_hangs_up_and_leaves_no_thread(endpoint: Any, load: Any) -> None:
    endpoint.behave = slow_first(1)
    before = threading.active_count()
    with load(endpoint.address, hedge=aiaas.Hedge(delay=0.02)) as model:
        model.predict([3.0])
    assert not [t for t in threading.enumerate() if t.name.startswith("aiaas")]
    assert threading.active_count() <= before + 3  # the endpoint's own


def test_the_delay_is_learned_from_what_was_seen() -> None:
    seen = Seen()
    for _ in range(19):
        seen.add(1.0)
    assert seen.slow is None
    for n in range(100):
        seen.add(n / 100)
    assert seen.slow == pytest.approx(0.94)


async def test_cancelling_a_hedged_call_cancels_both(endpoint: Any) -> None:
    endpoint.behave = lambda n: time.sleep(1)
    async with aiaas.load_async(endpoint.address, hedge=aiaas.Hedge(delay=0.02)) as model:
        task = asyncio.create_task(model.predict([1.0]))
        await asyncio.sleep(0.2)
        assert endpoint.running == 2
        begun = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - begun < 0.1
