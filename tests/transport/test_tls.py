"""HTTPS: whom it trusts, what it says when it doesn't, and that a dripping handshake is left on time."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from aiaas_sdk.errors import ConfigError, ConnectError, DeadlineExceededError, ProtocolError, TLSError
from aiaas_sdk.flow import Request
from aiaas_sdk.records.network import Network
from aiaas_sdk.transport import tls
from aiaas_sdk.transport.answer import Answer
from aiaas_sdk.transport.connecting import connect
from aiaas_sdk.transport.message import Message
from aiaas_sdk.transport.origin import origin_of
from aiaas_sdk.transport.plain import perform
from tests.stopwatch import Stopwatch
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


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


def serving(file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The context of a server whose certificate SSL_CERT_FILE names."""
    file = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    return serving(file)


def test_a_private_authority_is_trusted_through_ssl_cert_file(
    server: Any, send: Any, answering: Any, trusted: Any
) -> None:
    """R79."""
    one = server(answering(OK), trusted)
    for _ in range(3):
        assert bytes(send(Request("GET", one.url)).body) == b"ok"
    assert one.seen == 1


def test_large_bodies_go_both_ways(server: Any, send: Any, taken: Any, trusted: Any) -> None:
    data = os.urandom(1 << 20) * 5
    seen: list[bytes] = []

    def answer(connection: ssl.SSLSocket) -> None:
        seen.append(taken(connection).partition(b"\r\n\r\n")[2])
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(data))
        connection.sendall(data)

    reply = send(Request("POST", server(answer, trusted).url, {}, (b"head", memoryview(data))), 20)
    assert seen[0] == b"head" + data
    assert reply.body == data


def test_chunks_that_tls_has_decrypted_already_are_not_waited_for(
    server: Any, send: Any, replying: Any, trusted: Any
) -> None:
    body = b"".join(b"5\r\nhello\r\n" for _ in range(3000)) + b"0\r\n\r\n"
    one = server(replying(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body), trusted)
    reply = send.open(Request("GET", one.url))
    pieces = []
    while piece := send.read(reply):
        pieces.append(piece)
    assert b"".join(pieces) == b"hello" * 3000


@pytest.mark.parametrize(
    ("host", "days", "trust", "reason"),
    [("127.0.0.1", 1, False, "self-signed"), ("127.0.0.1", -1, True, "expired"), ("other.test", 1, True, "127.0.0.1")],
)
def test_a_bad_certificate_is_a_tls_error_in_words_after_one_hello(
    server: Any,
    send: Any,
    answering: Any,
    tmp_path: Path,
    monkeypatch: Any,
    host: str,
    days: int,
    trust: bool,
    reason: str,
) -> None:
    """N04, R79."""
    file = certificate(tmp_path, host, days)
    if trust:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    one = server(answering(OK), serving(file))
    with pytest.raises(TLSError, match=reason) as caught:
        send(Request("GET", one.url))
    assert not caught.value.retryable
    assert one.seen == 1


def test_plain_http_on_a_tls_port_is_no_answer(server: Any, send: Any, answering: Any, trusted: Any) -> None:
    """N05."""
    one = server(answering(OK), trusted)
    with pytest.raises((ProtocolError, ConnectionError)):
        send(Request("GET", one.url.replace("https", "http")))


def test_tls_on_a_plain_port_is_a_tls_error(server: Any, send: Any, replying: Any) -> None:
    """N05."""
    one = server(replying(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    with pytest.raises(TLSError, match=r"wrong version number|record layer"):
        send(Request("GET", one.url.replace("http", "https")))


def test_a_peer_that_hangs_up_in_the_handshake_may_be_asked_again(server: Any, send: Any) -> None:
    one = server(lambda connection: connection.recv(100) and None)
    with pytest.raises(ConnectError) as caught:
        send(Request("GET", one.url.replace("http", "https")))
    assert caught.value.retryable


def test_a_dripping_handshake_is_left_on_time(server: Any, send: Any) -> None:
    """N11."""

    def drip(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB
        for _ in range(20):
            connection.sendall(b"\x02")
            time.sleep(0.1)

    watch = Stopwatch()
    with pytest.raises(DeadlineExceededError, match="no connection"):
        send(Request("GET", server(drip).url.replace("http", "https")), 0.4)
    assert watch.took() < 0.65


# ---------------------------------------------------------------- a network's own files
def parts(file: Path) -> tuple[Path, Path]:
    """The certificate and the key of one file as two."""
    key, mark, made = file.read_text().partition("-----BEGIN CERT")
    both = file.with_suffix(".crt"), file.with_suffix(".key")
    both[0].write_text(mark + made)
    both[1].write_text(key)
    return both


def asking(file: Path, clients: Path, version: ssl.TLSVersion) -> ssl.SSLContext:
    """The context of a server that wants its clients to be those whose certificate is in `clients`."""
    context = serving(file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(clients)
    context.maximum_version = version
    return context


def test_r79_a_networks_authority_is_trusted_instead_of_all_others(
    server: Any, send: Any, answering: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "other").mkdir()
    file, other = certificate(tmp_path), certificate(tmp_path / "other")
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    own, others = server(answering(OK), serving(file)), server(answering(OK), serving(other))
    network = Network(ca=file)
    for _ in range(3):
        assert bytes(send(Request("GET", own.url, network=network)).body) == b"ok"
    assert own.seen == 1
    with pytest.raises(TLSError, match="self-signed"):
        send(Request("GET", others.url, network=network))
    assert send(Request("GET", others.url)).status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("apart", [True, False])
def test_r79_a_client_certificate_is_shown(
    server: Any, send: Any, answering: Any, tmp_path: Path, version: Any, apart: bool
) -> None:
    (tmp_path / "client").mkdir()
    file, client = certificate(tmp_path), certificate(tmp_path / "client")
    one = server(answering(OK), asking(file, client, version))
    made, key = parts(client) if apart else (client, None)
    network = Network(ca=file, certificate=made, key=key)
    assert bytes(send(Request("GET", one.url, network=network)).body) == b"ok"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("shown", [True, False])
def test_r79_a_client_certificate_that_is_missing_or_unknown_is_a_tls_error(
    server: Any, send: Any, answering: Any, tmp_path: Path, version: Any, shown: bool
) -> None:
    """With TLS 1.3 the server says no only after the client has begun to send."""
    for name in ("client", "other"):
        (tmp_path / name).mkdir()
    file, client = certificate(tmp_path), certificate(tmp_path / "client")
    one = server(answering(OK), asking(file, client, version))
    network = Network(ca=file, certificate=certificate(tmp_path / "other") if shown else None)
    with pytest.raises(TLSError) as caught:
        send(Request("GET", one.url, network=network))
    assert not caught.value.retryable
    if version == ssl.TLSVersion.TLSv1_3 or shown:
        assert "client certificate" in str(caught.value)
    assert one.seen == 1


def test_r79_a_server_that_hung_up_before_anything_was_sent_is_still_heard(
    server: Any, answering: Any, tmp_path: Path
) -> None:
    (tmp_path / "client").mkdir()
    file, client = certificate(tmp_path), certificate(tmp_path / "client")
    one = server(answering(OK), asking(file, client, ssl.TLSVersion.TLSv1_3))
    request, end = Request("GET", one.url), time.monotonic() + 5
    link = perform(connect(origin_of(one.url), Network(ca=file), end))
    until(lambda: one.open == 0)
    with pytest.raises(ssl.SSLError) as caught:
        perform(link.start(Message(request), Answer(request, whole=True), end))
    assert "CERTIFICATE_REQUIRED" in str(caught.value.reason)
    link.close()


# ---------------------------------------------------------------- the context
def test_the_context_is_made_once_and_again_when_the_file_changes(tmp_path: Path, monkeypatch: Any) -> None:
    """R78."""
    file = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    first = tls.context()
    assert tls.context() is first
    file.write_bytes(file.read_bytes() + b"\n")
    assert tls.context() is not first


def test_r78_networks_with_the_same_files_share_a_context_until_one_changes(tmp_path: Path) -> None:
    file = certificate(tmp_path)
    made, key = parts(file)
    network = Network(ca=file, certificate=made, key=key)
    first = tls.context(network)
    assert tls.context(Network(ca=file, certificate=made, key=key, connections=3)) is first
    assert tls.context(Network(ca=file)) is not first
    assert tls.context() is not first
    watch = Stopwatch()
    for _ in range(500):
        assert tls.context(network) is first
    assert watch.took() < 0.5
    for changed in (file, made, key):
        before = tls.context(network)
        os.utime(changed, ns=(1, 1))
        assert tls.context(network) is not before


def test_r78_a_file_that_was_replaced_counts_from_the_next_connection_on(
    server: Any, send: Any, answering: Any, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    file, new = certificate(tmp_path), certificate(tmp_path / "new")
    one = server(answering(OK), serving(new))
    network = Network(ca=file)
    with pytest.raises(TLSError):
        send(Request("GET", one.url, network=network))
    os.replace(new, file)
    assert send(Request("GET", one.url, network=network)).status == 200
    file.unlink()
    assert send(Request("GET", one.url, network=network)).status == 200  # over the kept connection
    with pytest.raises(ConfigError, match=r"network\.ca"):
        send(Request("GET", one.url, network=Network(ca=file, connections=1)))


def test_offering_http2_is_a_context_of_its_own(tmp_path: Path) -> None:
    file = certificate(tmp_path)
    assert tls.context(Network(ca=file)) is not tls.context(Network(ca=file, http2=True))


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_a_wrong_ssl_cert_file_is_named(tmp_path: Path, monkeypatch: Any, send: Any, text: str | None) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(ConfigError, match="SSL_CERT_FILE"), socket.create_server(("127.0.0.1", 0)) as listener:
        send(Request("GET", f"https://127.0.0.1:{listener.getsockname()[1]}/"))


def test_without_a_list_of_the_system_that_of_httpx_is_used(monkeypatch: Any) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setattr(tls, "_system_has_any", lambda: False)
    tls._made.cache_clear()
    assert tls.context().verify_mode == ssl.CERT_REQUIRED
    tls._made.cache_clear()
