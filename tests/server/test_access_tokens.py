"""JSON Web Tokens: which are let in, and that nothing in a token says where its key is (V14, V17)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

import aiaas_sdk as aiaas
from aiaas_sdk.errors import ConfigError
from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.server.keysets import PAUSE
from aiaas_sdk.server.tokens import Tokens
from tests.server.conftest import Client
from tests.stopwatch import Stopwatch

ISSUER, AUDIENCE = "https://issuer.example", "aiaas"
ONE, TWO = "one=echo:?x=FP32[-1,3]", "two=echo:?x=FP32[-1,3]"


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: Any) -> str:
    found: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return found.decode()


def jwk(key: Any, kid: str) -> dict[str, Any]:
    algorithm = {rsa.RSAPrivateKey: "RSA", ec.EllipticCurvePrivateKey: "EC", ed25519.Ed25519PrivateKey: "OKP"}
    kind = next(name for cls, name in algorithm.items() if isinstance(key, cls))
    to_jwk = {"RSA": jwt.algorithms.RSAAlgorithm, "EC": jwt.algorithms.ECAlgorithm, "OKP": jwt.algorithms.OKPAlgorithm}
    return {**json.loads(to_jwk[kind].to_jwk(key.public_key())), "kid": kid}


def token(key: Any, algorithm: str = "RS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + 60}
    found = {name: value for name, value in {**usual, **claims}.items() if value is not None}
    return jwt.encode(found, key, algorithm, headers)


def options(**more: Any) -> dict[str, Any]:
    return {"issuer": ISSUER, "audience": AUDIENCE, **more}


def status(ask: Client, text: str, path: str = "/v2/models/one") -> int:
    return ask("GET", path, headers={"authorization": f"Bearer {text}"}).status


def unsigned(key: Any, algorithm: str) -> str:
    """A token that is signed with its own public key as a shared secret, or not at all."""
    head, body, _ = token(key).split(".")
    head = encoded(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
    made = hmac.new(pem(key).encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}." + (encoded(made) if algorithm == "HS256" else "")


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_a_good_token_is_let_in_and_no_other(serving: Callable[..., Client], rsa_key: Any, ec_key: Any) -> None:
    ask = serving(ONE, jwt=options(key=pem(rsa_key)))
    now = int(time.time())
    good = [
        token(rsa_key),
        token(rsa_key, nbf=now + 20),  # clocks differ: 30 s
        token(rsa_key, exp=now - 20),
        token(rsa_key, aud=["other", AUDIENCE]),
    ]
    stranger = rsa.generate_private_key(65537, 2048)
    whole = token(rsa_key)
    bad = [
        token(stranger),
        token(rsa_key, exp=now - 40),
        token(rsa_key, nbf=now + 40),
        token(rsa_key, exp=None),
        token(rsa_key, aud="other"),
        token(rsa_key, aud=None),
        token(rsa_key, iss="https://evil.example"),
        token(rsa_key, iss=None),
        token(rsa_key, sub=None),
        token(rsa_key, sub=""),
        token(rsa_key, sub="x" * 300),
        token(rsa_key, models=7),
        token(rsa_key, "RS512"),
        token(ec_key, "ES256"),
        unsigned(rsa_key, "HS256"),
        unsigned(rsa_key, "none"),
        unsigned(rsa_key, "None"),
        whole[:-4] + "AAAA",
        whole.rpartition(".")[0] + ".",
        whole + ".x",
        "a.b.c",
        "..",
        "x" * 7000 + ".y.z",
    ]
    assert [status(ask, text) for text in good] == [200] * len(good)
    assert [status(ask, text) for text in bad] == [401] * len(bad)
    assert ask("GET", "/v2/models/one").error.startswith("a valid API key is needed")


def test_a_token_says_what_it_is_for(serving: Callable[..., Client], rsa_key: Any) -> None:
    ask = serving(ONE, TWO, jwt=options(key=pem(rsa_key)), management=True)

    def listed(**claims: Any) -> list[str]:
        headers = {"authorization": f"Bearer {token(rsa_key, **claims)}"}
        found: list[str] = ask("GET", "/v2/models", headers=headers).document["models"]
        return found

    assert listed() == ["one", "two"]
    assert listed(models=["one"]) == ["one"]
    assert listed(models="t* none") == ["two"]
    assert listed(models=[]) == []
    assert status(ask, token(rsa_key, models="two")) == 404
    assert status(ask, token(rsa_key), "/metrics") == 403
    assert status(ask, token(rsa_key, metrics="yes"), "/metrics") == 403
    assert status(ask, token(rsa_key, metrics=True), "/metrics") == 200


def test_each_subject_has_limits_of_its_own(serving: Callable[..., Client], rsa_key: Any) -> None:
    ask = serving(ONE, jwt=options(key=pem(rsa_key), requests_per_minute=1))
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}

    def asked(subject: str) -> int:
        headers = {"authorization": f"Bearer {token(rsa_key, sub=subject)}"}
        return ask("POST", "/v2/models/one/infer", body, headers).status

    assert [asked("alice"), asked("alice"), asked("bob")] == [200, 429, 200]


def test_keys_and_tokens_stand_side_by_side(serving: Callable[..., Client], rsa_key: Any, tmp_path: Path) -> None:
    from aiaas_sdk.server.keys import made, write_keys

    text, key = made("alice")
    write_keys(tmp_path / "keys.toml", [key])
    ask = serving(ONE, api_keys=tmp_path / "keys.toml", jwt=options(key=pem(rsa_key)))
    assert [status(ask, one) for one in (text, token(rsa_key), "no")] == [200, 200, 401]


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_other_kinds_of_keys(serving: Callable[..., Client], algorithm: str, ec_key: Any, tmp_path: Path) -> None:
    key = ec_key if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()
    file = tmp_path / "key.pem"
    file.write_text(pem(key))
    ask = serving(ONE, jwt=options(key=file, algorithms=[algorithm]))
    assert status(ask, token(key, algorithm)) == 200


def test_our_own_client_sends_one(load: Any, rsa_key: Any) -> None:
    with serve_in_thread([ONE], jwt=options(key=pem(rsa_key))) as url:
        with load(f"{url}/v2/models/one", api_key=lambda: token(rsa_key)) as model:
            assert model.predict(np.ones((1, 3), np.float32))["x"].shape == (1, 3)
        model = load(f"{url}/v2/models/one", api_key=token(rsa_key, exp=int(time.time()) - 100))
        with pytest.raises(aiaas.AuthenticationError):
            model.info()
        model.close()


# ---------------------------------------------------------------- key sets
class Issuer:
    """Gives a key set, and counts how often it is asked."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.asked, self.status, self.pause = 0, 200, 0.0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                time.sleep(issuer.pause)
                body = json.dumps({"keys": issuer.keys}).encode()
                self.send_response(issuer.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.close()


def test_an_issuers_keys_are_fetched_once_and_again_for_a_new_one(
    serving: Callable[..., Client], issuer: Issuer, rsa_key: Any, ec_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiaas_sdk.server.keysets.PAUSE", 0.5)
    issuer.keys = [jwk(rsa_key, "first"), {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"}, {"kty": "??"}, 7]  # type: ignore[list-item]
    ask = serving(ONE, jwt=options(jwks=issuer.url))
    assert issuer.asked == 0
    for _ in range(5):
        assert status(ask, token(rsa_key, headers={"kid": "first"})) == 200
    assert status(ask, token(rsa_key)) == 200  # names none
    assert issuer.asked == 1
    new = token(ec_key, "ES256", {"kid": "second"})
    assert status(ask, new) == 401  # asked a moment ago
    issuer.keys.append(jwk(ec_key, "second"))
    time.sleep(0.6)
    for _ in range(20):
        assert status(ask, token(rsa_key, headers={"kid": "none"})) == 401
    assert issuer.asked == 2  # for whoever makes up keys, too
    assert status(ask, new) == 200
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": 2**32}
    shared = jwt.encode(claims, "s" * 32, "HS256", {"kid": "shared"})
    assert status(ask, shared) == 401


def test_an_issuer_who_is_away_costs_nobody_anything(
    serving: Callable[..., Client], issuer: Issuer, rsa_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiaas_sdk.server.keysets.PAUSE", 0.2)
    issuer.status = 500
    issuer.keys = [jwk(rsa_key, "first")]
    ask = serving(ONE, jwt=options(jwks=issuer.url))
    away = ask("GET", "/v2/models/one", headers={"authorization": f"Bearer {token(rsa_key)}"})
    assert (away.status, away.headers["retry-after"]) == (503, "5")
    assert ask("GET", "/readyz").status == 200
    time.sleep(0.3)
    issuer.status = 200
    assert status(ask, token(rsa_key)) == 200
    issuer.status, issuer.pause = 500, 0.5
    monkeypatch.setattr("aiaas_sdk.server.keysets.FRESH", 0.0)
    time.sleep(0.3)
    watch = Stopwatch()
    assert [status(ask, token(rsa_key)) for _ in range(3)] == [200] * 3  # with the old ones, and without waiting
    assert watch.took() < 0.4


def test_nothing_in_a_token_leads_anywhere(
    serving: Callable[..., Client], issuer: Issuer, rsa_key: Any, tmp_path: Path
) -> None:
    """V17: `jku`, `x5u`, `jwk` and a key id with a path are read by nobody."""
    stranger = rsa.generate_private_key(65537, 2048)
    issuer.keys = [jwk(stranger, "evil")]
    ask = serving(ONE, jwt=options(key=pem(rsa_key)))
    for headers in (
        {"jku": issuer.url, "kid": "evil"},
        {"x5u": issuer.url},
        {"jwk": jwk(stranger, "evil")},
        {"kid": issuer.url},
        {"kid": "../../../../dev/null"},
        {"x5c": ["AAAA"]},
    ):
        assert status(ask, token(stranger, headers=headers)) == 401
    assert status(ask, token(rsa_key, headers={"jku": issuer.url})) == 200
    assert issuer.asked == 0


def test_a_file_of_keys_is_read_again(
    serving: Callable[..., Client], rsa_key: Any, ec_key: Any, tmp_path: Path
) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [jwk(rsa_key, "a")]}))
    ask = serving(ONE, jwt=options(jwks=str(file)))
    assert status(ask, token(rsa_key)) == 200
    file.write_text(json.dumps({"keys": [jwk(ec_key, "b")]}))
    end = time.monotonic() + 5
    while status(ask, token(ec_key, "ES256")) != 200 and time.monotonic() < end:
        time.sleep(0.1)
    assert status(ask, token(ec_key, "ES256")) == 200
    assert status(ask, token(rsa_key)) == 401


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "needs issuer"),
        ({"issuer": ISSUER}, "needs audience"),
        (options(), "key or jwks"),
        (options(key="x", jwks="y"), "key or jwks"),
        (options(key="/no/such/file"), "can't be read"),
        (options(key="-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"), "no public key"),
        (options(key="https://issuer.example/key"), "is a URL"),
        (options(jwks="http://issuer.example/jwks"), "https"),
        (options(jwks="file:///etc/passwd"), "https"),
        (options(key="x", algorithms=["HS256"]), "HS256"),
        (options(key="x", algorithms=["none"]), "none"),
        (options(key="x", algorithms=[]), "algorithm"),
        (options(key="x", leeway=-1), "leeway"),
        (options(key="x", audiences="y"), "'audiences'"),
        (options(key="x", concurrency=0), "concurrency"),
        (options(key=7), "int"),
    ],
)
def test_impossible_options_are_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as failed:
        Tokens(given)
    assert told in f"{failed.value.message} {failed.value.hint}"


def test_a_private_key_has_no_business_here(rsa_key: Any, tmp_path: Path) -> None:
    private = rsa_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(private)
    for key in (private.decode(), tmp_path / "key.pem"):
        with pytest.raises(ConfigError):
            Tokens(options(key=key))
    assert PAUSE == 10
