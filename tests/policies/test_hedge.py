"""Hedging: a second request while the first is slow."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.errors import AiaasError, DeadlineExceededError, ModelError
from aiaas_sdk.hookspecs import hookimpl
from aiaas_sdk.observing import pass_on
from aiaas_sdk.policies.hedge import Seen
from aiaas_sdk.policies.tokens import FULL, tokens_of
from aiaas_sdk.testing.faults import FaultServer, answer, drip, reset, slow, stall, status
from aiaas_sdk.testing.plugin import aiaas_faults  # noqa: F401  # the plugin's own fixture
from aiaas_sdk.transport.origin import origin_of
from tests.stopwatch import Stopwatch
from tests.waiting import ctrl_c, reached, until

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def server(aiaas_faults: FaultServer) -> FaultServer:  # noqa: F811  # pytest's way
    return aiaas_faults


def hung_up(server: FaultServer, *numbers: int) -> None:
    """Waits until the client has hung up on these connections, counted from 0; a second at most."""
    watch = Stopwatch()
    while any(server.connections[number].ended is None for number in numbers):
        assert watch.took() < 1, "the client didn't hang up"
        time.sleep(0.01)


def closing(server: FaultServer) -> None:
    """The next request after the model is opened needs a new connection."""
    server.on("metadata", answer({"connection": "close"}))


def racing() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("aiaas-race")]


def slow_first(seconds: float) -> Callable[[int], None]:
    return lambda n: time.sleep(seconds) if n == 0 else None


def test_the_second_request_answers_while_the_first_is_slow(endpoint: Any, load: Any) -> None:
    endpoint.behave = slow_first(2)
    with load(endpoint.address, hedge=aiaas.Hedge(delay=0.05)) as model:
        watch = Stopwatch()
        answer = model.predict([3.0])
        assert watch.took() < 1
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
        watch = Stopwatch()
        assert model.predict([1.0]).attempts == 2
        assert watch.took() < 2
    endpoint.seen.clear()
    endpoint.behave = lambda n: (500, {})
    with load(endpoint.address, hedge=aiaas.Hedge(delay=5)) as model, pytest.raises(ModelError):
        model.predict([1.0])


def test_three_requests_where_three_are_allowed(endpoint: Any, load: Any) -> None:
    endpoint.behave = lambda n: time.sleep(2) if n < 2 else None
    with load(endpoint.address, hedge=aiaas.Hedge(delay=0.05, requests=3)) as model:
        watch = Stopwatch()
        assert model.predict([1.0]).attempts == 3
        assert watch.took() < 1


def test_all_slow_ends_with_the_deadline(endpoint: Any, load: Any) -> None:
    endpoint.behave = lambda n: time.sleep(2)
    with load(endpoint.address, hedge=aiaas.Hedge(delay=0.05), retry=None) as model:
        watch = Stopwatch()
        with pytest.raises(DeadlineExceededError):
            model.predict([1.0], timeout=0.3)
        assert watch.took() < 0.6


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
    before = set(threading.enumerate())
    with load(endpoint.address, hedge=aiaas.Hedge(delay=0.02)) as model:
        model.predict([3.0])
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if thread.name.startswith("aiaas")]
    assert len(left) <= 3  # the endpoint's own


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
        await reached(lambda: endpoint.running == 2)
        watch = Stopwatch()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert watch.took() < 0.1


# ---------------------------------------------------------------- what the first request does when the second starts
@pytest.mark.parametrize("fault", [stall("accept"), stall(), stall("head"), drip(every=0.05)], ids=lambda f: f.name)
def test_the_loser_hangs_up_wherever_it_was(server: FaultServer, load: Any, fault: Any) -> None:
    closing(server)
    with load(server.address, hedge=aiaas.Hedge(delay=0.1)) as model:
        model.info()
        server.clear()
        server.script([fault])
        assert model.predict(X).array.tolist() == (2 * X).tolist()
        hung_up(server, 0)
        assert model.predict(X).array.tolist() == (2 * X).tolist()


def test_the_first_wins_although_it_is_slow(server: FaultServer, load: Any) -> None:
    """What it has begun goes on where it is: it isn't sent again, and its connection is kept."""
    closing(server)
    with load(server.address, hedge=aiaas.Hedge(delay=0.05)) as model:
        model.info()
        server.clear()
        server.on("predict", slow(0.3), stall())
        watch = Stopwatch()
        found = model.predict(X)
        assert 0.29 < watch.took() < 0.7
        assert found.array.tolist() == (2 * X).tolist()
        assert found.attempts == 2
        assert [seen.attempt for seen in server.of("predict")] == [1, 2]
        hung_up(server, 1)
        first = server.of("predict")[0].connection
        assert model.predict(X).array.tolist() == (2 * X).tolist()
        assert server.of("predict")[2].connection == first


def test_an_attempt_keeps_its_own_limit_when_the_second_starts(server: FaultServer, load: Any) -> None:
    for limit, attempts in ((0.1, 1), (0.4, 2)):
        server.on("predict", then=stall())
        with load(server.address, hedge=aiaas.Hedge(delay=0.2), attempt_timeout=limit, retry=None) as model:
            model.info()
            watch = Stopwatch()
            with pytest.raises(DeadlineExceededError) as caught:
                model.predict(X)
            assert limit - 0.01 < watch.took() < limit + (0.2 if attempts == 2 else 0) + 0.2
            assert caught.value.attempts == attempts


def test_the_third_starts_at_its_own_time_when_the_second_fails_early(server: FaultServer, load: Any) -> None:
    with load(server.address, hedge=aiaas.Hedge(delay=0.15, requests=3)) as model:
        model.info()
        server.clear()
        server.on("predict", stall(), status(500))
        watch = Stopwatch()
        assert model.predict(X).attempts == 3
        first, second, third = (seen.time for seen in server.of("predict"))
        assert 0.1 < watch.took(second - first) < 0.3
        assert 0.25 < watch.took(third - first) < 0.5


def test_a_users_transport_goes_on_as_it_began(server: FaultServer) -> None:
    """One that can do both is used in threads by the plain face, also after the second request started."""

    class Both(httpx.HTTPTransport, httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise AssertionError("a plain model asked for what belongs to a loop")

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            used.append("plain")
            return super().handle_request(request)

    used: list[str] = []
    limits = httpx.Limits(max_keepalive_connections=0)
    with aiaas.load(
        server.address,
        hedge=aiaas.Hedge(delay=0.05),
        network=aiaas.Network(transport=Both(trust_env=False, limits=limits)),
    ) as model:
        model.info()
        used.clear()
        server.on("predict", slow(0.3), slow(9))
        assert model.predict(X).array.tolist() == (2 * X).tolist()
        assert used == ["plain", "plain"]


# ---------------------------------------------------------------- Ctrl-C and cancellation
@pytest.mark.parametrize("delay", [5, 0.05], ids=["first alone", "both"])
@pytest.mark.parametrize("inside", [False, True], ids=["plain", "in a loop"])
def test_ctrl_c_ends_all_of_a_hedged_call(server: FaultServer, delay: float, inside: bool) -> None:
    closing(server)
    with aiaas.load(server.address, hedge=aiaas.Hedge(delay=delay), timeout=60) as model:
        model.info()
        server.clear()
        server.on("predict", then=stall())
        requests = 1 if delay == 5 else 2
        with (
            ctrl_c(lambda: len(server.of("predict")) == requests) as pressed,
            pytest.raises(KeyboardInterrupt),
        ):
            _inside(model) if inside else model.predict(X)
        assert pressed[0].took() < 0.3
        assert not racing()
        assert len(server.of("predict")) == requests
        hung_up(server, *range(len(server.of("predict"))))
        server.on("predict")
        assert model.predict(X).array.tolist() == (2 * X).tolist()


def _inside(model: Any) -> Any:
    """A plain call in an event loop, whose Ctrl-C comes through as in a notebook."""
    loop = asyncio.new_event_loop()

    async def cell() -> Any:
        return model.predict(X)

    try:
        return loop.run_until_complete(cell())
    finally:
        loop.close()


async def test_cancelling_before_the_second_request_hangs_up(server: FaultServer) -> None:
    closing(server)
    async with aiaas.load_async(server.address, hedge=aiaas.Hedge(delay=5)) as model:
        await model.info()
        server.clear()
        server.on("predict", stall())
        task = asyncio.create_task(model.predict(X))
        await reached(lambda: server.of("predict"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(hung_up, server, 0)
        assert (await model.predict(X)).attempts == 1


def test_a_plain_model_in_a_loop_hands_the_trace_on_with_each_request(server: FaultServer) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def cell(model: Any) -> Any:
        pass_on({"traceparent": parent})
        return model.predict(X)

    with aiaas.load(server.address, hedge=aiaas.Hedge(delay=0.05)) as model:
        server.on("predict", stall())
        assert asyncio.run(cell(model)).attempts == 2
    assert not racing()
    assert [seen.headers.get("traceparent") for seen in server.of("predict")] == [parent, parent]


# ---------------------------------------------------------------- together with the policies inside of it
def test_a_second_request_that_finds_no_place_doesn_t_go_out(server: FaultServer, load: Any) -> None:
    with load(server.address, hedge=aiaas.Hedge(delay=0.05), limits=aiaas.Limits(concurrency=1)) as model:
        server.on("predict", slow(0.3))
        for _ in range(3):
            assert model.predict(X).attempts == 1
        assert len(server.of("predict")) == 3


def test_the_first_request_waits_for_its_place_beyond_the_delay(server: FaultServer, load: Any) -> None:
    limits = aiaas.Limits(concurrency=1)
    with (
        aiaas.load(server.address, limits=limits) as other,
        load(server.address, hedge=aiaas.Hedge(delay=0.05), limits=limits) as model,
    ):
        other.info()
        model.info()
        server.on("predict", slow(0.6))
        thread = threading.Thread(target=other.predict, args=(X,))
        thread.start()
        until(lambda: server.of("predict"))
        with pytest.raises(DeadlineExceededError, match="a place"):
            model.predict(X, timeout=0.15)
        found = model.predict(X, timeout=5)
        assert found.attempts == 1
        assert found.timing.queue > 0.05
        thread.join()
        assert model.predict(X).attempts == 1  # no place was lost


def test_the_first_request_waits_for_its_turn_beyond_the_delay(server: FaultServer, load: Any) -> None:
    limits = aiaas.Limits(requests_per_second=2.5)
    with load(server.address, hedge=aiaas.Hedge(delay=0.1), limits=limits) as model:
        model.predict(X)
        watch = Stopwatch()
        assert model.predict(X).attempts == 1
        assert watch.took() < 0.4 + 0.25


def test_losers_tell_the_breaker_nothing(server: FaultServer, load: Any) -> None:
    breaker = aiaas.Breaker(minimum=1, failures=0.01, rest=60)
    with load(server.address, hedge=aiaas.Hedge(delay=0.02), breaker=breaker) as model:
        for _ in range(4):
            server.on("predict", stall())
            assert model.predict(X).attempts == 2


def test_the_time_that_is_told_is_the_winner_s(server: FaultServer, load: Any) -> None:
    with load(server.address, hedge=aiaas.Hedge(delay=0.3)) as model:
        server.on("predict", stall())
        watch = Stopwatch()
        timing = model.predict(X).timing
        assert watch.took(timing.network) < 0.25 < timing.total


def test_observers_hear_why_a_loser_ended(server: FaultServer, load: Any) -> None:
    class Listener:
        @hookimpl
        def aiaas_attempt_finished(self, attempt: aiaas.AttemptEvent) -> None:
            heard.append((attempt.number, attempt.status, attempt.error))

    heard: list[Any] = []
    with load(server.address, hedge=aiaas.Hedge(delay=0.1)) as model:
        model.info()
        server.on("predict", stall(), answer(), slow(0.3), stall())
        with aiaas.observe(Listener()):
            model.predict(X)
            model.predict(X)
    assert sorted(heard[:2]) == [(1, None, "CancelledError"), (2, 200, None)]
    assert sorted(heard[2:]) == [(1, 200, None), (2, None, "CancelledError")]


# ---------------------------------------------------------------- many
@pytest.mark.slow
def test_a_thousand_hedged_calls_at_a_bad_endpoint_give_right_answers_and_lose_nothing(
    server: FaultServer, load: Any
) -> None:
    order = random.Random(5)
    kinds = [reset(), reset("head"), reset("body"), status(503), slow(0.01), slow(0.03)]
    options = {"hedge": aiaas.Hedge(delay=0.005, requests=3), "limits": aiaas.Limits(concurrency=8), "breaker": None}
    with load(server.address, timeout=10, retry=aiaas.Retry(wait=0.002, budget=None), **options) as model:
        model.info()
        failed = 0
        for number in range(1000):
            server.on("predict", *(order.choice(kinds) for _ in range(order.randrange(3))))
            try:
                assert model.predict(X + number).array.tolist() == (2 * (X + number)).tolist()
            except AiaasError:
                failed += 1
        assert failed < 20
        server.on("predict")
        for _ in range(20):
            assert model.predict(X).attempts >= 1
    assert not racing()
