"""What the peer says: rows S01 to S14 of the fault catalogue."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.backends.base import RemoteBackend
from aiaas_sdk.flow import Flow, Request, adrive, drive
from aiaas_sdk.policies import around_request
from aiaas_sdk.records.call import Call
from aiaas_sdk.testing.faults import (
    Fault,
    FaultServer,
    answer,
    claim,
    content,
    cut,
    drip,
    edited,
    page,
    raw,
    reset,
    stall,
    status,
)
from aiaas_sdk.transport import AsyncHttpSender, HttpSender
from tests.stopwatch import Stopwatch

SLACK = 0.25
X = np.ones((1, 3), np.float32)
RETRIED = aiaas.Retry(wait=0.02)
WORDS = "the model takes rows of three numbers"


# ---------------------------------------------------------------- classes
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, aiaas.InvalidRequestError),
        (409, aiaas.InvalidRequestError),
        (413, aiaas.PayloadTooLargeError),
        (415, aiaas.InvalidRequestError),
        (422, aiaas.InvalidRequestError),
        (401, aiaas.AuthenticationError),
        (403, aiaas.PermissionDeniedError),
        (404, aiaas.ModelNotFoundError),
        (500, aiaas.ModelError),
        (501, aiaas.ServerError),
        (599, aiaas.ServerError),
        (418, aiaas.StatusError),
    ],
)
def test_s01_a_refusal_is_asked_once_and_keeps_the_peers_words(case: Any, code: int, kind: Any) -> None:
    case.open()
    case.server.on("predict", status(code, {"error": WORDS}))
    error = case.fails(kind)
    assert (error.status, error.attempts, error.retryable) == (code, 1, False)
    assert WORDS in str(error)
    assert len(case.server.requests) == 1


@pytest.mark.parametrize(("options", "told"), [({"retry": None}, ""), ({}, "attempt 1 of 3")])
def test_an_opening_that_fails_counts_the_tries_of_the_request_that_failed(case: Any, options: Any, told: str) -> None:
    """It asks the server, then for the model: a 404 of the second was its first try."""
    case.server.on("metadata", status(404, {"error": WORDS}))
    with pytest.raises(aiaas.ModelNotFoundError, match=WORDS) as caught:
        case.load(**options).info()
    assert caught.value.attempts == 1
    assert ("attempt" in str(caught.value), told in str(caught.value)) == (bool(told), True)
    assert [seen.attempt for seen in case.server.requests] == [1, 1]


def test_an_answer_that_cant_be_understood_counts_the_tries_of_its_request(case: Any) -> None:
    case.server.on("metadata", content([]))
    with pytest.raises(aiaas.ProtocolError) as caught:
        case.load(retry=None).info()
    assert (caught.value.attempts, "attempt" in str(caught.value)) == (1, False)


@pytest.mark.parametrize("verb", ["metadata", "ready"])
def test_s01_a_500_where_no_verb_was_asked_for_is_the_servers_own(case: Any, verb: str) -> None:
    case.server.on(verb, status(500, {"error": WORDS}))
    with pytest.raises(aiaas.ServerError, match=WORDS):
        case.load().ready()
    assert len(case.server.of(verb)) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (408, aiaas.StatusError),
        (429, aiaas.RateLimitedError),
        (502, aiaas.UnavailableError),
        (503, aiaas.UnavailableError),
        (504, aiaas.UnavailableError),
    ],
)
def test_s02_what_may_pass_is_asked_again_and_the_last_refusal_goes_up(case: Any, code: int, kind: Any) -> None:
    case.open(retry=aiaas.Retry(wait=0.02, max_wait=0.05))
    case.server.on("predict", status(code), status(code))
    case.passes(attempts=3)
    case.server.on("predict", status(code), status(503), status(code, {"error": WORDS}))
    error = case.fails(kind, 1)
    assert (error.status, error.attempts, error.allowed, error.retryable) == (code, 3, 3, True)
    assert WORDS in str(error)
    assert len(case.server.requests) == 6
    assert len({seen.id for seen in case.server.requests}) == 2


# ---------------------------------------------------------------- Retry-After
def dated(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(
    ("fault", "least"),
    [
        (lambda code: status(code, retry_after=0.2), 0.2),
        (lambda code: status(code, headers={"retry-after-ms": "200"}), 0.2),
        (lambda code: status(code, headers={"retry-after-ms": "200"}, retry_after=30), 0.2),
    ],
    ids=["seconds", "ms", "ms wins"],
)
def test_s03_the_pause_that_was_asked_for_is_made(case: Any, code: int, fault: Any, least: float) -> None:
    case.open()
    case.server.on("predict", fault(code))
    watch = Stopwatch()
    case.passes(attempts=2)
    assert least <= watch.took(*case.server.gaps) <= 1.1 * least + SLACK


@pytest.mark.slow
def test_s03_a_date_is_understood(case: Any) -> None:
    case.open()
    case.server.on("predict", status(503, retry_after=dated(2)))
    watch = Stopwatch()
    case.passes(attempts=2)
    assert 0.5 < watch.took(*case.server.gaps) <= 2.2 + SLACK  # a date has no fractions


USELESS = ["0", "-1", "", "soon", "nan", "inf", "1e999", "Fri, 31 Dec 100000 23:59:59 GMT", "past", "1, 2"]


@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms"])
@pytest.mark.parametrize("value", USELESS)
def test_s04_a_pause_that_makes_no_sense_is_as_if_absent(case: Any, name: str, value: str) -> None:
    case.open(retry=aiaas.Retry(wait=0.02))
    said = dated(-3600) if value == "past" else value
    case.server.on("predict", then=status(503, headers={name: said}))
    error = case.fails(aiaas.UnavailableError, 0.06 + SLACK)
    assert (error.attempts, error.retry_after) == (3, None)
    assert len(case.server.requests) == 3


@pytest.mark.parametrize(("code", "kind"), [(429, aiaas.RateLimitedError), (503, aiaas.UnavailableError)])
@pytest.mark.parametrize("pause", [30, 3600, 1e9])
def test_s05_a_pause_past_the_deadline_fails_at_once(case: Any, code: int, kind: Any, pause: float) -> None:
    case.open()
    case.server.on("predict", then=status(code, retry_after=pause))
    error = case.fails(kind)
    assert (error.retry_after, error.attempts, error.retryable) == (pause, 1, True)
    assert len(case.server.requests) == 1


def test_s05_without_a_deadline_a_pause_of_hours_fails_at_once_too(case: Any) -> None:
    case.open(timeout=None)
    case.server.on("predict", then=status(503, retry_after=7200))
    assert case.fails(aiaas.UnavailableError).retry_after == 7200


# ---------------------------------------------------------------- x-should-retry
@pytest.mark.parametrize("code", [408, 429, 502, 503, 504])
def test_s06_a_peer_that_says_no_is_not_asked_again(case: Any, code: int) -> None:
    case.open()
    case.server.on("predict", then=status(code, headers={"x-should-retry": "false"}))
    with pytest.raises(aiaas.StatusError) as caught:
        case.model.predict(X)
    assert caught.value.attempts == 1
    assert len(case.server.requests) == 1


@pytest.mark.parametrize("code", [408, 429, 502, 503, 504])
def test_s06_a_peer_that_says_yes_is_asked_again(case: Any, code: int) -> None:
    case.open(retry=aiaas.Retry(wait=0.02))
    case.server.on("predict", status(code, headers={"x-should-retry": "true"}))
    case.passes(attempts=2)


@pytest.mark.parametrize("code", [400, 404, 500])
def test_s06_a_yes_counts_for_no_other_status(case: Any, code: int) -> None:
    case.open()
    case.server.on("predict", then=status(code, headers={"x-should-retry": "true"}))
    with pytest.raises(aiaas.AiaasError):
        case.model.predict(X)
    assert len(case.server.requests) == 1


# ---------------------------------------------------------------- many clients, long outages
def test_s07_a_total_outage_costs_few_extra_requests_and_says_why(case: Any) -> None:
    case.open(retry=aiaas.Retry(wait=0.001, max_wait=0.001), breaker=None)
    case.server.on("predict", then=status(502))
    errors = [case.fails(aiaas.UnavailableError, 1) for _ in range(400)]
    extra = len(case.server.requests) - 400
    assert 20 <= extra <= 35
    assert errors[0].attempts == 3
    assert errors[-1].attempts == 1
    assert "budget" in str(errors[-1])


def test_s07_when_throttled_a_hundred_and_never_more_than_500_for_400_calls(case: Any) -> None:
    case.open(retry=aiaas.Retry(wait=0.001, max_wait=0.001), breaker=None)
    case.server.on("predict", then=status(503))
    for _ in range(400):
        case.fails(aiaas.UnavailableError, 1)
    assert 60 <= len(case.server.requests) - 400 <= 100


def test_s07_the_budget_is_the_origins_and_not_the_models(load: Any, server: FaultServer) -> None:
    server.on("predict", then=status(502))
    for _ in range(10):  # as many models, one origin
        with load(server.address, retry=aiaas.Retry(wait=0.001), breaker=None, timeout=5) as model:
            for _ in range(5):
                with pytest.raises(aiaas.UnavailableError):
                    model.predict(X)
    assert 20 <= len(server.of("predict")) - 50 <= 37  # the openings, which passed, have paid for one or two


def test_s08_second_tries_are_spread() -> None:
    with FaultServer() as server, aiaas.load(server.address, timeout=5, breaker=None) as model:
        server.on("predict", *[status(503)] * 24)
        threads = [threading.Thread(target=model.predict, args=(X,)) for _ in range(24)]
        model.info()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        tries: dict[str | None, list[float]] = {}
        for seen in server.of("predict"):
            tries.setdefault(seen.id, []).append(seen.time)
    pauses = [times[1] - times[0] for times in tries.values() if len(times) > 1]
    assert len(pauses) > 12  # whose second try came before another's first took a fault of that one
    assert statistics.stdev(pauses) > 0.1 * statistics.mean(pauses)


def test_s09_the_first_call_after_an_outage_passes(case: Any) -> None:
    case.fresh(retry=RETRIED, breaker=None)
    with case.server.down():
        for _ in range(25):
            case.fails(aiaas.ConnectError)
    case.passes()
    case.server.on("predict", *[status(503)] * 200)
    for _ in range(60):
        case.fails(aiaas.UnavailableError, 1)
    case.server.on("predict")
    case.passes()


def test_s09_a_breaker_opens_and_lets_calls_through_again(case: Any) -> None:
    rest = 0.5
    case.open(retry=None, breaker=aiaas.Breaker(rest=rest))
    case.server.on("predict", then=status(503))
    for _ in range(30):
        with pytest.raises((aiaas.UnavailableError, aiaas.CircuitOpenError)):
            case.model.predict(X)
    opened = time.monotonic()
    assert 18 <= len(case.server.requests) < 30  # the two requests of the opening passed
    error = case.fails(aiaas.CircuitOpenError)
    assert (error.attempts, error.retryable) == (0, True)
    assert 0 < error.retry_after <= rest
    case.server.on("predict")
    time.sleep(max(0.0, opened + rest + 0.05 - time.monotonic()))
    case.passes()
    case.passes()


# ---------------------------------------------------------------- what can't be repeated
class Jobs(RemoteBackend):
    """Verbs that change something at the peer."""

    scheme = "jobs"

    def fit(self, call: Call) -> Flow[Any]:
        return self.send(call, Request("POST", f"{self.address}/infer", {}, (b"job",), idempotent=False))

    generate = fit


@pytest.fixture(params=["sync", "async"])
def once(request: Any, server: FaultServer) -> Callable[..., Any]:
    """Starts one job at the server, with the policies that a model has unless it is told."""
    import asyncio

    def start(verb: str, timeout: float = 5.0) -> Any:
        deadline = time.monotonic() + timeout
        call = Call(verb, around_request({}), deadline=deadline, target=server.address)
        flow = Jobs(server.address, {}).start(call)  # type: ignore[arg-type]  # an address needs its text only
        sender = HttpSender() if request.param == "sync" else AsyncHttpSender()
        try:
            if isinstance(sender, HttpSender):
                return drive(flow, sender, deadline)
            return asyncio.run(adrive(flow, sender, deadline))
        finally:
            sender.close()

    return start


@pytest.mark.parametrize("verb", ["generate", "fit"])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (status(500), aiaas.ModelError),
        (status(502), aiaas.UnavailableError),
        (status(504), aiaas.UnavailableError),
        (reset(), aiaas.ConnectionLostError),
        (cut("body"), aiaas.ConnectionLostError),
        (stall(), aiaas.DeadlineExceededError),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_s10_r07_work_that_may_have_been_done_is_not_asked_for_again(
    server: FaultServer, once: Any, verb: str, fault: Fault, kind: Any
) -> None:
    server.on("predict", then=fault)
    with pytest.raises(kind) as caught:
        once(verb, 0.5)
    assert type(caught.value) is kind
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [status(502), reset()], ids=lambda fault: fault.name)
def test_s10_r07_the_error_says_that_the_outcome_is_unknown(server: FaultServer, once: Any, fault: Fault) -> None:
    server.on("predict", then=fault)
    with pytest.raises(aiaas.AiaasError, match="outcome is unknown"):
        once("fit", 0.5)


@pytest.mark.parametrize("fault", [status(429, retry_after=0.05), status(503)], ids=lambda fault: fault.name)
def test_s10_a_refusal_of_such_work_is_asked_again(server: FaultServer, once: Any, fault: Fault) -> None:
    server.on("predict", fault, then=content({"job": 1}))
    once("fit")
    assert len(server.requests) == 2


def test_s10_a_yes_of_the_peer_does_not_make_it_safe(server: FaultServer, once: Any) -> None:
    server.on("predict", then=status(502, headers={"x-should-retry": "true"}))
    with pytest.raises(aiaas.UnavailableError):
        once("fit")
    assert len(server.requests) == 1


# ---------------------------------------------------------------- bodies
def test_s11_a_captive_portal_is_told_by_its_words(case: Any) -> None:
    case.open()
    case.server.on("predict", page())
    error = case.fails(aiaas.ProtocolError)
    assert error.attempts == 1
    assert "Welcome to the network" in str(error)
    assert not set("<>") & set(error.message)
    assert "let answer" not in str(error)


def test_s11_only_its_beginning_is_shown(case: Any) -> None:
    case.open()
    case.server.on("predict", content("<p>" + "word " * 50_000, {"content-type": "text/html"}))
    assert len(case.fails(aiaas.ProtocolError).message) <= 260


@pytest.mark.parametrize("kind", ["text/plain", "text/html; charset=latin-1", "", "application/x-unknown"])
def test_s11_an_answer_is_judged_by_its_body_and_not_by_its_type(case: Any, kind: str) -> None:
    case.server.script([], then=answer({"content-type": kind}))
    case.passes()


def test_s12_a_page_of_an_error_is_cut_and_its_class_is_its_statuss(case: Any) -> None:
    case.open(retry=None)
    case.server.on(
        "predict", status(502, "<html><body>" + "<p>Bad gateway</p>" * 12_000, headers={"content-type": "text/html"})
    )
    error = case.fails(aiaas.UnavailableError)
    assert "Bad gateway" in error.message
    assert len(error.message) <= 1000
    assert not set("<>") & set(error.message)


@pytest.mark.parametrize(
    "words",
    [
        "\x1b[31mred\x1b[0m",
        "one\r\n2026-01-01 ERROR forged",
        "\u202egnp.exe",
        "a\x00b\x07c\x9b",
        "\u2028\u2029\x85",
        "x" * 100_000,
        "\U000e0041\ufeff\u200b",
    ],
    ids=["terminal", "line", "bidi", "controls", "separators", "long", "invisible"],
)
def test_s12_the_peers_words_are_one_printable_line(case: Any, words: str) -> None:
    case.open()
    case.server.on("predict", status(400, {"error": f"before {words} after"}))
    error = case.fails(aiaas.InvalidRequestError)
    assert str(error).isprintable()
    assert len(error.message) <= 1000
    assert "before" in error.message


# ---------------------------------------------------------------- the deadline travels
def test_s13_each_request_carries_what_is_left_and_its_number(case: Any) -> None:
    case.open(timeout=4, retry=RETRIED)
    case.server.on("predict", status(503, retry_after=0.2), status(503, retry_after=0.2))
    watch = Stopwatch()
    case.passes(attempts=3)
    requests = case.server.requests
    assert [seen.attempt for seen in requests] == [1, 2, 3]
    left = [int(seen.headers["aiaas-timeout-ms"]) for seen in requests]
    assert 3500 < left[0] <= 4000
    for index, gap in enumerate(case.server.gaps):
        assert watch.took(abs((left[index] - left[index + 1]) / 1000 - gap)) < 0.1


def test_s13_opening_says_it_too_and_without_a_deadline_nothing_is_said(case: Any) -> None:
    case.load(timeout=3).info()
    assert all(2000 < int(seen.headers["aiaas-timeout-ms"]) <= 3000 for seen in case.server.requests)
    case.open(timeout=None)
    case.passes()
    assert all("aiaas-timeout-ms" not in seen.headers for seen in case.server.requests)
    assert not any((seen.document or {}).get("parameters", {}).get("timeout") for seen in case.server.requests)


@pytest.mark.parametrize("name", ["triton", "aiaas", "kserve", "mlserver"])
def test_s13_the_peer_is_told_in_microseconds_too(case: Any, name: str) -> None:
    server = {"name": name, "version": "1", "extensions": ["binary_tensor_data"]}
    case.server.on("server", content(server))
    case.open(timeout=4)
    case.passes()
    timeout = case.server.requests[0].document.get("parameters", {}).get("timeout")
    assert isinstance(timeout, int)
    assert 3_000_000 < timeout <= 4_000_000


# ---------------------------------------------------------------- opening
PASSING = [status(503), status(429, retry_after=0.05), status(502), reset("request"), cut("body"), cut("last chunk")]
LASTING = [
    (status(400), aiaas.InvalidRequestError),
    (status(401), aiaas.AuthenticationError),
    (status(403), aiaas.PermissionDeniedError),
    (status(302), aiaas.StatusError),
    (page(), aiaas.ProtocolError),
    (raw(b"SSH-2.0-x\r\n"), aiaas.ProtocolError),
    (claim(1 << 50), aiaas.ProtocolError),
    (content(b"x", {"content-encoding": "gzip"}), aiaas.ProtocolError),
    (answer([("x", "y" * 200_000)]), aiaas.ProtocolError),
    (edited(lambda document: document.update(name=7)), aiaas.ProtocolError),
    (status(503, retry_after=60), aiaas.UnavailableError),
]


@pytest.mark.parametrize("verb", ["server", "metadata", "ready"])
@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name)
def test_s14_what_may_pass_while_opening_is_asked_again(case: Any, verb: str, fault: Fault) -> None:
    case.server.on(verb, fault)
    model = case.load(retry=RETRIED)
    assert model.ready()
    assert len(case.server.of(verb)) == 2


@pytest.mark.parametrize("verb", ["server", "metadata"])
@pytest.mark.parametrize(("fault", "kind"), LASTING, ids=lambda value: getattr(value, "name", ""))
def test_s14_what_lasts_while_opening_has_its_class_and_address(case: Any, verb: str, fault: Fault, kind: Any) -> None:
    case.server.on(verb, then=fault)
    watch = Stopwatch()
    with pytest.raises(kind) as caught:
        case.load().predict(X)
    assert watch.took() < SLACK
    assert type(caught.value) is kind
    assert len(case.server.of(verb)) == 1
    assert caught.value.attempts >= 1
    assert case.server.address in str(caught.value)


@pytest.mark.parametrize("verb", ["server", "metadata", "ready"])
@pytest.mark.parametrize("fault", [stall(), drip("body")], ids=lambda fault: fault.name)
def test_s14_opening_ends_with_the_deadline_of_the_call(case: Any, verb: str, fault: Fault) -> None:
    case.server.on(verb, then=fault)
    model = case.load(timeout=0.2)
    watch = Stopwatch()
    with pytest.raises(aiaas.DeadlineExceededError):
        model.ready()
    # `ready` opens the model within one deadline, and asks within a second one
    assert watch.took() < 0.2 + SLACK


@pytest.mark.parametrize("code", [404, 405, 501])
def test_s14_a_server_that_says_nothing_of_itself_is_done_without(case: Any, code: int) -> None:
    case.server.on("server", status(code))
    case.passes()
    assert "inference-header-content-length" not in case.server.of("predict")[0].headers


def test_s14_after_a_failed_opening_the_next_call_opens_again(case: Any) -> None:
    case.server.on("metadata", status(400))
    model = case.load()
    with pytest.raises(aiaas.InvalidRequestError):
        model.predict(X)
    assert model.predict(X).array.tolist() == [[2, 2, 2]]
