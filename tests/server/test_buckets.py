"""What a caller may use in a minute, where several processes serve: one bucket for all of them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import pytest

from aiaas_sdk.server.buckets import SharedBucket, Table


@pytest.fixture
def page(tmp_path: Path) -> Iterator[int]:
    with open(tmp_path / "buckets", "w+b") as file:
        yield file.fileno()


def processes(page: int, count: int = 2, sets: int = 8) -> list[Table]:
    """The tables as so many processes have them."""
    return [Table(page, number, count, sets) for number in range(count)]


def test_what_one_takes_is_gone_for_all(page: int) -> None:
    one, two, three = (table.bucket("requests", "alice", size=60) for table in processes(page, 3))
    assert one.left == two.left == three.left == 60
    one.take(10)
    two.take(20.5)
    for bucket in (one, two, three):
        assert 29.5 <= bucket.left < 39
    two.take(-20.5)  # less was used than was foreseen
    assert 50 <= one.left < 59
    three.take(100)  # more was: it is owed
    assert -50 <= one.left < -40
    assert 41 < two.until(1) <= 51


def test_each_name_and_each_size_has_its_own(page: int) -> None:
    one, two = processes(page)
    one.bucket("requests", "alice", size=60).take(50)
    for other in (("tokens", "alice"), ("requests", "bob"), ("requests", "Alice")):
        assert two.bucket(*other, size=60).left == 60
    assert two.bucket("requests", "alice", size=90).left == 90  # as if the limit had been changed
    assert two.bucket("requests", "alice", size=60).left < 15


def test_what_came_back_long_ago_is_owed_by_nobody(page: int) -> None:
    """Who wasn't asked for a while doesn't count it when he is."""
    one, two = (table.bucket("tokens", "alice", size=6000) for table in processes(page))
    for _ in range(3):
        one.take(30)
        time.sleep(0.35)  # it is full after 0.3
    assert one.left == two.left == 6000
    two.take(3000)
    assert 3000 <= one.left == pytest.approx(3000, abs=500)


def test_what_is_given_back_to_a_full_one_is_no_credit(page: int) -> None:
    one, two = (table.bucket("tokens", "alice", size=600) for table in processes(page))
    one.take(1)
    time.sleep(0.12)
    one.take(-500)
    assert one.left == two.left == 600
    two.take(600)
    assert one.left == pytest.approx(0, abs=50)


def test_who_takes_a_dead_ones_place_goes_on_with_its_counts(page: int) -> None:
    one, two = processes(page)
    one.bucket("requests", "alice", size=60).take(40)
    two.bucket("requests", "alice", size=60).take(10)
    again = Table(page, 0, 2, sets=8).bucket("requests", "alice", size=60)
    assert 10 <= again.left < 12
    again.take(5)
    assert 5 <= two.bucket("requests", "alice", size=60).left < 8


def test_there_is_room_for_any_number_of_callers_one_after_the_other(page: int) -> None:
    one, two = processes(page, sets=1)
    busy = one.bucket("requests", "busy", size=60)
    busy.take(50)
    for number in range(500):  # tokens may name any subjects
        bucket = one.bucket("requests", str(number), size=60_000)
        assert bucket.left == 60_000  # nobody has what another owes
        bucket.take(2)  # which is back after 2 ms
        time.sleep(0.001)
    assert 10 <= two.bucket("requests", "busy", size=60).left < 30


def test_two_places_of_one_bucket_become_one_again(page: int) -> None:
    one, two = (table.bucket("requests", "alice", size=60) for table in processes(page, sets=1))
    shared: Any = one
    shared._table._tags[7] = shared._tag
    two.take(1)
    shared._table._tags[3] = shared._tag  # as if somebody had chosen this one at the same moment
    one.take(30)
    assert two.left < 40


def taking(page: Any, number: int, start: Any, times: int) -> None:
    """What a process of the next test does."""
    bucket = Table(page.detach(), number, 3).bucket("requests", "alice", size=60)
    start.wait()
    for _ in range(times):
        bucket.take(1)


@pytest.mark.slow
def test_nothing_is_lost_where_all_take_at_once(page: int) -> None:
    context, times = multiprocessing.get_context("spawn"), 150_000
    start = context.Barrier(4)
    begun = time.monotonic()
    Table(page, 0, 3).bucket("requests", "alice", size=60).take(0)  # its place; else the first takes may find two
    running: list[Any] = []
    for number in range(3):
        # a descriptor is handed on while a process is started
        running.append(context.Process(target=taking, args=(reduction.DupFd(page), number, start, times)))
        running[-1].start()
    start.wait()
    for process in running:
        process.join()
        assert process.exitcode == 0
    left = Table(page, 0, 3).bucket("requests", "alice", size=60).left
    assert 60 - 3 * times <= left <= 60 - 3 * times + time.monotonic() - begun


def test_a_look_costs_next_to_nothing(page: int) -> None:
    bucket: SharedBucket = processes(page, 8)[3].bucket("requests", "alice", size=60)
    begun = time.thread_time()
    for _ in range(1000):
        bucket.until(1)
        bucket.take(1)
    assert time.thread_time() - begun < 0.2  # 10 ms, and nothing that waits or searches
