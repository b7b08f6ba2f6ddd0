"""A model whose endpoint is wrong on purpose, and what a call of it came to."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import aiaas_sdk as aiaas
from aiaas_sdk.testing.faults import Exchange, Fault, FaultServer, answer
from aiaas_sdk.testing.plugin import aiaas_faults  # noqa: F401  # the plugin's own fixture
from tests.stopwatch import Stopwatch, Took

X = np.arange(6, dtype=np.float32).reshape(2, 3)
SLACK = 0.25
"""Seconds that a call may come back after its deadline, with what a thread waits for others of the interpreter."""


@pytest.fixture
def server(aiaas_faults: FaultServer) -> FaultServer:  # noqa: F811  # pytest's way
    return aiaas_faults


class Case:
    """A model of the server, opened, with calls whose outcome is checked."""

    def __init__(self, load: Any, server: FaultServer) -> None:
        self.server = server
        self._load = load
        self._models: list[Any] = []
        self._model: Any = None

    def load(self, address: Any = None, **options: Any) -> Any:
        """A model that isn't open yet; it closes with the test."""
        made = self._load(address or self.server.address, **{"timeout": 5, **options})
        self._models.append(made)
        return made

    def open(self, address: Any = None, **options: Any) -> Any:
        """An open model, which the calls from now on go to; the server's log begins after it."""
        self._model = self.load(address, **options)
        self._model.info()
        self.server.clear()
        return self._model

    def fresh(self, **options: Any) -> Any:
        """As `open`, and the next request needs a new connection."""
        self.server.on("metadata", answer({"connection": "close"}))
        return self.open(**options)

    @property
    def model(self) -> Any:
        return self._model or self.open()

    def passes(self, attempts: int = 1, **options: Any) -> Took:
        """The seconds of a call that gives the right answer after so many attempts."""
        watch = Stopwatch()
        prediction = self.model.predict(X, **options)
        took = watch.took()
        assert prediction.array.tolist() == (2 * X).tolist()
        assert prediction.attempts == attempts
        return took

    def fails(self, kind: type[aiaas.AiaasError], within: float = SLACK, **options: Any) -> Any:
        """The error of a call that fails, within so many seconds."""
        watch = Stopwatch()
        with pytest.raises(kind) as caught:
            self.model.predict(X, **options)
        assert watch.took() < within
        assert type(caught.value) is kind
        assert self.server.address in str(caught.value) or str(self.server.port) in str(caught.value)
        return caught.value

    def close(self) -> None:
        for model in self._models:
            model.close()


class Held:
    """A right answer that comes when the test says so, 20 s later at most."""

    def __init__(self) -> None:
        self._told = threading.Event()
        self.fault = Fault("held", self._act)
        self.let_go = self._told.set

    def _act(self, exchange: Exchange) -> None:
        self._told.wait(20)
        answer().act(exchange)


@pytest.fixture
def held() -> Iterator[Held]:
    made = Held()
    yield made
    made.let_go()


@pytest.fixture
def case(load: Any, server: FaultServer) -> Iterator[Case]:
    made = Case(load, server)
    yield made
    made.close()


@pytest.fixture
def cases(load: Any) -> Iterator[Callable[..., Case]]:
    """Cases of further servers, made with what is given."""
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> Case:
            made = Case(load, stack.enter_context(FaultServer(**options)))
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def hung_up() -> Callable[..., None]:
    """Waits until the client has hung up on a connection, a second at most."""

    def check(connected: Any, within: float = 1.0) -> None:
        watch = Stopwatch()
        while connected.ended is None:
            assert watch.took() < within, "the client didn't hang up"
            time.sleep(0.01)

    return check


# ---------------------------------------------------------------- TLS
def certificate(folder: Path, host: str = "127.0.0.1", days: int = 1) -> Path:
    """A self-signed certificate with its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    address = x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{host}-{days}.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FaultServer]]:
    """Starts a fault server that speaks TLS with a certificate for `host`; `trusted` names it in SSL_CERT_FILE."""
    servers: list[FaultServer] = []

    def start(host: str = "127.0.0.1", days: int = 1, *, trusted: bool = True) -> FaultServer:
        file = certificate(tmp_path, host, days)
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        servers.append(FaultServer(tls=context))
        return servers[-1]

    yield start
    for one in servers:
        one.close()
