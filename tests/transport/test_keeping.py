"""Kept connections: reused, replaced when stale, bounded, safe across forks, threads and loops."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import subprocess
import sys
import threading
import time
import warnings
from typing import Any

import pytest

from aiaas_sdk.errors import ConnectionLostError, DeadlineExceededError
from aiaas_sdk.flow import Reply, Request
from aiaas_sdk.transport import AsyncHttpSender, HttpSender, idle
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def fetch(sender: AsyncHttpSender, url: str, within: float = 5.0) -> bytes:
    reply: Reply = await sender.send(Request("GET", url), time.monotonic() + within)
    return bytes(reply.body)


def test_one_connection_serves_one_request_after_another(server: Any, send: Any, answering: Any) -> None:
    one = server(answering(OK))
    for _ in range(50):
        assert bytes(send(Request("GET", one.url)).body) == b"ok"
    assert one.seen == 1


def test_a_connection_that_the_peer_closed_is_replaced_silently(server: Any, send: Any, replying: Any) -> None:
    """N07."""
    one = server(replying(OK))
    for _ in range(5):
        assert bytes(send(Request("POST", one.url, {}, (b"x",), idempotent=False)).body) == b"ok"
        until(lambda: one.open == 0)


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_kept_connection_that_ends_under_the_request_is_replaced_once_if_that_is_safe(
    server: Any, send: Any, taken: Any, idempotent: bool
) -> None:
    """N07."""
    requests = []

    def answer(connection: socket.socket) -> None:
        requests.append(taken(connection))
        connection.sendall(OK)
        requests.append(taken(connection))  # and hang up without a word

    one = server(answer)
    request = Request("POST", one.url, {}, (b"job",), idempotent=idempotent)
    send(request)
    if idempotent:
        assert bytes(send(request).body) == b"ok"
        assert (one.seen, len(requests)) == (2, 3)
    else:
        with pytest.raises(ConnectionLostError):
            send(request)
        assert (one.seen, len(requests)) == (1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.04, 0.03], ids=["after", "about"])
def test_r09_idle_connections_that_the_peer_closes_fail_no_call(
    server: Any, send: Any, taken: Any, pause: float
) -> None:
    """R09: fifty calls, each after, or just about when, the peer closes its connection without having said so."""

    def answer(connection: socket.socket) -> None:
        taken(connection)
        connection.sendall(OK)
        time.sleep(0.03)

    one, chance = server(answer), random.Random(9)
    for _ in range(50):
        assert bytes(send(Request("POST", one.url, {}, (b"x",))).body) == b"ok"
        time.sleep(pause + chance.uniform(-0.001, 0.001))
    assert one.seen >= 40


def test_n12_a_redirect_is_not_followed(server: Any, send: Any, taken: Any) -> None:
    """N12: it comes back as it is; nothing is sent to where it points, least of all a key."""
    elsewhere = server(lambda connection: connection.recv(65536) and None)
    asked: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        while request := taken(connection):
            asked.append(request)
            head = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n"
            connection.sendall(head % elsewhere.url.encode())

    reply = send(Request("POST", server(answer).url, {"authorization": "Bearer k"}, (b"x",)))
    assert (reply.status, reply.headers["location"]) == (307, elsewhere.url)
    assert (len(asked), elsewhere.seen) == (1, 0)


def test_n15_cookies_are_neither_kept_nor_sent(server: Any, send: Any, taken: Any) -> None:
    asked: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        while request := taken(connection):
            asked.append(request.lower())
            connection.sendall(b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n")

    one = server(answer)
    for _ in range(3):
        assert send(Request("GET", one.url)).headers["set-cookie"] == "a=b"
    assert len(asked) == 3
    assert not any(b"cookie" in request for request in asked)


def test_the_plain_and_the_awaited_face_share_their_connections(server: Any, answering: Any) -> None:
    one, sender = server(answering(OK)), HttpSender()
    for _ in range(3):
        sender.send(Request("GET", one.url), time.monotonic() + 5)
        assert asyncio.run(fetch(sender.awaited, one.url)) == b"ok"
    assert one.seen == 1
    sender.close()
    assert asyncio.run(fetch(sender.awaited, one.url)) == b"ok"
    until(lambda: one.open == 0)


def test_a_new_connection_that_ends_is_not_replaced(server: Any, send: Any) -> None:
    """N08."""
    one = server(lambda connection: connection.recv(65536) and None)
    with pytest.raises(ConnectionLostError):
        send(Request("GET", one.url))
    assert one.seen == 1


def test_a_connection_on_which_too_much_came_is_not_used_again(server: Any, send: Any, answering: Any) -> None:
    one = server(answering(OK + OK))
    for _ in range(3):
        assert bytes(send(Request("GET", one.url)).body) == b"ok"
        time.sleep(0.02)
    assert one.seen == 3


def test_a_connection_that_missed_its_deadline_is_not_used_again(server: Any, send: Any, answering: Any) -> None:
    """N10."""
    one = server(answering(OK, pause=0.4))
    with pytest.raises(DeadlineExceededError):
        send(Request("GET", one.url), 0.2)
    assert bytes(send(Request("GET", one.url)).body) == b"ok"
    assert one.seen == 2


def test_what_was_idle_too_long_is_closed(server: Any, send: Any, answering: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(idle, "IDLE_SECONDS", 0.1)
    one = server(answering(OK))
    for _ in range(3):
        send(Request("GET", one.url))
        time.sleep(0.15)
    assert one.seen == 3


def test_only_so_many_are_kept_and_the_last_one_in_is_the_first_out(monkeypatch: Any) -> None:
    class Link:
        closed = False

        def usable(self) -> bool:
            return True

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr(idle, "IDLE_MOST", 3)
    kept, links = idle.Idle(), [Link() for _ in range(5)]
    for link in links:
        kept.keep("here", link)
    assert [link.closed for link in links] == [True, True, False, False, False]
    assert kept.take("there") is None
    assert kept.take("here") is links[4]
    kept.close()
    assert [link.closed for link in links] == [True, True, True, True, False]
    kept.keep("here", links[4])
    assert links[4].closed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_makes_its_own_connections(server: Any, answering: Any) -> None:
    """X03."""
    one, sender = server(answering(OK)), HttpSender()
    sender.send(Request("GET", one.url), time.monotonic() + 5)
    child = os.fork()
    if child == 0:
        try:
            body = sender.send(Request("GET", one.url), time.monotonic() + 5).body
            os._exit(0 if bytes(body) == b"ok" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sender.send(Request("GET", one.url), time.monotonic() + 5)
    assert one.seen == 2
    sender.close()


def test_many_threads_get_their_own_answers(server: Any, taken: Any) -> None:
    """X04."""

    def answer(connection: socket.socket) -> None:
        while request := taken(connection):
            word = request.rpartition(b"\r\n")[2]
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(word), word))

    one, sender, wrong = server(answer), HttpSender(), []

    def work(name: int) -> None:
        for turn in range(50):
            word = f"{name}-{turn}".encode()
            reply = sender.send(Request("POST", one.url, {}, (word,)), time.monotonic() + 20)
            if bytes(reply.body) != word:
                wrong.append(word)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert one.seen <= 32
    sender.close()


def test_a_process_that_just_ends_ends_quietly(server: Any, answering: Any) -> None:
    """X05."""
    program = f"""
import asyncio, time
from aiaas_sdk.flow import Request
from aiaas_sdk.transport import AsyncHttpSender, HttpSender

request = Request("GET", {server(answering(OK)).url!r})
plain, awaited = HttpSender(), AsyncHttpSender()
plain.send(request, time.monotonic() + 5)
half = plain.open(Request("GET", {server(lambda connection: _half(connection)).url!r}), time.monotonic() + 5)

async def use():
    await asyncio.gather(*(awaited.send(request, time.monotonic() + 5) for _ in range(5)))
    asyncio.create_task(awaited.send(Request("GET", {server(lambda connection: time.sleep(3)).url!r}), None))
    await asyncio.sleep(0.1)

asyncio.run(use())
"""
    begun = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert time.monotonic() - begun < 15


def _half(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
    connection.recv(65536)


# ---------------------------------------------------------------- event loops
def test_one_loop_after_another_uses_the_same_connection(server: Any, answering: Any) -> None:
    """X04."""
    one, sender = server(answering(OK)), AsyncHttpSender()
    for _ in range(5):
        assert asyncio.run(fetch(sender, one.url)) == b"ok"
    assert one.seen == 1
    sender.close()


def test_loops_of_several_threads_share_a_sender(server: Any, answering: Any) -> None:
    """X04."""
    one, sender, got = server(answering(OK)), AsyncHttpSender(), []

    async def several() -> None:
        got.extend(await asyncio.gather(*(fetch(sender, one.url) for _ in range(20))))

    threads = [threading.Thread(target=lambda: asyncio.run(several())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [b"ok"] * 80
    sender.close()


def test_many_at_once_are_answered_and_kept_for_the_next_time(server: Any, answering: Any) -> None:
    one, sender = server(answering(OK, pause=0.01)), AsyncHttpSender()

    async def several() -> None:
        for _ in range(3):
            assert await asyncio.gather(*(fetch(sender, one.url) for _ in range(64))) == [b"ok"] * 64

    asyncio.run(several())
    assert one.seen == 64
    sender.close()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_senders_that_are_dropped_leave_neither_warnings_nor_sockets(serve: Any, answering: Any) -> None:
    url = serve(answering(OK))
    before = open_files()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):

            async def use() -> None:
                for _ in range(10):
                    assert await fetch(AsyncHttpSender(), url) == b"ok"

            asyncio.run(use())
            HttpSender().send(Request("GET", url), time.monotonic() + 5)
        loop = asyncio.new_event_loop()  # closed without any ceremony
        loop.run_until_complete(fetch(AsyncHttpSender(), url))
        loop.close()
        gc.collect()
    until(lambda: open_files() <= before + 2)  # the server's ends close a little later


def test_close_comes_from_a_loop_or_from_outside_and_twice(serve: Any, answering: Any) -> None:
    url, sender = serve(answering(OK)), AsyncHttpSender()

    async def use() -> None:
        await fetch(sender, url)
        sender.close()
        assert await fetch(sender, url) == b"ok"  # what is under way ends well

    asyncio.run(use())
    sender.close()


class Watchless(asyncio.SelectorEventLoop):
    """A loop that can't watch sockets, as the Proactor loop of Windows can't."""

    def add_reader(self, *_: Any) -> None:
        raise NotImplementedError

    def add_writer(self, *_: Any) -> None:
        raise NotImplementedError


def test_a_loop_that_cannot_watch_sockets_waits_in_a_thread(server: Any, answering: Any) -> None:
    one, sender = server(answering(OK)), AsyncHttpSender()
    with asyncio.Runner(loop_factory=Watchless) as runner:
        assert runner.run(fetch(sender, one.url)) == b"ok"
        silent = server(lambda connection: time.sleep(1))
        with pytest.raises(DeadlineExceededError):
            runner.run(fetch(sender, silent.url, 0.2))
    sender.close()
