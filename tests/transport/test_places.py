"""The limit of connections (N06): who waits, for how long, in which order, and that no place is ever lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from aiaas_sdk.errors import AiaasError, ConfigError, ConnectError, ConnectionLostError, DeadlineExceededError
from aiaas_sdk.flow import Reply, Request
from aiaas_sdk.records.network import Network
from aiaas_sdk.transport import AsyncHttpSender, HttpSender, awaited, plain
from aiaas_sdk.transport.places import Place, Places
from tests.stopwatch import Stopwatch

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def get(url: str, connections: int = 1) -> Request:
    return Request("GET", url, network=Network(connections=connections))


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


async def fetch(sender: AsyncHttpSender, request: Request, within: float = 20.0) -> bytes:
    reply: Reply = await sender.send(request, soon(within))
    return bytes(reply.body)


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """The work in so many threads at once; a failure in one of them fails the test."""
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


@pytest.fixture
def streaming(taken: Any) -> Callable[[socket.socket], None]:
    """A script: `/stream` begins and goes on when the peer says something; anything else is answered at once."""

    def answer(connection: socket.socket) -> None:
        while request := taken(connection):
            if not request.startswith(b"GET /stream"):
                connection.sendall(OK)
                continue
            connection.sendall(CHUNKED + b"3\r\none\r\n")
            connection.recv(1)

    return answer


@pytest.fixture
def meeting(server: Any, taken: Any) -> Any:
    """A server that answers `/meet` only to four requests together, so that who is answered shows that four places
    are free; anything else after some milliseconds."""
    barrier, chance = threading.Barrier(4), random.Random(6)

    def answer(connection: socket.socket) -> None:
        while request := taken(connection):
            if request.startswith(b"GET /meet"):
                barrier.wait(5)
            else:
                time.sleep(chance.uniform(0, 0.01))
            connection.sendall(OK)

    return server(answer)


# ---------------------------------------------------------------- waiting
def test_n06_a_call_that_finds_none_free_waits_and_says_so_at_its_deadline(
    server: Any, send: Any, streaming: Any
) -> None:
    one = server(streaming)
    held = send.open(get(f"{one.url}stream"))
    watch = Stopwatch()
    with pytest.raises(DeadlineExceededError, match=r"waiting for a connection to 127\.0\.0\.1:\d+: all 1 ") as caught:
        send(get(one.url), 0.3)
    assert 0.25 < watch.took() < 0.6
    assert caught.value.__cause__ is None
    send.release(held)
    assert bytes(send(get(one.url)).body) == b"ok"


def test_other_origins_and_other_networks_have_places_of_their_own(server: Any, send: Any, streaming: Any) -> None:
    one, other = server(streaming), server(streaming)
    held = send.open(get(f"{one.url}stream"))
    assert send(get(other.url)).status == 200
    assert send(Request("GET", one.url)).status == 200
    send.release(held)


def test_a_stream_keeps_its_place_until_its_end(server: Any, send: Any, taken: Any) -> None:
    def answer(connection: socket.socket) -> None:
        while taken(connection):
            connection.sendall(CHUNKED + b"3\r\none\r\n0\r\n\r\n")

    one = server(answer)
    for _ in range(3):
        reply = send.open(get(one.url))
        assert send.read(reply) == b"one"
        assert send.read(reply) == b""
        assert send(get(one.url)).status == 200
        send.release(reply)
    assert one.seen == 1


def test_a_stream_that_is_dropped_gives_its_place_back(server: Any, send: Any, streaming: Any) -> None:
    one = server(streaming)
    for _ in range(3):
        send.open(get(f"{one.url}stream"))
        gc.collect()
    assert send(get(one.url)).status == 200


def test_no_more_are_open_than_the_limit_says(server: Any, answering: Any) -> None:
    """R12, X04: threads and two event loops share a limit of 4."""
    one, sender = server(answering(OK, pause=0.005)), HttpSender()
    request = get(one.url, 4)

    def work(number: int) -> None:
        for _ in range(10):
            if number % 2:
                assert bytes(sender.send(request, soon(30)).body) == b"ok"
            else:
                assert asyncio.run(fetch(sender.awaited, request, 30)) == b"ok"

    in_threads(16, work)
    assert one.peak == one.seen == 4
    sender.close()


def test_whoever_waits_longest_is_next_in_a_thread_or_in_a_loop() -> None:
    places, order = Places(1), list[int]()
    held: Place = plain.perform(places.enter(None))

    def in_thread(number: int) -> None:
        place = plain.perform(places.enter(soon()))
        order.append(number)
        place.leave()

    async def in_loop(number: int) -> None:
        place = await awaited.perform(places.enter(soon()))
        order.append(number)
        place.leave()

    threads = []
    for number in range(12):
        work = in_thread if number % 2 else lambda number: asyncio.run(in_loop(number))
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        end = soon()
        while len(places._waiting) <= number and time.monotonic() < end:
            time.sleep(0.001)
    held.leave()
    for thread in threads:
        thread.join(10)
    assert order == list(range(12))


# ---------------------------------------------------------------- none is lost
def meet(sender: HttpSender, one: Any) -> None:
    """All four places are free: four requests are out together, and a fifth would have to wait."""
    request = get(f"{one.url}meet", 4)
    in_threads(4, lambda _: sender.send(request, soon()))


@pytest.mark.slow
def test_n06_five_thousand_cancelled_calls_lose_none(meeting: Any) -> None:
    sender, chance = HttpSender(), random.Random(6)
    request = get(meeting.url, 4)

    async def cancelled() -> None:
        task = asyncio.create_task(sender.awaited.send(request, soon(60)))
        await asyncio.sleep(chance.uniform(0, 0.015))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):  # it may have been quicker
            await task

    async def use() -> None:
        # 10 at a time: with 4 places some wait for one, some for their connection, some for their answer
        for _ in range(500):
            await asyncio.gather(*(cancelled() for _ in range(10)))

    asyncio.run(use())
    meet(sender, meeting)
    sender.close()


def test_n06_calls_that_run_out_of_time_in_threads_lose_none(meeting: Any) -> None:
    sender, chance = HttpSender(), random.Random(6)
    request, late = get(meeting.url, 4), list[str]()

    def work(_: int) -> None:
        for _ in range(30):
            try:
                sender.send(request, soon(chance.uniform(0, 0.015)))
            except DeadlineExceededError as error:
                late.append(str(error))

    in_threads(16, work)
    assert any("waiting for a connection" in text for text in late)
    assert any("whole answer" in text for text in late)
    meet(sender, meeting)
    sender.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
    ],
    ids=["nothing", "half", "rubbish", "too-large"],
)
def test_a_call_that_fails_gives_its_place_back(server: Any, send: Any, replying: Any, answer: bytes) -> None:
    one = server(replying(answer))
    for _ in range(4):
        with pytest.raises(AiaasError) as caught:
            send(get(one.url, 2), 2)
        assert not isinstance(caught.value, DeadlineExceededError)


def test_a_call_that_reaches_nobody_gives_its_place_back(send: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for _ in range(4):
        with pytest.raises(ConnectError, match="refused"):
            send(get(f"http://127.0.0.1:{port}/"), 2)


def test_a_request_that_cannot_be_written_takes_no_place(server: Any, send: Any, answering: Any) -> None:
    one = server(answering(OK))
    for _ in range(3):
        with pytest.raises(ConfigError):
            send(Request("GET", one.url, {"x": "\n"}, network=Network(connections=1)))
    assert send(get(one.url)).status == 200


def test_x02_ctrl_c_while_waiting_comes_at_once_and_takes_no_place(server: Any, streaming: Any) -> None:
    one, sender = server(streaming), HttpSender()
    held = sender.open(get(f"{one.url}stream"), soon())
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    watch = Stopwatch()
    with pytest.raises(KeyboardInterrupt):
        sender.send(get(one.url), None)
    assert watch.took() < 0.5
    sender.release(held)
    assert sender.send(get(one.url), soon()).status == 200
    sender.close()


def test_x01_a_cancelled_wait_takes_no_place_although_its_turn_has_just_come(server: Any, streaming: Any) -> None:
    one, sender = server(streaming), AsyncHttpSender()

    async def use() -> None:
        held = await sender.open(get(f"{one.url}stream"), soon())
        task = asyncio.create_task(sender.send(get(one.url), None))
        await asyncio.sleep(0.05)
        await sender.release(held)  # its turn has come; the loop hasn't told it yet
        task.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert await fetch(sender, get(one.url)) == b"ok"
        assert caught.tb is not None  # it holds the frames, and so what they have

    asyncio.run(use())
    sender.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_x03_a_forked_child_has_all_places_and_the_parent_keeps_its_own(server: Any, streaming: Any) -> None:
    one, sender = server(streaming), HttpSender()
    held = sender.open(get(f"{one.url}stream"), soon())
    child = os.fork()
    if child == 0:
        try:
            status = sender.send(get(one.url), soon()).status
            sender.release(held)
            os._exit(0 if status == 200 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(DeadlineExceededError, match="waiting for a connection"):
        sender.send(get(one.url), soon(0.1))
    sender.release(held)
    assert sender.send(get(one.url), soon()).status == 200
    sender.close()


def test_a_place_comes_back_by_itself_once_and_goes_with_its_places() -> None:
    places = Places(1)
    place: Place = plain.perform(places.enter(None))
    place.leave()
    place.leave()
    del place
    again = plain.perform(places.enter(None))
    with pytest.raises(TimeoutError):
        plain.perform(places.enter(soon(0.01)))
    del again
    last = plain.perform(places.enter(soon(0.01)))
    del places
    last.leave()


# ---------------------------------------------------------------- mixed faults
@pytest.mark.slow
def test_r12_stalls_errors_and_streams_that_are_left_take_no_connection_for_good(server: Any, taken: Any) -> None:
    """R12: 200 calls in 32 threads, of which one in twenty stalls, fails or is a stream that is left; then 50."""
    chance = random.Random(12)

    def answer(connection: socket.socket) -> None:
        while taken(connection):
            kind = chance.random()
            if kind < 0.05:
                time.sleep(2)
            elif kind < 0.1:
                return
            connection.sendall(CHUNKED + b"1\r\nx\r\n" if kind < 0.15 else OK)
            if kind < 0.15:
                connection.recv(1)
                return

    one, sender, healthy = server(answer), HttpSender(), list[float]()
    request = get(one.url, 8)

    def call(_: int) -> None:
        for number in range(7):
            try:
                if number % 3:
                    sender.send(request, soon(0.5))
                else:
                    sender.release(sender.open(request, soon(0.5)))
            except (ConnectionLostError, DeadlineExceededError):
                pass

    in_threads(32, call)
    chance.random = lambda: 1.0  # type: ignore[method-assign]
    for _ in range(50):
        watch = Stopwatch()
        assert sender.send(request, soon()).status == 200
        healthy.append(watch.took().ours)
    assert sorted(healthy)[25] < 0.05
    sender.close()
