"""The breaker: its state by a clock of the test's, and at work with both faces."""

from __future__ import annotations

import logging
import socket
import time
from typing import Any

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.errors import CircuitOpenError, ModelError
from aiaas_sdk.policies.breaker import Circuit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    return Circuit(aiaas.Breaker(), clock)


def fail(circuit: Circuit, times: int) -> None:
    for _ in range(times):
        circuit.failed(circuit.enter("t"), "t")


def test_it_opens_at_half_of_twenty_failed(circuit: Circuit) -> None:
    for _ in range(10):
        circuit.passed(circuit.enter("t"))
    fail(circuit, 9)
    circuit.enter("t")  # 9 of 19
    circuit.failed(False, "t")  # 10 of 20
    with pytest.raises(CircuitOpenError) as caught:
        circuit.enter("t")
    assert caught.value.retry_after == pytest.approx(5.0)


def test_few_failures_never_open_it(circuit: Circuit) -> None:
    fail(circuit, 19)
    assert circuit.enter("t") is False


def test_what_is_older_than_the_window_is_forgotten(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, 19)
    clock.now = 10.1
    fail(circuit, 1)
    assert circuit.enter("t") is False


def test_after_its_rest_one_request_tries(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, 20)
    clock.now = 5.1
    assert circuit.enter("t") is True
    with pytest.raises(CircuitOpenError):
        circuit.enter("t")  # one at a time
    circuit.passed(True)
    assert circuit.enter("t") is False
    fail(circuit, 18)  # and it has forgotten what was before
    assert circuit.enter("t") is False


def test_a_failed_try_opens_it_again(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, 20)
    clock.now = 5.1
    circuit.failed(circuit.enter("t"), "t")
    with pytest.raises(CircuitOpenError) as caught:
        circuit.enter("t")
    assert caught.value.retry_after == pytest.approx(5.0)


def test_a_try_that_is_cancelled_leaves_it_to_the_next(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, 20)
    clock.now = 5.1
    circuit.left(circuit.enter("t"))
    assert circuit.enter("t") is True


def test_an_endpoint_that_keeps_failing_is_left_alone_for_a_while(
    endpoint: Any, load: Any, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.behave = lambda n: (500, {}) if n < 20 else None
    breaker = aiaas.Breaker(rest=0.3)
    with load(endpoint.address, retry=None, breaker=breaker) as model:
        with caplog.at_level(logging.WARNING, "aiaas_sdk"):
            for _ in range(20):
                with pytest.raises(ModelError):
                    model.predict([1.0])
        assert sum("keeps failing" in record.message for record in caplog.records) == 1
        with pytest.raises(CircuitOpenError, match=r"isn't asked for 0\.3 s") as caught:
            model.predict([1.0])
        assert caught.value.retryable
        assert len(endpoint.seen) == 20
        view = model.with_options(timeout=5)  # views, and other models of the address, share it
        with pytest.raises(CircuitOpenError):
            view.predict([1.0])
        time.sleep(0.35)
        assert model.predict([1.0]).array.tolist() == [2.0]
        assert model.predict([2.0]).array.tolist() == [4.0]


def test_refusals_of_the_request_itself_do_not_count(endpoint: Any, load: Any) -> None:
    endpoint.behave = lambda n: (429 if n % 2 else 400, {})
    with load(endpoint.address, retry=None) as model:
        for _ in range(30):
            with pytest.raises(aiaas.AiaasError) as caught:
                model.predict([1.0])
            assert not isinstance(caught.value, CircuitOpenError)


def test_none_switches_it_off(endpoint: Any, load: Any) -> None:
    endpoint.behave = lambda n: (500, {})
    with load(endpoint.address, retry=None, breaker=None) as model:
        for _ in range(30):
            with pytest.raises(ModelError):
                model.predict([1.0])
    assert len(endpoint.seen) == 30


def test_a_route_passes_over_an_open_one(endpoint: Any, load: Any) -> None:
    endpoint.behave = lambda n: (502, {})
    other = type(endpoint)()
    try:
        with load([endpoint.address, other.address], retry=None, breaker=aiaas.Breaker(minimum=1)) as model:
            for _ in range(3):
                assert model.predict([1.0]).array.tolist() == [2.0]
        assert len(endpoint.seen) == 1
    finally:
        other.close()


def test_a_route_passes_over_one_that_another_model_opened(endpoint: Any, load: Any) -> None:
    endpoint.behave = lambda n: (502, {})
    other, strict = type(endpoint)(), aiaas.Breaker(minimum=1)
    try:
        first = load(endpoint.address, retry=None, breaker=strict)
        with pytest.raises(aiaas.UnavailableError):
            first.predict([1.0])
        with load([endpoint.address, other.address], retry=None, breaker=strict) as model:
            assert model.predict([1.0]).array.tolist() == [2.0]
        first.close()
        assert len(endpoint.seen) == 1
    finally:
        other.close()


def test_waiting_for_a_server_does_not_open_it(load: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    model = load(f"http://127.0.0.1:{port}/v2/models/m", breaker=aiaas.Breaker(minimum=1))
    with pytest.raises(aiaas.ModelNotReadyError):
        model.wait_ready(0.5)
    with pytest.raises(aiaas.ConnectError):
        model.predict([1.0])
    model.close()
