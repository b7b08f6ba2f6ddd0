"""Timeouts, deadlines, retries: rows R01 to R12 of the field cases. R08 is in test_cancelling.py, as X07;
R07 in test_statuses.py, as S10; the words of R12 in test_reaching.py, as N06."""

from __future__ import annotations

import itertools
import logging
import random
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.testing.faults import Exchange, Fault, FaultServer, answer, drip, refuse, reset, slow, stall, status
from tests.stopwatch import Stopwatch

SLACK = 0.25
X = np.ones((2, 3), np.float32)


# ---------------------------------------------------------------- R01
@pytest.mark.parametrize("attempts", [1, 10])
def test_r01_the_timeout_is_the_whole_calls_whatever_the_retries(case: Any, attempts: int) -> None:
    case.open(retry=aiaas.Retry(attempts=attempts))
    case.server.on("predict", then=stall())
    error = case.fails(aiaas.DeadlineExceededError, 0.5 + SLACK, timeout=0.5)
    assert error.elapsed >= 0.5
    assert (error.attempts, error.allowed) == (1, attempts)
    assert f"attempt 1 of {attempts}" in str(error)
    assert "of 0.5 s" in str(error)


def test_r01_with_a_limit_for_each_attempt_there_are_several(case: Any) -> None:
    case.open(retry=aiaas.Retry(wait=0.01), attempt_timeout=0.2)
    case.server.on("predict", then=stall())
    error = case.fails(aiaas.DeadlineExceededError, 0.7 + SLACK, timeout=5)
    assert error.attempts == len(case.server.of("predict")) == 3
    assert "attempt 3 of 3" in str(error)
    case.server.on("predict", stall(), stall())
    case.passes(attempts=3)


# ---------------------------------------------------------------- R03
def given_up(ask: Any, least: float) -> None:
    watch = Stopwatch()
    with pytest.raises(aiaas.DeadlineExceededError):
        ask()
    assert least <= watch.took() < least + SLACK


PLACES = ["load", "with_options", "call", "profile", "defaults", "environment", "model"]


@pytest.mark.parametrize("place", PLACES)
def test_r03_a_timeout_counts_wherever_it_is_set(
    case: Any, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.server.script([], then=stall())
    address, given = case.server.address, {}
    monkeypatch.chdir(tmp_path)
    toml = f'[models]\nfar = "{address}"\n'
    if place == "profile":
        toml += f'[profiles.p.models]\nfar = {{ address = "{address}", timeout = 0.2 }}\n'
        monkeypatch.setenv("AIAAS_PROFILE", "p")
    elif place == "defaults":
        toml += "[defaults]\ntimeout = 0.2\n"
    elif place == "environment":
        monkeypatch.setenv("AIAAS_TIMEOUT", "0.2")
    elif place == "model":
        toml = f'[models]\nfar = {{ address = "{address}", timeout = 0.2 }}\n'
    (tmp_path / "aiaas.toml").write_text(toml)
    if place == "load":
        given = {"timeout": 0.2}
    model = case._load("far", **given)
    case._models.append(model)
    if place == "with_options":
        model = model.with_options(timeout=0.2)
        case._models.append(model)
    given_up(lambda: model.predict(X, **({"timeout": 0.2} if place == "call" else {})), 0.2)


@pytest.mark.parametrize("verb", ["predict", "map", "ready", "info"])
def test_r03_it_counts_for_every_verb(case: Any, verb: str) -> None:
    model = case.load(timeout=0.2)
    if verb != "info":
        model.info()
    case.server.script([], then=stall())
    arguments = {"predict": (X,), "map": (X,)}.get(verb, ())
    ask = getattr(model, verb)
    given_up(lambda: list(ask(*arguments)) if verb == "map" else ask(*arguments), 0.2)


def test_r03_the_nearest_one_wins(case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aiaas.toml").write_text(
        f'[models]\nfar = {{ address = "{case.server.address}", timeout = 40 }}\n[defaults]\ntimeout = 60\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIAAS_TIMEOUT", "50")
    with aiaas.load("far") as model:
        assert "timeout=40" in repr(model)
        assert "timeout=30" in repr(aiaas.load("far", timeout=30))
        view = model.with_options(timeout=20)
        assert "timeout=20" in repr(view)
        assert "timeout=40" in repr(model)
        case.server.on("predict", stall())
        given_up(lambda: view.predict(X, timeout=0.2), 0.2)
        view.close()


# ---------------------------------------------------------------- R04
def test_r04_none_means_no_deadline_and_not_given_means_the_models(case: Any) -> None:
    model = case.load(timeout=0.2)
    model.info()
    case.server.on("predict", slow(0.5))
    assert model.predict(X, timeout=None).attempts == 1
    case.server.on("predict", slow(0.5))
    given_up(lambda: model.predict(X), 0.2)
    view = model.with_options(timeout=None)
    case.server.on("predict", slow(0.5))
    assert view.predict(X).attempts == 1
    view.close()


def test_r04_an_empty_key_in_the_settings_is_an_error_and_no_limit_turned_off(
    case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "aiaas.toml").write_text(f'[models]\nfar = {{ address = "{case.server.address}", timeout = "" }}\n')
    with pytest.raises(aiaas.ConfigError, match="timeout"):
        case.load("far")
    (tmp_path / "aiaas.toml").write_text(f'[models]\nfar = {{ address = "{case.server.address}", timeout = 0.3 }}\n')
    monkeypatch.setenv("AIAAS_TIMEOUT", "")  # empty is unset
    model = case._load("far")
    case._models.append(model)
    case.server.script([], then=stall())
    given_up(lambda: model.predict(X), 0.3)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take more connections than were asked for")
def test_r04_connecting_stays_bounded_without_a_deadline(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiaas_sdk.transport.connecting.CONNECT_LIMIT", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        time.sleep(0.1)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/v2/models/double"
        watch = Stopwatch()
        with pytest.raises(aiaas.ConnectError):
            case.load(address, timeout=None, retry=None).predict(X)
        assert watch.took() < 0.3 + SLACK
        for one in crowd:
            one.close()


# ---------------------------------------------------------------- R06
def loading(seconds: float, body: Any = None) -> Fault:
    """503 until so long after the first request, then right answers."""
    ends: list[float] = []
    right, busy = answer(), status(503, body or {"error": "the model is loading"})

    def act(exchange: Exchange) -> None:
        ends.append(time.monotonic() + seconds)
        (busy if time.monotonic() < ends[0] else right).act(exchange)

    return Fault("loading", act)


@pytest.mark.slow
def test_r06_a_model_that_loads_is_waited_for_with_few_requests_and_one_line(
    case: Any, caplog: pytest.LogCaptureFixture
) -> None:
    case.server.on("metadata", then=loading(1))
    model = case.load(timeout=10)
    with caplog.at_level(logging.INFO, "aiaas_sdk"):
        assert model.predict(X).attempts == 1
    times = [seen.time for seen in case.server.of("metadata")]
    pauses = [gap for gap in (later - earlier for earlier, later in itertools.pairwise(times)) if gap > 0.3]
    assert len(times) <= 4
    assert pauses == sorted(pauses)
    lines = [record for record in caplog.records if record.levelno == logging.INFO and "ready" in record.getMessage()]
    assert len(lines) == 1
    assert case.server.address in lines[0].getMessage()


@pytest.mark.slow
def test_r06_waiting_until_it_is_ready_asks_seldom_too(case: Any) -> None:
    case.server.on("ready", then=loading(1.5))
    case.load(timeout=10).wait_ready(10)
    assert len(case.server.of("ready")) <= 6


def test_r06_and_when_the_time_is_over_it_says_that_it_was_loading(case: Any) -> None:
    case.server.on("metadata", then=loading(60))
    watch = Stopwatch()
    with pytest.raises(aiaas.UnavailableError, match="loading"):
        case.load(timeout=1).predict(X)
    assert watch.took() < 1 + SLACK


# ---------------------------------------------------------------- R09
@pytest.mark.slow
def test_r09_connections_that_the_peer_closed_cost_no_call(cases: Any) -> None:
    case = cases(idle=0.02)
    case.open(retry=None)
    for number in range(50):
        case.passes()
        # a little less, about as long, a little longer than the peer waits
        time.sleep(0.02 + random.Random(number).uniform(-0.004, 0.01))
    assert len(case.server.of("predict")) == 50


# ---------------------------------------------------------------- R10
@pytest.mark.slow
def test_r10_behind_a_gateway_the_model_works_once_for_a_caller_that_leaves(load: Any, server: FaultServer) -> None:
    server.on("predict", then=slow(1.5))
    with serve_in_thread([f"far={server.address}"]) as url, load(f"{url}/v2/models/far", timeout=5) as model:
        model.info()
        watch = Stopwatch()
        # the gateway's own 504 may come a moment before
        with pytest.raises((aiaas.DeadlineExceededError, aiaas.UnavailableError)):
            model.predict(X, timeout=0.5)
        assert watch.took() < 0.5 + SLACK
        time.sleep(1.2)  # a gateway without a deadline would ask again by now
        [seen] = server.of("predict")
        assert 0 < int(seen.headers["aiaas-timeout-ms"]) <= 500


@pytest.mark.slow
def test_r10_a_gateway_leaves_retrying_to_its_client(server: FaultServer) -> None:
    server.on("predict", then=status(503))
    with (
        serve_in_thread([f"far={server.address}"]) as url,
        aiaas.load(f"{url}/v2/models/far", timeout=5, retry=aiaas.Retry(wait=0.02)) as model,
    ):
        with pytest.raises(aiaas.UnavailableError) as caught:
            model.predict(X)
        assert caught.value.attempts == 3
        assert len(server.of("predict")) == 3


# ---------------------------------------------------------------- R11
@pytest.mark.parametrize("attempts", [1, 2, 3, 6])
def test_r11_attempts_is_how_often_the_peer_is_asked(case: Any, attempts: int) -> None:
    case.open(retry=aiaas.Retry(attempts=attempts, wait=0.005, max_wait=0.005))
    case.server.on("predict", *[status(503)] * (attempts - 1))
    case.passes(attempts=attempts)
    case.server.on("predict", then=status(503))
    assert case.fails(aiaas.UnavailableError, 1).attempts == attempts
    assert len(case.server.requests) == 2 * attempts


def test_r11_refused_twice_then_taken(case: Any) -> None:
    case.fresh(retry=aiaas.Retry(attempts=8, wait=0.1, max_wait=0.1))
    case.server.script([refuse(0.1), status(503), reset()])
    prediction = case.model.predict(X)
    assert 4 <= prediction.attempts <= 8
    assert len(case.server.of("predict")) == 3


def test_r11_wait_and_max_wait_bound_the_pauses(case: Any) -> None:
    retry = aiaas.Retry(attempts=6, wait=0.05, max_wait=0.1)
    case.open(retry=retry)
    case.server.on("predict", then=status(502))
    watch = Stopwatch()
    case.fails(aiaas.UnavailableError, 2)
    assert all(watch.took(gap) < 0.1 + SLACK for gap in case.server.gaps)
    case.open(retry=aiaas.Retry(attempts=20, wait=0, max_wait=0), breaker=None)
    case.server.on("predict", then=status(502))
    watch = Stopwatch()
    case.fails(aiaas.UnavailableError, 1)
    assert watch.took(sum(case.server.gaps)) < 0.5


def test_r11_statuses_are_those_that_are_asked_again(case: Any) -> None:
    case.open(retry=aiaas.Retry(wait=0.01, statuses=(502, 503)))
    case.server.on("predict", status(503), status(502))
    case.passes(attempts=3)
    case.server.on("predict", status(504))
    assert case.fails(aiaas.UnavailableError).attempts == 1


def test_r11_the_budget_bounds_what_is_asked_again(case: Any) -> None:
    case.open(retry=aiaas.Retry(wait=0.001, max_wait=0.001, budget=1 / 250), breaker=None)
    case.server.on("predict", then=status(502))
    for _ in range(5):
        case.fails(aiaas.UnavailableError, 1)
    assert len(case.server.requests) == 5 + 2
    case.open(retry=aiaas.Retry(wait=0.001, max_wait=0.001, budget=None), breaker=None)
    for _ in range(5):
        case.fails(aiaas.UnavailableError, 1)
    assert len(case.server.requests) == 15


def test_r11_without_retries_one_request_is_sent(case: Any) -> None:
    case.open(retry=None)
    case.server.on("predict", then=status(503))
    assert case.fails(aiaas.UnavailableError).attempts == 1
    assert len(case.server.requests) == 1


# ---------------------------------------------------------------- R12
@pytest.mark.slow
@pytest.mark.parametrize("limits", [None, {"limits": aiaas.Limits(concurrency=16, connections=16)}])
def test_r12_after_hours_of_faults_healthy_calls_pass(server: FaultServer, limits: Any) -> None:
    order = random.Random(12)
    chances = [stall(), status(500), reset("body"), drip("body", size=8, every=0.01)]
    faults = [order.choice(chances) if order.random() < 0.2 else answer() for _ in range(200)]
    with aiaas.load(server.address, breaker=None, timeout=5, **(limits or {})) as model:
        model.info()
        server.on("predict", *faults)

        def ask(number: int, timeout: float = 0.5) -> str:
            try:
                found = model.predict(X + number, timeout=timeout).array
                return str(bool((found == 2 * (X + number)).all()))
            except aiaas.AiaasError as error:
                return type(error).__name__

        with ThreadPoolExecutor(32) as pool:
            outcomes = list(pool.map(ask, range(200)))
        assert "False" not in outcomes
        assert set(outcomes) <= {"True", "ModelError", "DeadlineExceededError"}
        server.on("predict")
        watch = Stopwatch()
        with ThreadPoolExecutor(32) as pool:
            assert set(pool.map(ask, range(50), [20.0] * 50)) == {"True"}
        assert watch.took() < 1
