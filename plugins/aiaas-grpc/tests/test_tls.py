"""`grpcs://`: whom it trusts, and what it says where it doesn't."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import aiaas_sdk as aiaas

X = np.ones((1, 3), np.float32)


class Authority:
    """Signs certificates for 127.0.0.1, or for another host."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = _name("authority")
        basic = x509.BasicConstraints(ca=True, path_length=None)
        made = _builder(self._name, self._name, self._key).add_extension(basic, critical=True)
        self.pem = _pem(made.sign(self._key, hashes.SHA256()))
        self.file = self._written("authority.pem", self.pem)

    def signed(self, host: x509.GeneralName) -> tuple[bytes, bytes]:
        """A key and its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _builder(_name("leaf"), self._name, key).add_extension(x509.SubjectAlternativeName([host]), False)
        plain = serialization.NoEncryption()
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        return secret, _pem(made.sign(self._key, hashes.SHA256()))

    def _written(self, name: str, content: bytes) -> Path:
        (self._folder / name).write_bytes(content)
        return self._folder / name

    def client(self, together: bool) -> aiaas.Network:
        """A network with a client certificate: its key in the same file, or in one of its own."""
        key, certificate = self.signed(x509.DNSName("client"))
        if together:
            return aiaas.Network(ca=self.file, certificate=self._written("both.pem", certificate + key))
        files = self._written("client.pem", certificate), self._written("client.key", key)
        return aiaas.Network(ca=self.file, certificate=files[0], key=files[1])


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number())
    return made.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secured(scripted: Any, authority: Authority) -> Iterator[Any]:
    """Makes servers with a certificate of the authority's."""
    servers: list[Any] = []

    def make(host: x509.GeneralName | None = None, **more: Any) -> Any:
        pair = authority.signed(host or x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        servers.append(type(scripted)(private_key_certificate_chain_pairs=[pair], **more))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


def test_a_private_authority_is_named(load: Any, secured: Any, authority: Authority) -> None:
    address = secured().address
    with load(address, timeout=5, network=aiaas.Network(ca=authority.file)) as model:
        assert model.predict(X)["y"].tolist() == [[2, 2, 2]]


def test_the_environment_names_one(
    load: Any, secured: Any, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with load(secured().address, timeout=5) as model:
        assert model.predict(X)["y"].tolist() == [[2, 2, 2]]


def test_a_stranger_isnt_trusted(load: Any, secured: Any) -> None:
    with pytest.raises(aiaas.TLSError, match="no TLS connection to 127") as caught:
        load(secured().address, timeout=5).info()
    assert "network=Network(ca=...)" in str(caught.value)
    assert caught.value.attempts == 1


def test_a_certificate_of_another_host_isnt_trusted(load: Any, secured: Any, authority: Authority) -> None:
    address = secured(x509.DNSName("elsewhere.example")).address
    with pytest.raises(aiaas.TLSError, match=r"hostname verification|peer name"):
        load(address, timeout=5, network=aiaas.Network(ca=authority.file)).info()


@pytest.mark.parametrize("together", [True, False])
def test_a_client_certificate(load: Any, secured: Any, authority: Authority, together: bool) -> None:
    address = secured(root_certificates=authority.pem, require_client_auth=True).address
    with load(address, timeout=5, network=authority.client(together)) as model:
        assert model.predict(X)["y"].tolist() == [[2, 2, 2]]
    with pytest.raises(aiaas.ConnectError):
        load(address, timeout=5, retry=None, network=aiaas.Network(ca=authority.file)).info()


def test_tls_and_plain_are_told_apart(load: Any, secured: Any, scripted: Any) -> None:
    with pytest.raises(aiaas.TLSError, match="wrong version number") as caught:
        load(scripted.address.replace("grpc:", "grpcs:"), timeout=5).info()
    assert "grpc:// is without" in str(caught.value)
    with pytest.raises(aiaas.ConnectError):
        load(secured().address.replace("grpcs:", "grpc:"), timeout=5, retry=None).info()


def test_a_unix_socket(load: Any, scripted: Any, tmp_path: Path) -> None:
    server = type(scripted)(unix=tmp_path / "socket")
    with load("grpc://model/models/double", timeout=5, network=aiaas.Network(unix_socket=tmp_path / "socket")) as model:
        assert model.predict(X)["y"].tolist() == [[2, 2, 2]]
    server.stop()


def test_what_grpc_cant_is_said_when_loading() -> None:
    with pytest.raises(aiaas.ConfigError, match="carries HTTP"):
        aiaas.load("grpc://h:1/models/x", network=aiaas.Network(transport=_transport()))


def test_a_proxy_that_grpc_cant_go_through(load: Any) -> None:
    network = aiaas.Network(proxy="https://127.0.0.1:1")
    with pytest.raises(aiaas.ConfigError, match="gRPC can't go through"):
        load("grpc://127.0.0.1:1/models/x", timeout=5, network=network).info()


def test_a_proxy_is_gone_through(load: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(scripted.port) as proxy:
        address = "grpc://elsewhere.example:8001/models/double"
        with load(address, timeout=5, network=aiaas.Network(proxy=proxy.url)) as model:
            assert model.predict(X)["y"].tolist() == [[2, 2, 2]]
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with load(address, timeout=5) as model:
            assert model.predict(X)["y"].tolist() == [[2, 2, 2]]
        assert proxy.asked == ["CONNECT elsewhere.example:8001 HTTP/1.1"] * 2
    with pytest.raises(aiaas.ConnectError, match=r"elsewhere.example:8001 through 127.0.0.1:\d+: Connection refused"):
        load(address, timeout=5, retry=None).info()


class Proxy:
    """An HTTP proxy that leads everyone who asks for a tunnel to one port."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                self.asked.append(near.recv(4096).decode().splitlines()[0])
                near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                far = socket.create_connection(("127.0.0.1", self._target))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), source, sink:
            while data := source.recv(65536):
                sink.sendall(data)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        # else the thread goes on to accept: closing alone doesn't wake it
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _transport() -> Any:
    import httpx

    return httpx.MockTransport(lambda request: httpx.Response(200))
