"""HTTPS: with which certificate, since when, and what is said of one that is no good."""

from __future__ import annotations

import http.client
import logging
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization

import aiaas_sdk as aiaas
from aiaas_sdk.errors import ConfigError, TLSError
from aiaas_sdk.server import serve, serve_in_thread
from aiaas_sdk.server.tls import Certificate
from tests.transport.test_tls import certificate

ONE = "one=echo:?x=FP32[-1,3]"


def pair(folder: Path) -> dict[str, Path]:
    """A certificate for 127.0.0.1 and its key."""
    folder.mkdir(parents=True, exist_ok=True)
    both = certificate(folder)
    key, _, cert = both.read_text().partition("-----BEGIN CERTIFICATE-----")
    files = {"tls_cert": folder / "cert.pem", "tls_key": folder / "key.pem"}
    files["tls_cert"].write_text("-----BEGIN CERTIFICATE-----" + cert)
    files["tls_key"].write_text(key)
    both.unlink()
    return files


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return pair(tmp_path)


@contextmanager
def shaken(url: str, **versions: ssl.TLSVersion) -> Iterator[ssl.SSLSocket]:
    """A connection after its handshake; whose certificate it is isn't looked at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, version in versions.items():
        setattr(context, name, version)
    parts = urlsplit(url)
    with (
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as plain,
        context.wrap_socket(plain) as secure,
    ):
        yield secure


def test_our_own_client_trusts_it_by_its_authority(load: Any, files: dict[str, Path]) -> None:
    x = np.ones((2, 3), np.float32)
    with serve_in_thread([ONE], **files) as url:
        assert url.startswith("https://127.0.0.1:")
        network = aiaas.Network(ca=files["tls_cert"])
        with load(f"{url}/v2/models/one", network=network) as model:
            assert model.predict(x)["x"].tolist() == x.tolist()
            large = np.ones((100_000, 3), np.float32)
            assert model.predict(large)["x"].sum() == 300_000
        model = load(f"{url}/v2/models/one", retry=None)
        with pytest.raises(TLSError):
            model.info()
        model.close()


def test_old_tls_and_plain_http_are_turned_away(files: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serve_in_thread([ONE], **files) as url:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with shaken(url, minimum_version=version, maximum_version=version) as secure:
                assert secure.version() == version.name.replace("_", ".")
        old = {"minimum_version": ssl.TLSVersion.TLSv1, "maximum_version": ssl.TLSVersion.TLSv1_1}
        with (
            pytest.raises((ssl.SSLError, ConnectionError)),
            pytest.warns(DeprecationWarning, match="TLSv1"),
            shaken(url, **old),
        ):
            pass
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5) as plain:
            plain.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            came = plain.recv(100)
        assert b"HTTP/1.1" not in came
        with shaken(url) as secure:
            secure.sendall(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            assert secure.recv(1000).startswith(b"HTTP/1.1 200")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.slow
def test_a_renewed_certificate_is_taken_without_a_restart(files: dict[str, Path], tmp_path: Path) -> None:
    with serve_in_thread([ONE], **files) as url:

        def seen() -> bytes:
            with shaken(url) as secure:
                return secure.getpeercert(True) or b""

        def is_now(file: Path, seconds: float = 5.0) -> bool:
            wanted = ssl.PEM_cert_to_DER_cert(file.read_text())
            end = time.monotonic() + seconds
            while seen() != wanted and time.monotonic() < end:
                time.sleep(0.1)
            return seen() == wanted

        first = files["tls_cert"].read_text()
        assert is_now(files["tls_cert"])
        kept = http.client.HTTPSConnection(
            "127.0.0.1", urlsplit(url).port, context=ssl.create_default_context(cafile=files["tls_cert"]), timeout=10
        )
        kept.request("GET", "/livez")
        assert kept.getresponse().read()
        renewed = pair(tmp_path / "renewed")
        os.replace(renewed["tls_cert"], files["tls_cert"])  # one file first: they don't belong together for a while
        time.sleep(1.3)
        assert seen() == ssl.PEM_cert_to_DER_cert(first)
        os.replace(renewed["tls_key"], files["tls_key"])
        assert is_now(files["tls_cert"])
        kept.request("GET", "/livez")  # a connection that began before goes on
        assert kept.getresponse().read()
        kept.close()


def test_a_certificate_that_is_opened_to_the_server_later_is_read_then(files: dict[str, Path]) -> None:
    """Written first and given away by chmod or chown: neither its time nor its size tells."""
    held = Certificate(**{name.removeprefix("tls_"): path for name, path in files.items()})
    assert not held.refresh()
    files["tls_key"].chmod(0o640)
    assert held.refresh()
    assert not held.refresh()


@pytest.mark.slow
def test_who_shakes_no_hands_is_cut_off(files: dict[str, Path]) -> None:
    """V01, with TLS."""
    with serve_in_thread([ONE], **files) as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=15) as silent:
            begun = time.monotonic()
            assert silent.recv(1) == b""
            assert time.monotonic() - begun < 10


@pytest.mark.parametrize("pause", [0, 0.3])  # before it is taken in, and in the middle of its handshake
def test_a_server_with_silent_clients_ends_on_time(files: dict[str, Path], pause: float) -> None:
    with serve_in_thread([ONE], **files) as url:
        parts = urlsplit(url)
        silent = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=15)
        time.sleep(pause)
        begun = time.monotonic()
    assert time.monotonic() - begun < 6
    silent.close()


def test_what_is_wrong_is_said_with_the_file(files: dict[str, Path], tmp_path: Path) -> None:
    other = pair(tmp_path / "other")
    locked = tmp_path / "locked.pem"
    key = serialization.load_pem_private_key(files["tls_key"].read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"x")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for cert, secret, told, named in (
        (tmp_path / "none.pem", files["tls_key"], "can't be read", tmp_path / "none.pem"),
        (files["tls_cert"], tmp_path, "can't be read", tmp_path),
        (files["tls_key"], files["tls_key"], "no certificate", files["tls_key"]),
        (files["tls_cert"], files["tls_cert"], "no private key", files["tls_cert"]),
        (files["tls_cert"], other["tls_key"], "another certificate's", other["tls_key"]),
        (files["tls_cert"], locked, "passphrase", locked),
        (broken, files["tls_key"], "can't be used", broken),
    ):
        with pytest.raises(ConfigError, match=told) as failed:
            serve([ONE], port=0, tls_cert=cert, tls_key=secret)
        assert str(named) in str(failed.value)
        assert "PRIVATE KEY" not in str(failed.value)


def test_one_file_alone_is_refused(files: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="one of tls_cert and tls_key"):
        serve([ONE], port=0, tls_cert=files["tls_cert"])


def test_a_certificate_that_goes_bad_stays_as_it_was(files: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    held = Certificate(files["tls_cert"], files["tls_key"])
    files["tls_cert"].write_text("no certificate")
    assert held.refresh() is False
    assert held.refresh() is False
    assert caplog.text.count("the TLS certificate stays as it was") == 1
