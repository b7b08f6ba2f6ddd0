"""Reaching the peer: rows N01 to N15 of the fault catalogue."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.testing.faults import (
    FaultServer,
    answer,
    chunked,
    claim,
    content,
    cut,
    drip,
    endless,
    raw,
    refuse,
    reset,
    stall,
    status,
)
from tests.stopwatch import Stopwatch
from tests.waiting import reached, until

SLACK = 0.25
X = np.ones((1, 3), np.float32)
RETRIED = aiaas.Retry(wait=0.02)
PACKED = gzip.compress(bytes(1 << 26), 1)
"""64 MiB of nothing."""


# ---------------------------------------------------------------- names and ports
@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_AGAIN])
def test_n01_a_name_that_does_not_resolve_is_asked_for_again_and_named(case: Any, monkeypatch: Any, code: int) -> None:
    asked = []
    real = socket.getaddrinfo

    def missing(host: str, *args: Any, **options: Any) -> Any:
        if host != "nowhere.test":
            return real(host, *args, **options)
        if not options.get("flags"):  # with them only numbers count
            asked.append(host)
        raise socket.gaierror(code, "no such name")

    model = case.load("http://nowhere.test/v2/models/double", retry=RETRIED)
    monkeypatch.setattr(socket, "getaddrinfo", missing)
    with pytest.raises(aiaas.ConnectError, match=r"nowhere\.test") as caught:
        model.predict(X)
    assert (caught.value.attempts, caught.value.retryable) == (3, True)
    assert len(asked) == 3


def test_n01_a_resolver_that_hangs_is_left_on_time(case: Any, monkeypatch: Any) -> None:
    real = socket.getaddrinfo
    slow = lambda *args, **options: (options.get("flags") or time.sleep(1), real(*args, **options))[1]  # noqa: E731
    model = case.load(case.server.address.replace("127.0.0.1", "localhost"))
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    watch = Stopwatch()
    with pytest.raises(aiaas.DeadlineExceededError):
        model.predict(np.ones((1, 3), np.float32), timeout=0.3)
    assert watch.took() < 0.3 + SLACK


def test_n02_a_closed_port_is_asked_again_and_named(case: Any) -> None:
    case.fresh(retry=RETRIED)
    with case.server.down():
        error = case.fails(aiaas.ConnectError)
    assert (error.attempts, error.allowed, error.retryable) == (3, 3, True)
    assert f"127.0.0.1:{case.server.port}" in str(error)
    assert not case.server.requests
    case.passes()


def test_n02_a_port_that_opens_again_within_the_attempts_is_no_failure(case: Any) -> None:
    case.fresh(retry=aiaas.Retry(attempts=50, wait=0.02, max_wait=0.02), breaker=None)
    case.server.script([refuse(0.1)])
    prediction = case.model.predict(X)
    assert 1 < prediction.attempts <= 50
    assert len(case.server.of("predict")) == 1


def test_n02_a_host_that_no_way_leads_to_is_a_connect_error(case: Any) -> None:
    model = case.load("http://255.255.255.255/v2/models/double", retry=RETRIED)
    with pytest.raises(aiaas.ConnectError, match=r"255\.255\.255\.255:80"):
        model.predict(X)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take more connections than were asked for")
def test_n03_a_dropped_syn_ends_with_the_deadline(case: Any) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        time.sleep(0.1)
        model = case.load(f"http://127.0.0.1:{listener.getsockname()[1]}/v2/models/double")
        watch = Stopwatch()
        with pytest.raises((aiaas.ConnectError, aiaas.DeadlineExceededError)):
            model.predict(np.ones((1, 3), np.float32), timeout=0.3)
        assert watch.took() < 0.3 + SLACK
        for one in crowd:
            one.close()


# ---------------------------------------------------------------- TLS, and what isn't HTTP
@pytest.mark.parametrize(
    ("host", "days", "trusted", "reason"),
    [
        ("127.0.0.1", 1, False, "self-signed"),
        ("127.0.0.1", -1, True, "expired"),
        ("other.test", 1, True, "127.0.0.1"),
    ],
    ids=["self-signed", "expired", "other-host"],
)
def test_n04_a_bad_certificate_is_told_in_words_after_one_hello(
    case: Any, secure: Any, host: str, days: int, trusted: bool, reason: str
) -> None:
    server = secure(host, days, trusted=trusted)
    model = case.load(server.address)
    with pytest.raises(aiaas.TLSError, match=reason) as caught:
        model.predict(X)
    assert isinstance(caught.value, aiaas.ConnectError)
    assert not caught.value.retryable
    assert len(server.connections) == 1
    assert not server.requests


def test_n04_nothing_switches_verification_off(case: Any, secure: Any, tmp_path: Any, monkeypatch: Any) -> None:
    server = secure(trusted=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "aiaas.toml").write_text(f'[models.far]\naddress = "{server.address}"\nverify = false\n')
    with pytest.raises(aiaas.UnsupportedOperationError, match="verify"):
        case.load(server.address, verify=False)
    with pytest.raises(aiaas.TLSError):
        case.load("far").predict(X)
    for address in (f"{server.address}?verify=false", f"{server.address}#verify=false"):
        with pytest.raises((aiaas.TLSError, aiaas.AddressError)):
            case.load(address).predict(X)
    assert not server.requests


@pytest.mark.parametrize(
    "data",
    [b"SSH-2.0-OpenSSH_9.9\r\n", b"\x15\x03\x03\x00\x02\x02\x46", b"220 mail.test ESMTP\r\n"],
    ids=["ssh", "tls", "smtp"],
)
def test_n05_what_is_no_http_is_not_asked_again(case: Any, data: bytes) -> None:
    case.fresh()
    case.server.on("predict", raw(data))
    error = case.fails(aiaas.ProtocolError)
    assert (error.attempts, error.retryable) == (1, False)
    assert len(case.server.requests) == 1


def test_n05_plain_http_on_an_https_port_is_not_asked_again(case: Any) -> None:
    model = case.load(case.server.address.replace("http:", "https:"))
    with pytest.raises(aiaas.TLSError, match="HTTPS") as caught:
        model.predict(X)
    assert not caught.value.retryable
    assert len(case.server.connections) == 1


# ---------------------------------------------------------------- N06
LIMITS = ["concurrency", "connections"]


@pytest.mark.parametrize("limit", LIMITS)
def test_n06_r12_waiting_for_a_free_connection_ends_with_the_deadline_and_says_so(
    server: FaultServer, held: Any, limit: str
) -> None:
    with aiaas.load(server.address, timeout=5, limits=aiaas.Limits(**{limit: 1})) as model:
        model.info()
        server.on("predict", held.fault)
        thread = threading.Thread(target=model.predict, args=(X,))
        thread.start()
        until(lambda: server.of("predict"))
        watch = Stopwatch()
        with pytest.raises(aiaas.DeadlineExceededError, match="waiting for"):
            model.predict(X, timeout=0.3)
        assert watch.took() < 0.3 + SLACK
        held.let_go()
        thread.join()
        assert model.predict(X).attempts == 1
    assert len(server.of("predict")) == 2


@pytest.mark.parametrize("limit", LIMITS)
async def test_n06_r12_so_it_is_in_an_event_loop(server: FaultServer, held: Any, limit: str) -> None:
    limits = aiaas.Limits(**{limit: 1})
    async with aiaas.load_async(server.address, timeout=5, limits=limits) as model:
        server.on("predict", held.fault)
        first = asyncio.create_task(model.predict(X))
        await reached(lambda: server.of("predict"))
        watch = Stopwatch()
        with pytest.raises(aiaas.DeadlineExceededError, match="waiting for"):
            await model.predict(X, timeout=0.3)
        assert watch.took() < 0.3 + SLACK
        held.let_go()
        await first
        assert (await model.predict(X)).attempts == 1
    assert len(server.of("predict")) == 2


# ---------------------------------------------------------------- cut
@pytest.mark.parametrize("fault", [reset("request"), cut("request")], ids=lambda fault: fault.name)
def test_n07_a_kept_connection_that_ends_before_a_word_is_replaced_at_once_and_uncounted(case: Any, fault: Any) -> None:
    case.open(retry=None)
    case.server.on("predict", fault)
    watch = Stopwatch()
    assert case.passes(attempts=1) < SLACK
    first, second = case.server.of("predict")
    assert first.connection != second.connection
    assert len(case.server.duplicates) == 1
    assert watch.took(case.server.gaps[0]) < 0.1


@pytest.mark.parametrize(
    "fault", [reset("accept"), reset("request"), cut("accept"), cut("request")], ids=lambda fault: fault.name
)
def test_n08_a_new_connection_that_ends_before_a_word_is_a_lost_one_and_asked_again(case: Any, fault: Any) -> None:
    case.fresh(retry=RETRIED)
    case.server.script([fault])
    case.passes(attempts=2)
    model = case.fresh(retry=None)
    case.server.script([fault])
    with pytest.raises((aiaas.ConnectionLostError, aiaas.ConnectError)) as caught:
        model.predict(X)
    # a reset that comes before anything was sent is no lost call
    assert fault.on == "connection" or type(caught.value) is aiaas.ConnectionLostError
    assert (caught.value.attempts, caught.value.retryable) == (1, True)
    assert len(case.server.of("predict")) == (0 if fault.on == "connection" else 1)


STAGES = ["head", "body", "chunk header", "chunk", "last chunk"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("end", [cut, reset])
def test_n09_a_cut_answer_is_a_lost_connection_and_never_decoded(case: Any, end: Any, stage: Any) -> None:
    case.open(retry=RETRIED)
    case.server.on("predict", end(stage))
    case.passes(attempts=2)
    assert len(case.server.of("predict")) == 2
    case.open(retry=None)
    case.server.on("predict", end(stage))
    assert case.fails(aiaas.ConnectionLostError).retryable


def test_n09_a_whole_answer_in_chunks_passes(case: Any) -> None:
    case.server.on("predict", chunked(1), chunked(7))
    case.passes()
    case.passes()


# ---------------------------------------------------------------- silent and slow
@pytest.mark.parametrize("stage", ["accept", "request", *STAGES])
def test_n10_a_peer_that_falls_silent_is_left_on_time_and_for_good(case: Any, hung_up: Any, stage: Any) -> None:
    case.fresh()
    case.server.script([stall(stage)])
    error = case.fails(aiaas.DeadlineExceededError, 0.3 + SLACK, timeout=0.3)
    assert error.elapsed >= 0.3
    [left] = case.server.connections
    hung_up(left)
    case.passes()
    assert [seen.connection for seen in case.server.of("predict")][-1] != left.number


@pytest.mark.parametrize("part", ["head", "body", "chunk header"])
def test_n11_a_peer_that_drips_is_left_on_time(case: Any, hung_up: Any, part: Any) -> None:
    case.fresh()
    case.server.on("predict", drip(part))
    case.fails(aiaas.DeadlineExceededError, 0.3 + SLACK, timeout=0.3)
    assert len(case.server.requests) == 1
    hung_up(case.server.connections[0])
    case.passes()


def test_n11_a_dripping_handshake_is_left_on_time(case: Any, secure: Any, hung_up: Any) -> None:
    server = secure()
    server.script([drip("handshake")])
    model = case.load(server.address)
    watch = Stopwatch()
    with pytest.raises(aiaas.DeadlineExceededError):
        model.predict(np.ones((1, 3), np.float32), timeout=0.4)
    assert watch.took() < 0.4 + SLACK
    hung_up(server.connections[0])
    assert model.predict(X).attempts == 1


# ---------------------------------------------------------------- elsewhere
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308, 300, 304])
@pytest.mark.parametrize("verb", ["metadata", "predict"])
def test_n12_a_redirect_is_not_followed_and_its_origin_told(case: Any, code: int, verb: str) -> None:
    with FaultServer() as other:
        target = f"{other.address}/infer?token=SECRET"
        model = case.load(api_key="KEY")
        case.server.on(verb, status(code, b"", headers={"location": target}))
        with pytest.raises(aiaas.StatusError) as caught:
            model.predict(X)
        assert type(caught.value) is aiaas.StatusError
        assert caught.value.status == code
        text = str(caught.value)
        assert f"http://127.0.0.1:{other.port}" in text
        assert "SECRET" not in text
        assert "/infer" not in text
        assert not other.connections
        assert len(case.server.of(verb)) == 1


@pytest.mark.parametrize(
    "target",
    [
        "",
        "/elsewhere?k=SECRET",
        "http://\u202e\x85x/",
        "http://[",
        "//user:SECRET@host/",
        "http://h:p/",
        "http://" + "x" * 9000,
    ],
    ids=["none", "path", "marks", "bracket", "user", "port", "long"],
)
def test_n12_any_location_makes_a_sound_error(case: Any, target: str) -> None:
    case.open()
    case.server.on("predict", status(302, b"", headers={"location": target.encode().decode("latin-1")}))
    error = case.fails(aiaas.StatusError)
    assert "SECRET" not in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 1500


# ---------------------------------------------------------------- too much
def test_n13_a_length_that_cannot_be_is_refused_before_memory_is_taken(case: Any) -> None:
    case.open()
    case.server.on("predict", claim(70368744177664))
    before = resident()
    assert case.fails(aiaas.ProtocolError).attempts == 1
    assert resident() - before < 16
    assert len(case.server.requests) == 1


def test_n13_a_body_without_end_is_left_at_the_limit(case: Any, monkeypatch: Any, hung_up: Any) -> None:
    monkeypatch.setattr("aiaas_sdk.transport.answer.MAX_BODY", 1 << 22)
    case.fresh()
    case.server.on("predict", endless("body"))
    assert case.fails(aiaas.ProtocolError, 2).attempts == 1
    hung_up(case.server.connections[0])


def test_n13_a_body_without_end_is_left_by_the_deadline(case: Any, hung_up: Any) -> None:
    case.fresh()
    case.server.on("predict", endless("body", size=100))
    case.fails(aiaas.DeadlineExceededError, 0.3 + SLACK, timeout=0.3)
    hung_up(case.server.connections[0])


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_n14_packing_that_nobody_asked_for_is_refused_unpacked(case: Any, coding: str) -> None:
    case.open()
    case.server.on("predict", content(PACKED, {"content-encoding": coding}))
    before = resident()
    assert case.fails(aiaas.ProtocolError).attempts == 1
    assert resident() - before < 16
    [seen] = case.server.requests
    assert seen.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("headers", [[("x", "y" * (1 << 20))], [("x", "y")] * 20_000], ids=["one of 1 MiB", "20,000"])
def test_n15_a_head_too_large_is_refused(case: Any, headers: Any) -> None:
    case.open()
    case.server.on("predict", answer(headers))
    assert case.fails(aiaas.ProtocolError).attempts == 1
    assert len(case.server.requests) == 1


def test_n15_a_head_without_end_is_refused(case: Any, hung_up: Any) -> None:
    case.fresh()
    case.server.on("predict", endless("head"))
    assert case.fails(aiaas.ProtocolError).attempts == 1
    hung_up(case.server.connections[0])


def test_n15_cookies_are_not_kept(case: Any) -> None:
    cookie = answer([("set-cookie", "session=1; Path=/"), ("set-cookie", "other=2")])
    case.server.script([], then=cookie)
    case.passes()
    case.passes()
    assert not any("cookie" in seen.headers for seen in case.server.requests)


def resident() -> float:
    """MiB of this process that are in memory; 0 where the system doesn't tell."""
    if sys.platform != "linux":
        return 0.0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)
