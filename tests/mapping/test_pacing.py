"""How many calls `map` keeps in flight: the rules, with a clock of the test's own."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

import pytest

from aiaas_sdk.errors import ConnectionLostError, DeadlineExceededError, InputError, RateLimitedError, UnavailableError
from aiaas_sdk.mapping.pacing import MOST, Begun, Pace

Serve = Callable[[int], tuple[float, bool]]
"""What a peer makes of a call, by how many it then has: seconds, and whether it refuses."""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(pace: Pace, clock: Clock, serve: Serve, calls: int, attempts: int = 1) -> list[int]:
    """So many calls, as many at once as the pace says; the limit after each."""
    flying: list[tuple[float, int, Begun, bool]] = []
    numbers, limits = itertools.count(), []
    while len(limits) < calls:
        while len(flying) < pace.limit:
            seconds, refuses = serve(len(flying) + 1)
            heapq.heappush(flying, (clock.now + seconds, next(numbers), pace.begin(), refuses))
        clock.now, _, begun, refuses = heapq.heappop(flying)
        if refuses:
            pace.failed(begun, RateLimitedError("slow down", status=429))
        else:
            pace.answered(begun, 32, attempts)
        limits.append(pace.limit)
    for _ in flying:
        pace.dropped()
    return limits


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(4, clock=clock)


def test_it_grows_by_one_a_window_up_to_the_most(pace: Pace, clock: Clock) -> None:
    limits = run(pace, clock, lambda count: (0.1, False), 4 + 5 + 6 + 7)
    assert limits[3] in (4, 5)
    assert 7 <= limits[-1] <= 8
    assert run(pace, clock, lambda count: (0.1, False), 3000)[-1] == MOST


def test_what_is_not_used_does_not_grow(pace: Pace, clock: Clock) -> None:
    for _ in range(100):  # one at a time: the source is slow, or whoever takes the answers
        begun = pace.begin()
        clock.now += 0.1
        pace.answered(begun, 32)
    assert pace.limit == 4


@pytest.mark.parametrize(
    "failure",
    [RateLimitedError("", status=429), UnavailableError("", status=503), DeadlineExceededError("")],
    ids=lambda failure: type(failure).__name__,
)
def test_a_peer_that_pushes_back_is_asked_half_once_a_round_trip(clock: Clock, failure: Exception) -> None:
    pace = Pace(16, clock=clock)
    burst = [pace.begin() for _ in range(16)]
    for begun in burst:
        clock.now += 0.01
        pace.failed(begun, failure)
    assert pace.limit == 8  # not 16 halvings
    begun = pace.begin()
    clock.now += 0.01
    pace.failed(begun, failure)
    assert pace.limit == 4


def test_a_retry_inside_of_a_call_counts_as_pushing_back(clock: Clock) -> None:
    pace = Pace(16, clock=clock)
    begun = pace.begin()
    clock.now += 0.01
    pace.answered(begun, 32, attempts=2)
    assert pace.limit == 8


def test_the_second_request_of_a_hedged_call_does_not(clock: Clock) -> None:
    pace = Pace(16, attempts=2, clock=clock)
    for attempts, limit in ((2, 16), (3, 8)):
        begun = pace.begin()
        clock.now += 0.01
        pace.answered(begun, 32, attempts)
        assert pace.limit == limit


@pytest.mark.parametrize("failure", [InputError("no"), ConnectionLostError("gone")])
def test_other_failures_say_nothing_about_the_pace(pace: Pace, clock: Clock, failure: Exception) -> None:
    begun = pace.begin()
    clock.now += 0.01
    assert not pace.failed(begun, failure)
    assert pace.limit == 4


def test_it_never_goes_below_one(pace: Pace, clock: Clock) -> None:
    for _ in range(20):
        begun = pace.begin()
        clock.now += 0.01
        pace.failed(begun, RateLimitedError("", status=429))
    assert pace.limit == 1


def test_a_refused_call_is_worth_asking_again_only_where_less_is_asked_since(clock: Clock) -> None:
    pace = Pace(2, clock=clock)
    two = pace.begin(), pace.begin()
    clock.now += 0.01
    refusal = RateLimitedError("", status=429)
    assert [pace.failed(begun, refusal) for begun in two] == [True, True]  # one cut, for both
    alone = pace.begin()
    clock.now += 0.01
    assert not pace.failed(alone, refusal)  # one call at a time is too much for this peer
    assert not pace.failed(pace.begin(), DeadlineExceededError(""))


def test_a_fixed_pace_stays(clock: Clock) -> None:
    pace = Pace.fixed(8)
    run(pace, clock, lambda count: (0.1 * count, False), 500)
    begun = pace.begin()
    assert not pace.failed(begun, RateLimitedError("", status=429))
    assert pace.limit == 8


@pytest.mark.parametrize("capacity", [1, 2, 3, 6, 20, 50])
def test_a_peer_that_refuses_more_than_it_carries_is_asked_about_that_much(capacity: int, clock: Clock) -> None:
    pace = Pace(4, clock=clock)
    refused = 0

    def serve(count: int) -> tuple[float, bool]:
        nonlocal refused
        refused += count > capacity
        return (0.001, True) if count > capacity else (0.1, False)

    run(pace, clock, serve, 3000)
    refused = 0
    limits = run(pace, clock, serve, 3000)
    assert refused < 0.05 * 3000
    assert max(limits) <= capacity + 1
    assert sum(limits) / len(limits) > 0.7 * capacity


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("capacity", [1, 4, 8, 16, 32])
def test_a_peer_that_queues_is_not_asked_more_and_more(capacity: int, noise: float, clock: Clock) -> None:
    """It works on so many calls at once; others wait for their turn."""
    pace, chance = Pace(4, clock=clock), random.Random(0)
    free = [clock.now] * capacity

    def serve(count: int) -> tuple[float, bool]:
        begun = max(heapq.heappop(free), clock.now)
        ended = begun + 0.1 * (1 + noise * chance.expovariate(1))
        heapq.heappush(free, ended)
        return ended - clock.now, False

    settled = run(pace, clock, serve, 10_000)[2000:]
    assert sum(settled) / len(settled) <= 2 * capacity + 8
    assert sum(settled) / len(settled) > 0.9 * capacity  # and it has enough to do


def test_calls_that_became_slower_by_themselves_are_paced_anew(pace: Pace, clock: Clock) -> None:
    run(pace, clock, lambda count: (0.1, False), 200)
    assert min(run(pace, clock, lambda count: (0.5, False), 300)) <= 5  # for all it knows they queue
    assert run(pace, clock, lambda count: (0.5, False), 2000)[-1] > 16


def test_rows_that_are_asked_one_by_one_do_not_make_batches_look_slow(pace: Pace, clock: Clock) -> None:
    run(pace, clock, lambda count: (0.32, False), 200)
    before = pace.limit
    for _ in range(200):
        begun = pace.begin()
        clock.now += 0.01
        pace.answered(begun, 1)
    assert min(run(pace, clock, lambda count: (0.32, False), 200)) >= before > 8
