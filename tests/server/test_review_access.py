"""Faults that an attack on a running server found: credentials, issuers, connections, and what is told (V14, V15)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from aiaas_sdk.errors import ConfigError, UnsupportedOperationError
from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.server.keys import add_key, keys_in, made, remove_key
from aiaas_sdk.server.tokens import Tokens
from tests.server.conftest import Client
from tests.server.test_access import Keys, keys
from tests.server.test_access_tokens import Issuer, issuer, jwk, options, pem, status, token
from tests.server.test_tls import files, shaken
from tests.server.training import begin, create, nobody_works, rows, upload

__all__ = ["files", "issuer", "keys"]

ONE = "one=echo:?x=FP32[-1,3]"
TRAINING = (
    ("GET", "/v1/fine_tuning/jobs"),
    ("POST", "/v1/fine_tuning/jobs"),
    ("GET", "/v1/fine_tuning/jobs/ftjob-1"),
    ("POST", "/v1/fine_tuning/jobs/ftjob-1/cancel"),
    ("GET", "/v1/fine_tuning/jobs/ftjob-1/events"),
    ("GET", "/v1/fine_tuning/jobs/ftjob-1/checkpoints"),
    ("GET", "/v1/files"),
    ("POST", "/v1/files"),
    ("GET", "/v1/files/file-1"),
    ("GET", "/v1/files/file-1/content"),
    ("DELETE", "/v1/files/file-1"),
    ("POST", "/v1/uploads"),
    ("POST", "/v1/uploads/upload_1/parts"),
    ("POST", "/v1/uploads/upload_1/complete"),
    ("POST", "/v1/uploads/upload_1/cancel"),
)


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


# ---------------------------------------------------------------- credentials
@pytest.mark.parametrize("header", ["Authorization: Bearer", "X-API-Key:"])
@pytest.mark.parametrize("good", [0, 1])
def test_a_credential_that_stands_twice_is_none(
    serving: Callable[..., Client], keys: Keys, header: str, good: int
) -> None:
    """A proxy that looks at the first one, and a server that looks at the last, let in whom neither knows."""
    text = keys.add("alice")
    ask = serving(ONE, api_keys=keys.path)
    two = [f"{header} {text if place == good else 'guessed'}" for place in (0, 1)]
    head = "\r\n".join(["GET /v2/models HTTP/1.1", f"Host: {ask.host}", *two, "Connection: close", "\r\n"])
    assert ask.send(head.encode()).startswith(b"HTTP/1.1 401 ")
    once = "\r\n".join(["GET /v2/models HTTP/1.1", f"Host: {ask.host}", two[good], "Connection: close", "\r\n"])
    assert ask.send(once.encode()).startswith(b"HTTP/1.1 200 ")


# ---------------------------------------------------------------- tokens
def test_a_subject_is_one_issuers(serving: Callable[..., Client], key: Any, tmp_path: Path) -> None:
    """RFC 7519 4.1.2: who has the same name at another issuer is somebody else, and sees none of his files."""
    given = {**options(key=pem(key), algorithms="ES256"), "issuer": ["https://one.example", "https://two.example"]}
    ask = serving(ONE, jwt=given, jobs=tmp_path / "jobs")
    body = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    body += b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nrows\r\n--b--\r\n'

    def bearer(name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {token(key, 'ES256', iss=f'https://{name}.example', training=True)}"}

    kind = {"content-type": "multipart/form-data; boundary=b"}
    assert ask("POST", "/v1/files", body, {**bearer("one"), **kind}).status == 200
    assert len(ask("GET", "/v1/files", headers=bearer("one")).document["data"]) == 1
    assert ask("GET", "/v1/files", headers=bearer("two")).document["data"] == []


def test_training_is_for_keys_and_tokens_that_say_so(
    serving: Callable[..., Client], keys: Keys, key: Any, tmp_path: Path
) -> None:
    """A job gives all callers a new version: who may use a model mayn't therefore replace it."""
    keys.add("user", management=True, metrics=True)
    keys.add("trainer", training=True)
    given = options(key=pem(key), algorithms="ES256")
    with nobody_works(tmp_path / "jobs"):
        ask = serving(str(create(tmp_path)), api_keys=keys.path, jwt=given, jobs=tmp_path / "jobs")
        bad, good = [keys.bearer("user")], [keys.bearer("trainer")]
        for claim, tokens in ((None, bad), ("true", bad), (1, bad), (True, good)):
            tokens.append({"authorization": f"Bearer {token(key, 'ES256', training=claim)}"})
        for headers in bad:
            for method, path in TRAINING:
                answer = ask(method, path, b"{}" if method == "POST" else None, headers)
                assert answer.status == 403, (method, path)
                assert answer.document["error"]["type"] == "permission_error"
                assert "aiaas keys add NAME --training" in answer.document["error"]["message"]
            assert "training" not in ask("GET", "/v2/models/iris", headers=headers).document.get("parameters", {})
            assert ask("GET", "/v2/models/iris/ready", headers=headers).status == 200
        for headers in good:
            assert ask("GET", "/v2/models/iris", headers=headers).document["parameters"]["training"] is True
            id = begin(ask, upload(ask, headers=headers), headers).document["id"]
            assert [one["id"] for one in ask("GET", TRAINING[0][1], headers=headers).document["data"]] == [id]


def test_our_client_is_told_that_a_key_may_not_train(load: Any, keys: Keys, tmp_path: Path) -> None:
    x, y = rows()
    keys.add("user")
    targets, options = [str(create(tmp_path))], {"api_key": keys.texts["user"], "timeout": 30}
    with (
        serve_in_thread(targets, jobs=tmp_path / "jobs", api_keys=keys.path) as url,
        load(f"{url}/v2/models/iris", **options) as model,
    ):
        assert "fit" not in model.info().verbs
        with pytest.raises(UnsupportedOperationError, match="keys add NAME --training"):
            model.fit(x, y, epochs=1)


def test_a_subject_that_cant_be_written_is_nobodys(serving: Callable[..., Client], key: Any) -> None:
    """Two of them would look the same, and be the same caller."""
    ask = serving(ONE, jwt=options(key=pem(key), algorithms="ES256"))
    assert status(ask, token(key, "ES256", sub="José 7")) == 200
    for subject in ("a\nb", "a\x00", "a\u202eb", "a\x7f"):
        assert status(ask, token(key, "ES256", sub=subject)) == 401


def test_an_issuer_without_keys_is_away(
    serving: Callable[..., Client], issuer: Issuer, key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that holds no key leaves the old ones in use for an hour, and not for ever."""
    for name, seconds in (("PAUSE", 0.1), ("FRESH", 0.0), ("STALE", 1.5)):
        monkeypatch.setattr(f"aiaas_sdk.server.keysets.{name}", seconds)
    issuer.keys = [jwk(key, "first")]
    ask = serving(ONE, jwt=options(jwks=issuer.url))
    good = token(key, "ES256")
    assert status(ask, good) == 200
    issuer.keys = []
    time.sleep(0.3)
    assert [status(ask, good), status(ask, good)] == [200, 200]
    time.sleep(1.5)
    assert status(ask, good) == 503
    issuer.keys = [jwk(key, "first")]
    time.sleep(0.2)
    assert status(ask, good) == 200


def test_private_keys_in_a_set_check_nothing(tmp_path: Path) -> None:
    private = rsa.generate_private_key(65537, 2048)
    (tmp_path / "set.json").write_text(f'{{"keys": [{jwt.algorithms.RSAAlgorithm.to_jwk(private)}]}}')
    with pytest.raises(ConfigError, match="holds no public key"):
        Tokens(options(jwks=tmp_path / "set.json"))


# ---------------------------------------------------------------- what is asked for
@pytest.mark.parametrize(
    "accept",
    ["application/openmetrics-text; version=abc", "text/plain;version=1e999", "text/plain;version=x;escaping=y"],
)
def test_metrics_are_told_whatever_accept_says(serving: Callable[..., Client], accept: str) -> None:
    answer = serving(ONE)("GET", "/metrics", headers={"accept": accept})
    assert answer.status == 200
    assert b"aiaas_build_info" in answer.body


# ---------------------------------------------------------------- connections
def test_handshakes_are_counted_as_connections_are(files: dict[str, Path]) -> None:
    """V21, with TLS: who opens connections and says nothing takes no file that a connection would be refused."""
    with serve_in_thread([ONE], max_connections=20, **files) as url:
        parts = urlsplit(url)
        silent = [socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5) for _ in range(60)]
        try:
            with shaken(url) as secure:
                secure.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                assert secure.recv(100).startswith(b"HTTP/1.1 200 ")
            closed = sum(_closed(stream) for stream in silent)
            assert 40 <= closed < 60  # the oldest; the others still have their time
        finally:
            for stream in silent:
                stream.close()


def _closed(stream: socket.socket) -> bool:
    stream.settimeout(0.05)
    try:
        return stream.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


# ---------------------------------------------------------------- the file of keys
def test_keys_that_are_changed_at_the_same_time_are_all_changed(tmp_path: Path) -> None:
    """Who had read the file before would write back a key that was removed meanwhile."""
    path = tmp_path / "keys.toml"
    for name in ("old-0", "old-1", "old-2", "old-3"):
        add_key(path, made(name)[1])
    work = [partial(remove_key, path, f"old-{place}") for place in range(4)]
    work += [partial(add_key, path, made(f"new-{place}")[1]) for place in range(4)]
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.name for key in keys_in(path)) == [f"new-{place}" for place in range(4)]
    assert [one.name for one in tmp_path.iterdir()] == ["keys.toml"]
