"""The retry budget: an outage isn't made worse by retries, and costs nothing once it is over."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.errors import RateLimitedError, UnavailableError
from aiaas_sdk.policies.tokens import FULL, tokens_of
from aiaas_sdk.transport.origin import origin_of
from tests.stopwatch import Stopwatch

QUICK = aiaas.Retry(wait=0.0, max_wait=0.0)


def test_an_outage_costs_few_requests_more_and_then_says_why(endpoint: Any, load: Any) -> None:
    """S07: 400 calls, at most 500 requests."""
    endpoint.behave = lambda n: (503, {})
    with load(endpoint.address, retry=QUICK, breaker=None) as model:
        last = None
        for _ in range(400):
            with pytest.raises(UnavailableError) as caught:
                model.predict([1.0])
            last = caught.value
        assert 400 <= len(endpoint.seen) <= 500
        assert last is not None
        assert last.attempts == 1
        assert "retry budget is empty" in str(last)
        endpoint.behave = lambda n: None
        assert model.predict([1.0]).attempts == 1  # S09


def test_a_lost_connection_costs_more_than_a_busy_peer(endpoint: Any, load: Any) -> None:
    """At most 35 requests more for a whole outage."""
    endpoint.behave = lambda n: (504, {})
    with load(endpoint.address, retry=QUICK, breaker=None) as model:
        for _ in range(200):
            with pytest.raises(UnavailableError):
                model.predict([1.0])
    assert 200 <= len(endpoint.seen) <= 235


def test_successes_fill_it_again(endpoint: Any, load: Any) -> None:
    tokens = tokens_of(origin_of(endpoint.address))
    tokens.take(FULL)
    with load(endpoint.address, retry=QUICK) as model:
        for _ in range(14):
            model.predict([1.0])
        assert tokens.left == pytest.approx(16, abs=0.01)  # two were those of opening it
        endpoint.behave = lambda n: (502, {}) if n == 14 else None
        assert model.predict([1.0]).attempts == 2
    assert tokens.left == pytest.approx(17, abs=0.01)  # the price of a retry that passed comes back


def test_without_a_budget_every_call_is_tried_again(endpoint: Any, load: Any) -> None:
    endpoint.behave = lambda n: (503, {})
    with load(endpoint.address, retry=aiaas.Retry(wait=0.0, max_wait=0.0, budget=None), breaker=None) as model:
        for _ in range(120):
            with pytest.raises(UnavailableError):
                model.predict([1.0])
    assert len(endpoint.seen) == 360


def test_a_pause_that_is_longer_than_what_is_left_fails_at_once(endpoint: Any, load: Any) -> None:
    """S05."""
    endpoint.behave = lambda n: (429, {"retry-after": "30"})
    with load(endpoint.address, timeout=5) as model:
        watch = Stopwatch()
        with pytest.raises(RateLimitedError) as caught:
            model.predict([1.0])
        assert watch.took() < 1
        assert caught.value.retry_after == 30


@pytest.mark.parametrize(
    ("status", "kind"), [(429, RateLimitedError), (502, UnavailableError), (503, UnavailableError)]
)
def test_so_does_a_pause_of_our_own_that_the_deadline_has_no_room_for(
    endpoint: Any, load: Any, status: int, kind: type[aiaas.AiaasError]
) -> None:
    """S02: the class of the last failure, and what the peer said."""
    endpoint.behave = lambda n: (status, {})
    with load(endpoint.address, timeout=5, retry=aiaas.Retry(wait=1e6, max_wait=1e6)) as model:
        watch = Stopwatch()
        with pytest.raises(kind, match=str(status)) as caught:
            model.predict([1.0])
        assert watch.took() < 1
    assert (caught.value.status, caught.value.attempts, caught.value.retryable) == (status, 1, True)


def test_so_it_is_where_nobody_listens(load: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    model = load(f"http://127.0.0.1:{port}/v2/models/m", timeout=5, retry=aiaas.Retry(wait=1e6, max_wait=1e6))
    with pytest.raises(aiaas.ConnectError, match=str(port)):
        model.predict([1.0])
    model.close()


def test_an_endless_pause_is_a_no(endpoint: Any, load: Any) -> None:
    endpoint.behave = lambda n: (503, {"retry-after": "86400"})
    with load(endpoint.address) as model:
        watch = Stopwatch()
        with pytest.raises(UnavailableError):
            model.predict([1.0])
        assert watch.took() < 1


@pytest.mark.parametrize(
    ("status", "word", "requests"), [(429, "false", 1), (503, "false", 1), (400, "true", 1), (502, "true", 3)]
)
def test_the_peer_may_say_whether_to_try_again(endpoint: Any, load: Any, status: int, word: str, requests: int) -> None:
    """S06: obeyed for the statuses that are retried."""
    endpoint.behave = lambda n: (status, {"x-should-retry": word})
    with load(endpoint.address, retry=QUICK) as model, pytest.raises(aiaas.AiaasError):
        model.predict([1.0])
    assert len(endpoint.seen) == requests


def test_each_request_says_which_attempt_it_is_and_how_long_it_is_waited_for(endpoint: Any, load: Any) -> None:
    """S13."""
    endpoint.behave = lambda n: (503, {}) if n < 2 else None
    with load(endpoint.address, timeout=10) as model:
        model.predict([1.0])
        model.predict([1.0], timeout=None)
    headers = [headers for _, headers, _ in endpoint.seen]
    assert [found["aiaas-attempt"] for found in headers] == ["1", "2", "3", "1"]
    left = [int(found["aiaas-timeout-ms"]) for found in headers[:3]]
    assert 10_000 >= left[0] > left[1] > left[2] > 5_000
    assert "aiaas-timeout-ms" not in headers[3]


@pytest.mark.slow
def test_a_model_that_still_loads_is_waited_for(endpoint: Any, load: Any, caplog: pytest.LogCaptureFixture) -> None:
    """R06: with growing pauses, and said once."""
    asked: list[float] = []
    begun = time.monotonic()

    def opening() -> int:
        asked.append(time.monotonic())
        return 503 if time.monotonic() - begun < 2.5 else 200

    endpoint.opening = opening
    with caplog.at_level("INFO", "aiaas_sdk"), load(endpoint.address, timeout=10) as model:
        assert model.predict([1.0]).array.tolist() == [2.0]
    assert len(asked) <= 6
    assert sum("isn't ready" in record.getMessage() for record in caplog.records) == 1


def test_loading_longer_than_the_deadline_fails_with_what_the_peer_said(endpoint: Any, load: Any) -> None:
    endpoint.opening = lambda: 503
    watch = Stopwatch()
    with pytest.raises(UnavailableError), load(endpoint.address, timeout=1) as model:
        model.predict([1.0])
    assert watch.took() < 1.3


def test_further_statuses_may_be_tried_again(endpoint: Any, load: Any) -> None:
    endpoint.behave = lambda n: (500, {}) if n == 0 else None
    with load(endpoint.address, retry=aiaas.Retry(wait=0.0, statuses=(500,))) as model:
        assert model.predict([1.0]).attempts == 2


def test_a_deadline_that_ends_within_an_attempt_says_what_was_waited_for(endpoint: Any, load: Any) -> None:
    endpoint.behave = lambda n: time.sleep(1)
    tokens = tokens_of(origin_of(endpoint.address))
    with load(endpoint.address, timeout=0.3) as model:
        with pytest.raises(aiaas.DeadlineExceededError, match="no whole answer"):
            model.predict([1.0])
        assert tokens.left == FULL
