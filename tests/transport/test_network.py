"""`Network`: what it takes and refuses, how it comes from files and options to the connections of a model."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk import Network
from tests.stopwatch import Stopwatch
from tests.transport.conftest import taken
from tests.transport.test_tls import certificate, serving

ONES = np.ones((1, 3), np.float32)
DATA = {"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [2.0, 2.0, 2.0]}
MODEL = {
    "name": "double",
    "versions": ["1"],
    "platform": "test",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
}


def double(connection: socket.socket) -> None:
    """A model whose answer is always twos, by the Open Inference Protocol."""
    while request := taken(connection):
        line = request.split(b"\r\n")[0]
        if line.startswith(b"POST"):
            asked = json.loads(request.partition(b"\r\n\r\n")[2])
            answer: Any = {"model_name": "double", "id": asked["id"], "outputs": [DATA]}
        else:
            answer = MODEL if b"/models/" in line else {"name": "test", "version": "1", "extensions": []}
        body = json.dumps(answer).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


def address(one: Any) -> str:
    return f"{one.url}v2/models/double"


def twos(model: Any) -> bool:
    return bool((model.predict(ONES)["y"] == 2).all())


# ---------------------------------------------------------------- the record
def test_nothing_is_set_by_default_and_records_are_values() -> None:
    assert Network() == Network(ca=None, proxy=None, http2=False, connections=None)
    assert hash(Network(connections=4)) == hash(Network(connections=4)) != hash(Network(connections=5))
    with pytest.raises(AttributeError):
        Network().connections = 3  # type: ignore[misc]


def test_paths_are_absolute_at_once(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert Network(ca="ca.pem").ca == str(tmp_path / "ca.pem")
    assert Network(ca=Path("a") / ".." / "b.pem").ca == str(tmp_path / "b.pem")
    assert Network(unix_socket="~/s").unix_socket == "/home/me/s"


def test_a_proxys_password_is_never_shown() -> None:
    assert "secret" not in repr(Network(proxy="http://user:secret@proxy:3128"))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"ca": 3}, "ca is a path"),
        ({"ca": ""}, "ca is a path"),
        ({"ca": b"ca.pem"}, "ca is a path"),
        ({"key": "key.pem"}, "without certificate"),
        ({"proxy": " "}, "proxy is an address"),
        ({"proxy": 3128}, "proxy is an address"),
        ({"http2": 1}, "http2 is True or False"),
        ({"connections": 0}, "connections is 0"),
        ({"connections": True}, "connections is True"),
        ({"connections": 2.0}, "connections is 2.0"),
        ({"unix_socket": "s", "proxy": "http://p:1"}, "exclude each other"),
        ({"transport": object(), "http2": True}, "http2 has to be said to it"),
        ({"transport": object(), "ca": "ca.pem"}, "ca has to be said to it"),
    ],
)
def test_what_cannot_be_is_refused_in_words(fields: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Network(**fields)


def test_there_is_no_field_that_turns_verification_off() -> None:
    """N04."""
    fields = set(Network.__dataclass_fields__)
    assert fields == {"ca", "certificate", "key", "proxy", "http2", "unix_socket", "transport", "connections"}


# ---------------------------------------------------------------- an option of load
def test_a_model_is_reached_as_the_option_says(load: Any, server: Any, tmp_path: Path) -> None:
    file = certificate(tmp_path)
    one = server(double, serving(file))
    with load(address(one), network=Network(ca=file)) as model:
        assert twos(model)


def test_each_member_of_a_route_has_the_same_option_and_its_own_connections(load: Any, server: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = f"http://127.0.0.1:{listener.getsockname()[1]}/v2/models/double"
    one = server(double)
    with load([dead, address(one), "echo:"], network=Network(connections=1), retry=None) as model:
        assert twos(model)


def test_a_view_with_another_network_makes_its_own_connections(load: Any, server: Any, tmp_path: Path) -> None:
    file = certificate(tmp_path)
    one = server(double, serving(file))
    model = load(address(one), retry=None)
    with pytest.raises(aiaas.TLSError):
        model.predict(ONES)
    with model.with_options(network=Network(ca=file)) as view:
        assert twos(view)
    model.close()


def test_a_model_that_is_here_has_no_use_for_it(load: Any) -> None:
    with pytest.raises(aiaas.UnsupportedOperationError, match="network"):
        load("echo:", network=Network())


def refused(load: Any, network: Any) -> str:
    with pytest.raises(aiaas.ConfigError) as caught:
        load("https://127.0.0.1:9/v2/models/m", network=network)
    return str(caught.value)


def test_r78_loading_many_models_reads_the_files_once(load: Any, tmp_path: Path) -> None:
    file = certificate(tmp_path)
    network = Network(ca=file, certificate=file, http2=True, proxy="http://127.0.0.1:9")
    load("https://127.0.0.1:9/v2/models/m", network=network).close()
    watch = Stopwatch()
    for _ in range(200):
        load("https://127.0.0.1:9/v2/models/m", network=network).close()
    assert watch.took().ours / 200 < 0.01


def test_something_else_is_refused(load: Any) -> None:
    assert "Network" in refused(load, {"ca": "ca.pem"})


@pytest.mark.parametrize("field", ["ca", "certificate"])
@pytest.mark.parametrize("content", [None, b"no certificate", Path])
def test_a_file_that_cannot_be_used_is_named_by_load(load: Any, tmp_path: Path, field: str, content: Any) -> None:
    file = tmp_path / "file.pem"
    if content is Path:
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    told = refused(load, Network(**{field: file}))
    assert f"network.{field}" in told
    assert str(file) in told


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named_by_load(load: Any, tmp_path: Path) -> None:
    file = certificate(tmp_path)
    file.chmod(0)
    assert "Permission denied" in refused(load, Network(ca=file))


def test_a_key_that_is_missing_or_anothers_or_locked_is_told(load: Any, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    file, key = certificate(tmp_path), tmp_path / "key.pem"
    assert str(key) in refused(load, Network(certificate=file, key=key))
    made = ec.generate_private_key(ec.SECP256R1())
    for locked in (False, True):
        how = serialization.BestAvailableEncryption(b"pass") if locked else serialization.NoEncryption()
        key.write_bytes(made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how))
        told = refused(load, Network(certificate=file, key=key))
        assert ("passphrase" if locked else "another certificate's") in told


@pytest.mark.parametrize("proxy", ["ftp://user:secret@p:1", "http://", "http://user:secret@p:port"])
def test_a_proxy_that_is_none_is_told_by_load_and_not_repeated(load: Any, proxy: str) -> None:
    told = refused(load, Network(proxy=proxy))
    assert "network.proxy" in told
    assert "secret" not in told


def test_packages_that_are_missing_are_told_by_load(load: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    assert "socks" in refused(load, Network(proxy="socks5://p:1"))
    monkeypatch.setattr("aiaas_sdk.transport.borrowed.find_spec", lambda name: None)
    assert 'pip install "aiaas-sdk[http2]"' in refused(load, Network(http2=True))


# ---------------------------------------------------------------- aiaas.toml
Written = Callable[[str], Path]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: Any) -> Written:
    """Writes the file that AIAAS_CONFIG names, in a folder of its own."""

    def write(text: str) -> Path:
        folder = tmp_path / "settings"
        folder.mkdir(exist_ok=True)
        (folder / "mine.toml").write_text(text)
        monkeypatch.setenv("AIAAS_CONFIG", str(folder / "mine.toml"))
        return folder

    return write


def test_r79_a_private_authority_by_settings_relative_to_their_file(
    load: Any, server: Any, tmp_path: Path, written: Written
) -> None:
    file = certificate(tmp_path)
    one = server(double, serving(file))
    text = f'[models.x]\naddress = "{address(one)}"\n[models.x.network]\nca = "ca.pem"\nconnections = 2\nproxy = "none"'
    folder = written(text)
    (folder / "ca.pem").write_bytes(file.read_bytes())
    with load("x") as model:
        assert twos(model)


def test_a_missing_file_concerns_only_who_loads_its_model(load: Any, server: Any, written: Written) -> None:
    one = server(double)
    text = (
        f'[models]\ny = "{address(one)}"\n[models.x]\naddress = "https://h/v2/models/m"\nnetwork = {{ ca = "ca.pem" }}'
    )
    folder = written(text)
    with load("y") as model:
        assert twos(model)
    with pytest.raises(aiaas.ConfigError) as caught:
        load("x")
    assert str(folder / "ca.pem") in str(caught.value)


def test_the_word_none_of_a_proxy_is_kept_and_elsewhere_means_nothing(written: Written) -> None:
    from aiaas_sdk.settings import read

    written(
        '[models.x]\naddress = "https://h/v2/models/m"\nnetwork = { proxy = "none", ca = "none", connections = "none" }'
    )
    assert read().resolve("x").options["network"] == Network(proxy="none")


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{ verify = false }", "network.verify"),
        ('{ connections = "4" }', "network.connections"),
        ("{ connections = 0 }", "connections is 0"),
        ("{ transport = 3 }", "network.transport can't be given here"),
        ('{ key = "key.pem" }', "without certificate"),
    ],
)
def test_a_wrong_entry_is_told_with_its_place(load: Any, written: Written, entry: str, told: str) -> None:
    written(f'[models.x]\naddress = "https://h/v2/models/m"\nnetwork = {entry}')
    with pytest.raises(aiaas.ConfigError, match=r"mine\.toml \[models\]") as caught:
        load("x")
    assert told in str(caught.value)


@pytest.mark.parametrize("field", ["ca", "certificate", "key", "proxy", "unix_socket"])
@pytest.mark.parametrize("where", ["models.x", "defaults", "profiles.p.defaults"])
def test_k05_a_working_folders_file_sends_nobody_elsewhere(
    load: Any, tmp_path: Path, monkeypatch: Any, field: str, where: str
) -> None:
    """A stranger's authority and proxy together would read the user's key on its way."""
    monkeypatch.chdir(tmp_path)
    start = '[models.x]\naddress = "https://h/v2/models/m"\n' if where == "models.x" else ""
    (tmp_path / "aiaas.toml").write_text(f'{start}[{where}.network]\n{field} = "x"')
    with pytest.raises(aiaas.ConfigError, match=f"network.{field} isn't read from a working folder"):
        load("https://h/v2/models/m")


def test_a_working_folders_file_may_say_how_many_connections(load: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "aiaas.toml").write_text("[defaults.limits]\nconnections = 2")
    load("https://h/v2/models/m").close()
