"""Who may ask a server, for what, and how much: keys, scopes and limits (V14, V15, V16)."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.errors import AuthenticationError, ConfigError, ModelNotFoundError, RateLimitedError
from aiaas_sdk.server import bodies, serve, serve_in_thread
from aiaas_sdk.server.allowances import Allowance, Limits, counted, duration, spent
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.keys import KeyFile, keys_in, made, write_keys
from aiaas_sdk.server.permissions import Caller
from aiaas_sdk.testing.scripted import Script
from tests.server.conftest import Answer, Client
from tests.stopwatch import Stopwatch

INFER = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
ONE, TWO = "one=echo:?x=FP32[-1,3]", "two=echo:?x=FP32[-1,3]"
CHAT = {"model": "talk", "messages": [{"role": "user", "content": "one two three"}]}
OPEN = ("/livez", "/readyz", "/healthz", "/health", "/ping", "/v2/health/live", "/v2/health/ready", "/")
GUARDED = (
    ("GET", "/v2"),
    ("GET", "/v2/models"),
    ("GET", "/v2/models/one"),
    ("GET", "/v2/models/one/ready"),
    ("POST", "/v2/models/one/infer"),
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/one/unload"),
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/models/one:predict"),
    ("POST", "/invocations"),
    ("GET", "/metrics"),
    ("GET", "/overview"),
    ("GET", "/no/such/path"),
    ("DELETE", "/"),
    ("POST", "/livez"),
)


class Keys:
    """A file of keys, and their texts by name."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "keys.toml"
        self.texts: dict[str, str] = {}
        self._kept: list[Any] = []

    def add(self, name: str, **facts: Any) -> str:
        text, key = made(name, **facts)
        self.texts[name] = text
        self._kept.append(key)
        write_keys(self.path, self._kept)
        return text

    def remove(self, name: str) -> None:
        self._kept = [key for key in self._kept if key.name != name]
        write_keys(self.path, self._kept)

    def bearer(self, name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.texts[name]}"}


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


def limited(**limits: Any) -> Limits:
    return Limits(**limits)


# ---------------------------------------------------------------- keys
def test_a_key_opens_the_door_and_nothing_else_does(serving: Callable[..., Client], keys: Keys) -> None:
    """V14."""
    key = keys.add("alice")
    ask = serving(ONE, api_keys=keys.path)
    for headers in ({"authorization": f"Bearer {key}"}, {"authorization": f"bearer  {key} "}, {"x-api-key": key}):
        assert ask("POST", "/v2/models/one/infer", INFER, headers).status == 200
    told = set()
    for headers in (
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {key[:-1]}"},
        {"authorization": f"Bearer {key}x"},
        {"authorization": f"Bearer {'k' * 7000}"},
        {"authorization": "Basic " + base64.b64encode(f"alice:{key}".encode()).decode()},
        {"authorization": f"Digest {key}"},
        {"authorization": key},
        {"authorization": "Bearer \xe9\xff"},
        {"x-api-key": "wrong"},
        {"x-api-key": key, "authorization": "Basic eDp5"},
    ):
        answer = ask("POST", "/v2/models/one/infer", INFER, headers)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="aiaas"'
        told.add(answer.error)
    assert told == {"a valid API key is needed; send it as the header Authorization: Bearer KEY"}


def test_without_a_key_nothing_is_told(keys: Keys, serving: Callable[..., Client]) -> None:
    keys.add("alice")
    ask = serving(ONE, api_keys=keys.path, management=True)
    answers = [ask(method, path, b"{}" if method == "POST" else None) for method, path in GUARDED]
    assert [answer.status for answer in answers] == [401] * len(GUARDED)
    assert len({answer.body for answer in answers}) == 3  # OpenAI's form, MLflow's, and the other


def test_probes_and_the_page_need_no_key(serving: Callable[..., Client], keys: Keys) -> None:
    keys.add("alice")
    ask = serving(ONE, api_keys=keys.path)
    for path in OPEN:
        answer = ask("GET", path)
        assert (path, answer.status) == (path, 200)
        assert b"one" not in answer.body
    page = ask("GET", "/", headers={"accept": "text/html"})
    assert page.status == 200
    assert b"echo" not in page.body


def test_a_probe_without_a_key_names_no_model(serving: Callable[..., Client], keys: Keys) -> None:
    keys.add("alice")
    ask = serving("hidden=http://127.0.0.1:9/v2/models/x", api_keys=keys.path)
    assert ask("GET", "/readyz").error == "not ready yet"
    assert "hidden" in ask("GET", "/readyz", headers=keys.bearer("alice")).error


def test_the_refusal_has_the_form_that_openai_clients_read(serving: Callable[..., Client], keys: Keys) -> None:
    keys.add("alice")
    answer = serving(ONE, api_keys=keys.path)("POST", "/v1/chat/completions", CHAT)
    assert answer.status == 401
    error = answer.document["error"]
    assert (error["type"], error["code"], error["param"]) == ("authentication_error", "invalid_api_key", None)


def test_a_body_isnt_read_for_a_stranger(
    serving: Callable[..., Client], keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V14: the answer comes with the head; the gigabyte needn't."""
    monkeypatch.setattr(bodies, "_DRAINED", 0.2)
    keys.add("alice")
    ask = serving(ONE, api_keys=keys.path)
    head = b"POST /v2/models/one/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n"
    watch = Stopwatch()
    assert ask.send(head, 5).startswith(b"HTTP/1.1 401 ")
    assert watch.took() < 2
    small = ask("POST", "/v2/models/one/infer", INFER)  # a small one doesn't cost the connection
    assert small.status == 401
    assert small.headers.get("connection") != "close"


def test_keys_are_kept_hashed_and_told_to_nobody(
    serving: Callable[..., Client], keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = keys.add("alice", metrics=True)
    with pytest.raises(ConfigError) as failed:
        keys_in(Path(__file__))
    ask = serving(ONE, api_keys=keys.path, access_log=True)
    answers = [
        ask("POST", "/v2/models/one/infer", INFER, keys.bearer("alice")),
        ask("POST", "/v2/models/one/infer", b"{", keys.bearer("alice")),
        ask("GET", "/metrics", headers=keys.bearer("alice")),
        ask("GET", "/v2", headers={"authorization": f"Basic {key}"}),
    ]
    digest = keys_in(keys.path)[0].digest
    seen = [caplog.text, repr(keys_in(keys.path)), str(failed.value), repr(KeyFile(keys.path))]
    seen += [answer.body.decode() + repr(answer.headers) for answer in answers]
    assert key not in keys.path.read_text()
    assert digest.hex() in keys.path.read_text()
    for text in seen:
        assert key not in text
        assert key[6:] not in text
        assert digest.hex() not in text
        assert repr(digest)[2:-1] not in text
    assert '"caller":"alice"' in caplog.text


@pytest.mark.slow
def test_keys_take_turns_without_a_restart(serving: Callable[..., Client], keys: Keys) -> None:
    """Rotation: the new one is let in, and then the old one isn't."""
    keys.add("old")
    ask = serving(ONE, api_keys=keys.path)
    status = lambda name: ask("GET", "/v2", headers=keys.bearer(name)).status  # noqa: E731
    assert status("old") == 200
    keys.add("new")
    assert until(lambda: status("new") == 200)
    assert status("old") == 200
    keys.remove("old")
    assert until(lambda: status("old") == 401)
    assert status("new") == 200
    keys.path.write_text("[keys")  # somebody's slip locks nobody out, and lets nobody in
    time.sleep(1.1)
    assert (status("new"), status("old")) == (200, 401)
    keys.remove("new")
    assert until(lambda: status("new") == 401)


def until(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.1)
    return False


def test_a_key_ends_when_it_was_to_end(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    from datetime import UTC, datetime, timedelta

    expires = datetime.now(UTC) + timedelta(seconds=1)
    keys.add("soon", expires=expires)
    held = KeyFile(keys.path)
    assert held.caller(keys.texts["soon"]) is not None
    time.sleep(max(0.0, (expires - datetime.now(UTC)).total_seconds()) + 0.05)
    assert held.caller(keys.texts["soon"]) is None
    assert held.caller(keys.texts["soon"]) is None
    assert caplog.text.count("the API key soon was used after it had expired") == 1


def test_who_has_no_key_waits_as_long_as_who_has_one(keys: Keys) -> None:
    """V14: the time doesn't tell how near a guess was, or whether there was one."""
    for number in range(50):
        keys.add(f"key{number}")
    held, good = KeyFile(keys.path), keys.texts["key7"]
    tried = {"good": good, "near": good[:-1] + "!", "far": "!" * len(good), "none": ""}
    times: dict[str, float] = dict.fromkeys(tried, 1.0)
    for _ in range(7):
        for name, text in tried.items():
            begun = time.thread_time()
            for _ in range(500):
                held.caller(text)
            times[name] = min(times[name], (time.thread_time() - begun) / 500)
    assert max(times.values()) - min(times.values()) < 10e-6  # no more than the machine's own noise: about 1 us


# ---------------------------------------------------------------- the file
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no key"),
        ("[keys", "no TOML"),
        ("[other]", "other things"),
        ("[keys.a]", "sha256"),
        ('[keys.a]\nsha256 = "secret-in-clear"', "sha256"),
        (f'[keys.a]\nsha256 = "{"0" * 64}"\nmodel = ["x"]', "'model' is unknown"),
        (f'[keys.a]\nsha256 = "{"0" * 64}"\nmodels = "x"', "no list"),
        (f'[keys.a]\nsha256 = "{"0" * 64}"\nconcurrency = 0', "concurrency is 0"),
        (f'[keys.a]\nsha256 = "{"0" * 64}"\nqueue_share = 2', "queue_share is 2"),
        (f'[keys.a]\nsha256 = "{"0" * 64}"\nmanagement = 1', "management"),
        (f'[keys.a]\nsha256 = "{"0" * 64}"\ntraining = "yes"', "training is neither"),
        (f'[keys.a]\nsha256 = "{"0" * 64}"\nexpires = 2027-01-01T00:00:00', "expires"),
        (f'[keys."a b"]\nsha256 = "{"0" * 64}"', "can't be the name"),
        (f'[keys.a]\nsha256 = "{"0" * 64}"\n[keys.b]\nsha256 = "{"0" * 64}"', "the same key"),
    ],
)
def test_a_file_that_means_nothing_is_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told) as failed:
        KeyFile(path)
    assert str(path) in str(failed.value)
    assert "secret-in-clear" not in str(failed.value)


def test_a_missing_file_is_told_before_anything_is_served(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        serve([ONE], port=0, api_keys=tmp_path / "none.toml")


def test_a_file_that_is_opened_to_the_server_later_is_read_then(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Written first and given away by chmod or chown: neither its time nor its size tells."""
    monkeypatch.setattr("aiaas_sdk.server.keys._LOOK", 0)
    keys.add("alice")
    held = KeyFile(keys.path)
    with caplog.at_level(logging.INFO, "aiaas_sdk.server"):
        held.caller("none")
        assert caplog.text == ""
        keys.path.chmod(0o640)
        held.caller("none")
    assert "read again" in caplog.text


# ---------------------------------------------------------------- what is whose
def test_a_key_sees_its_models_alone(serving: Callable[..., Client], keys: Keys) -> None:
    """V15: what isn't his isn't there."""
    keys.add("alice", models=["one"])
    keys.add("bob", models=["t*"])
    keys.add("carol", models=[])
    keys.add("root")
    ask = serving(ONE, TWO, "three=echo:", api_keys=keys.path)

    def listed(name: str) -> list[list[str]]:
        headers = keys.bearer(name)
        return [
            ask("GET", "/v2/models", headers=headers).document["models"],
            [row["id"] for row in ask("GET", "/v1/models", headers=headers).document["data"]],
            ask("GET", "/v1/models", headers=headers).document["models"],
            [row["name"] for row in ask("POST", "/v2/repository/index", b"", headers).document],
            [row["name"] for row in ask("GET", "/overview", headers=headers).document["models"]],
            [row["name"] for row in ask("GET", "/v2/models/stats", headers=headers).document["model_stats"]],
        ]

    seen = {"alice": ["one"], "bob": ["two", "three"], "carol": [], "root": ["one", "two", "three"]}
    for name, models in seen.items():
        assert listed(name) == [models] * 6
    for method, path in (
        ("GET", "/v2/models/two"),
        ("GET", "/v2/models/two/ready"),
        ("GET", "/v2/models/two/stats"),
        ("POST", "/v2/models/two/infer"),
        ("POST", "/v1/models/two:predict"),
        ("GET", "/v1/models/two"),
    ):
        theirs = ask(method, path, INFER if method == "POST" else None, keys.bearer("alice"))
        absent = ask(method, path.replace("two", "no"), INFER if method == "POST" else None, keys.bearer("alice"))
        assert (theirs.status, absent.status) == (404, 404)
        assert theirs.body.replace(b"two", b"no") == absent.body
    assert ask("POST", "/v2/models/two/infer", INFER, keys.bearer("bob")).status == 200


def test_invocations_mean_the_one_model_that_the_key_is_for(serving: Callable[..., Client], keys: Keys) -> None:
    keys.add("alice", models=["one"])
    ask = serving(ONE, TWO, api_keys=keys.path)
    answer = ask("POST", "/invocations", INFER, {**keys.bearer("alice"), "content-type": "application/json"})
    assert answer.status == 200, answer.body


def test_loading_and_metrics_are_for_keys_that_say_so(serving: Callable[..., Client], keys: Keys) -> None:
    """V16."""
    keys.add("user")
    keys.add("operator", management=True)
    keys.add("prometheus", models=[], metrics=True)
    ask = serving(ONE, api_keys=keys.path, management=True)
    unload = "/v2/repository/models/one/unload"
    assert ask("POST", unload, b"", keys.bearer("user")).status == 403
    assert ask("GET", "/metrics", headers=keys.bearer("user")).status == 403
    assert ask("GET", "/metrics", headers=keys.bearer("operator")).status == 403
    assert ask("GET", "/metrics", headers=keys.bearer("prometheus")).status == 200
    assert ask("POST", unload, b"", keys.bearer("operator")).status == 200


def test_without_keys_all_is_as_open_as_the_options_say(serving: Callable[..., Client]) -> None:
    ask = serving(ONE)
    assert ask("GET", "/metrics").status == 200
    assert ask("POST", "/v2/models/one/infer", INFER).status == 200
    assert ask("POST", "/v2/repository/models/one/unload", b"").status == 403
    assert "x-ratelimit-limit-requests" not in ask("POST", "/v2/models/one/infer", INFER).headers


# ---------------------------------------------------------------- limits
def test_requests_a_minute(serving: Callable[..., Client], keys: Keys) -> None:
    keys.add("alice", limits=limited(requests_per_minute=3))
    keys.add("bob")
    ask = serving(ONE, api_keys=keys.path)
    left = []
    for _ in range(3):
        answer = ask("POST", "/v2/models/one/infer", INFER, keys.bearer("alice"))
        assert answer.status == 200
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        left.append(answer.headers["x-ratelimit-remaining-requests"])
    assert left == ["2", "1", "0"]
    refused = ask("POST", "/v1/chat/completions", CHAT, keys.bearer("alice"))
    assert refused.status == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert refused.document["error"]["code"] == "rate_limit_exceeded"
    assert refused.document["error"]["type"] == "rate_limit_error"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert ask("POST", "/v2/models/one/infer", INFER, keys.bearer("alice")).error.endswith("3 requests a minute")
    assert ask("GET", "/v2/models/one", headers=keys.bearer("alice")).status == 200  # looking is free
    assert ask("POST", "/v2/models/one/infer", INFER, keys.bearer("bob")).status == 200


def test_tokens_a_minute_are_counted_from_what_was_used(serving: Callable[..., Client], keys: Keys) -> None:
    keys.add("alice", limits=limited(tokens_per_minute=1000))
    script = Script()
    ask = serving(f"talk={script.address}", "echo:", api_keys=keys.path)

    def chat(**more: Any) -> Answer:
        return ask("POST", "/v1/chat/completions", {**CHAT, **more}, keys.bearer("alice"))

    def left() -> int:
        answer = ask("POST", "/v2/models/echo/infer", INFER, keys.bearer("alice"))
        assert answer.status == 200, answer.body
        return int(answer.headers["x-ratelimit-remaining-tokens"])

    assert left() == 1000  # tensors are no tokens
    script.say("short", input_tokens=100, output_tokens=200)
    assert chat().status == 200
    assert 700 <= left() <= 705  # some come back meanwhile
    script.stream(["a", "b"], input_tokens=10, output_tokens=90)
    assert chat(stream=True).status == 200
    assert 600 <= left() <= 610
    script.say("unknown")  # what nobody counted is what was estimated
    assert chat().status == 200
    assert 560 <= left() < 600
    script.say("long", input_tokens=100, output_tokens=900)
    assert chat().status == 200
    refused = chat()
    assert refused.status == 429
    assert refused.document["error"]["message"] == "your limit is reached: 1000 tokens a minute"
    assert 20 <= int(refused.headers["retry-after"]) <= 30


def test_tokens_of_a_stream_that_nobody_hears_to_its_end_count() -> None:
    from aiaas_sdk.server.allowances import piece

    allowance = Allowance(limited(tokens_per_minute=1000))
    with counted(allowance, 100):
        for _ in range(50):
            piece()
    assert 850 <= int(dict(allowance.header_lines())[b"x-ratelimit-remaining-tokens"]) <= 851


def test_a_bucket_owes_what_wasnt_foreseen() -> None:
    allowance = Allowance(limited(tokens_per_minute=60))
    with counted(allowance, 10):
        spent(50)
        spent(40)  # of another answer in the same request
    lines = dict(allowance.header_lines())
    assert lines[b"x-ratelimit-remaining-tokens"] == b"0"
    assert lines[b"x-ratelimit-reset-tokens"] == b"1m30s"
    with pytest.raises(RefusedError) as refused:
        allowance.enter(0)
    assert refused.value.status == 429
    assert 30 < (refused.value.retry_after or 0) <= 31
    with pytest.raises(RefusedError):
        allowance.enter(10_000)  # more than a minute has: as soon as all is there, not never
    assert allowance.idle is False


def test_what_was_used_comes_back_bit_by_bit() -> None:
    allowance = Allowance(limited(requests_per_minute=600))
    for _ in range(600):
        with counted(allowance, 0):
            pass
    with pytest.raises(RefusedError):
        allowance.enter(0)
    time.sleep(0.15)
    with counted(allowance, 0):
        pass


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.02, "20ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s"), (12.5, "13s"), (0.9999, "1000ms")],
)
def test_times_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_requests_at_once(serving: Callable[..., Client], keys: Keys, slow: str) -> None:
    keys.add("alice", limits=limited(concurrency=2))
    ask = serving(slow, api_keys=keys.path)
    statuses: list[int] = []

    def one() -> None:
        client = Client(ask.url)
        statuses.append(client("POST", "/v2/models/slow/infer", waiting(1.5), keys.bearer("alice")).status)
        client.connection.close()

    together(one, 4)
    assert sorted(statuses) == [200, 200, 429, 429]
    assert ask("POST", "/v2/models/slow/infer", waiting(0), keys.bearer("alice")).status == 200


@pytest.mark.slow
def test_one_who_floods_leaves_room_for_the_others(serving: Callable[..., Client], keys: Keys, slow: str) -> None:
    """V15: half of a queue stays free, and the next pass is the other's."""
    keys.add("flood")
    keys.add("other")
    ask = serving(slow, api_keys=keys.path, queue=40, max_batch_rows=1)
    stop = threading.Event()
    statuses: list[int] = []

    def flooding() -> None:
        client = Client(ask.url)
        while not stop.is_set():
            statuses.append(client("POST", "/v2/models/slow/infer", waiting(0.05), keys.bearer("flood")).status)
        client.connection.close()

    threads = [threading.Thread(target=flooding) for _ in range(30)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.5)
        waits = []
        for _ in range(5):
            watch = Stopwatch()
            assert ask("POST", "/v2/models/slow/infer", waiting(0.05), keys.bearer("other")).status == 200
            waits.append(watch.took().ours)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert 429 in statuses
    assert 200 in statuses
    # in the order of arrival he would wait for 20 passes of 50 ms
    assert sorted(waits)[2] < 0.5


def waiting(seconds: float) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1000 + seconds]}]}


def together(work: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a model that takes as many seconds as it is given."""
    import torch

    class Slow(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) == 1 and float(x[0, 0]) > 1000:  # small ones come while it is saved
                time.sleep(float(x[0, 0]) - 1000)
            return x * 1

    aiaas.architecture("slow-for-access")(Slow)
    folder = tmp_path_factory.mktemp("access") / "slow"
    aiaas.save(Slow(), folder, example=np.zeros((1, 1), np.float32), architecture="slow-for-access")
    return f"slow=torch:{folder}"


# ---------------------------------------------------------------- clients
def test_our_own_client(load: Any, keys: Keys) -> None:
    key = keys.add("alice", models=["one"], limits=limited(requests_per_minute=2))
    x = np.ones((1, 3), np.float32)
    with serve_in_thread([ONE, TWO], api_keys=keys.path) as url:
        with load(f"{url}/v2/models/one", api_key=key, retry=None) as model:
            assert model.predict(x)["x"].shape == (1, 3)
            assert model.predict(x)["x"].shape == (1, 3)
            with pytest.raises(RateLimitedError) as failed:
                model.predict(x)
            assert failed.value.retry_after is not None
        model = load(f"{url}/v2/models/two", api_key=key)
        with pytest.raises(ModelNotFoundError):
            model.predict(x)
        model.close()
        model = load(f"{url}/v2/models/one", retry=None)
        with pytest.raises(AuthenticationError):
            model.info()
        model.close()


OPENAI = """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2], max_retries=0)
print([model.id for model in client.models.list()])
asked = {"model": "talk", "messages": [{"role": "user", "content": "hello"}]}
print(bool(client.chat.completions.create(**asked).choices[0].message.content))
raw = client.chat.completions.with_raw_response.create(**asked)
print(raw.headers["x-ratelimit-remaining-requests"])
try:
    client.chat.completions.create(**asked)
except openai.RateLimitError as error:
    print(error.code, int(error.response.headers["retry-after"]) > 0)
try:
    openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="wrong", max_retries=0).models.list()
except openai.AuthenticationError as error:
    print(error.code)
"""


@pytest.mark.peer
@pytest.mark.slow
def test_the_openai_client(peer_python: Callable[[str], Path], keys: Keys, talker: str) -> None:
    key = keys.add("alice", models=["talk"], limits=limited(requests_per_minute=2))
    with serve_in_thread([f"talk={talker}", ONE], api_keys=keys.path) as url:
        told = ran(peer_python("openai2"), OPENAI, url, key)
    assert told == ["['talk']", "True", "0", "rate_limit_exceeded True", "invalid_api_key"]


TRITON = """
import sys, numpy as np, tritonclient.http as http
client = http.InferenceServerClient(sys.argv[1].removeprefix("http://"))
mine = {"Authorization": "Bearer " + sys.argv[2]}
print(client.is_server_live(), client.is_server_ready())
print([row["name"] for row in client.get_model_repository_index(headers=mine)])
x = http.InferInput("x", [1, 3], "FP32")
x.set_data_from_numpy(np.ones((1, 3), np.float32))
print(client.infer("one", [x], headers=mine).as_numpy("x").tolist())
for name, headers in (("one", {}), ("two", mine)):
    try:
        client.infer(name, [x], headers=headers)
    except http.InferenceServerException as error:
        print(error.status())
"""


@pytest.mark.peer
@pytest.mark.slow
def test_the_triton_client(triton_env: Path, keys: Keys) -> None:
    key = keys.add("alice", models=["one"])
    with serve_in_thread([ONE, TWO], api_keys=keys.path) as url:
        told = ran(triton_env, TRITON, url, key)
    assert told == ["True True", "['one']", "[[1.0, 1.0, 1.0]]", "401", "404"]


def ran(python: Path, program: str, *arguments: str) -> list[str]:
    done = subprocess.run([python, "-c", program, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


# ---------------------------------------------------------------- to whom it is open
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "somewhere.example"])
def test_a_public_address_wants_to_know_who_may_ask(host: str) -> None:
    told = "nobody would have to say who they are"
    with pytest.raises(ConfigError, match=told) as failed, serve_in_thread([ONE], host=host):
        pass
    assert "aiaas keys add" in (failed.value.hint or "")
    assert "--public" in (failed.value.hint or "")


def test_it_is_public_when_it_is_said_so(caplog: pytest.LogCaptureFixture) -> None:
    with serve_in_thread([ONE], host="0.0.0.0", public=True) as url:
        assert url.startswith("http://0.0.0.0:")
    assert "anyone who reaches the port may use the models" in caplog.text


def test_with_keys_it_is_known_by_any_name(
    serving: Callable[..., Client], keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    keys.add("alice")
    ask = serving(ONE, api_keys=keys.path)
    headers = {**keys.bearer("alice"), "host": "ai.example"}
    assert ask("GET", "/v2", headers=headers).status == 200
    assert serving(ONE)("GET", "/v2", headers={"host": "ai.example"}).status == 403  # V19
    named = serving(ONE, api_keys=keys.path, hosts=["ai.example"])
    assert named("GET", "/v2", headers={**headers, "host": "evil.example"}).status == 403
    with serve_in_thread([ONE], host="0.0.0.0", api_keys=keys.path):
        pass
    assert "without TLS" in caplog.text


def test_who_asks_is_known_in_the_scope() -> None:
    """What stands around the application can read it."""
    from aiaas_sdk.server.access import Access
    from aiaas_sdk.server.permissions import caller

    seen: list[Any] = []

    class Known:
        def caller(self, text: str) -> Caller | None:
            return Caller("alice") if text == "good" else None

    async def proceed(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["aiaas.caller"].name, caller().name))

    scope = {"type": "http", "method": "POST", "path": "/x", "headers": [(b"authorization", b"Bearer good")]}
    asyncio.run(Access(Known(), None).perform(scope, None, None, proceed))  # type: ignore[arg-type]
    assert seen == [("alice", "alice")]
    assert json.dumps(str(scope["aiaas.caller"])).count("good") == 0
