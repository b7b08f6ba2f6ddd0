"""What people ran into with other tools, on models and plugins: R57, R61, R63 to R66 of the field cases.

Others of that section stand where what they test does: R59 in `tests/backends/test_torch.py`.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk import registry
from aiaas_sdk.bundle import SigningKey, digest_of
from aiaas_sdk.errors import AiaasError

torch = pytest.importorskip("torch")
ROW = np.ones((1, 4), np.float32)
WEIGHTS = "weights.safetensors"


class Bomb:
    """What writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.open, (str(self._path), os.O_CREAT)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The file that a bomb writes."""
    return tmp_path / "written"


# ---------------------------------------------------------------- R57: pickles within a program
class Sums(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.constant = torch.tensor([1.0, 2.0, 3.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.constant


def armed(program: bytes, part: str, bomb: Bomb) -> bytes:
    """The program with a pickle among its weights or constants, or in place of its sample inputs."""
    packed = io.BytesIO()
    torch.save(bomb, packed)
    source, made = zipfile.ZipFile(io.BytesIO(program)), io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as target:
        for entry in source.infolist():
            data = source.read(entry)
            if part == "sample_inputs" and "/data/sample_inputs/" in entry.filename:
                data = packed.getvalue()
            elif f"/data/{part}/" in entry.filename and entry.filename.endswith("_config.json"):
                data = data.replace(b'"use_pickle": false', b'"use_pickle": true')
                assert b'"use_pickle": true' in data
            elif f"/data/{part}/" in entry.filename:
                data = packed.getvalue()
            target.writestr(entry.filename, data)
    return made.getvalue()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The folder of a saved version, whose computation is an exported program. It is exported once: that takes time."""
    folder = tmp_path / "m" / "1"
    if not _saved:
        aiaas.save(Sums(), folder.parent, example=ROW)
        _saved.update({path.name: path.read_bytes() for path in folder.iterdir()})
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in _saved.items():
        (folder / name).write_bytes(data)
    return folder


_saved: dict[str, bytes] = {}


def put(folder: Path, name: str, data: bytes, key: SigningKey | None) -> None:
    """Write a file of a bundle, put its digest right, and sign it with a key, or not at all."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "model.json").read_bytes())
    manifest["files"][name] = digest_of(data)
    told = json.dumps(manifest).encode()
    (folder / "model.json").write_bytes(told)
    (folder / "model.sig").unlink(missing_ok=True)
    if key is not None:
        (folder / "model.sig").write_bytes(key.sign(told))


@pytest.mark.parametrize("signed", ["unsigned", "signed by a stranger"])
@pytest.mark.parametrize("part", ["weights", "constants", "sample_inputs"])
def test_r57_a_pickle_in_a_program_isnt_unpickled(
    load: Any, bundle: Path, written: Path, part: str, signed: str
) -> None:
    program = armed((bundle / "program.pt2").read_bytes(), part, Bomb(written))
    key = SigningKey(os.urandom(32)) if signed != "unsigned" else None
    put(bundle, "program.pt2", program, key)
    why = "whom you don't trust" if key else "nobody signed"
    for options in ({}, {"device": "cpu"}, {"verify": True}, {"verify": [SigningKey(os.urandom(32)).public]}):
        with pytest.raises(aiaas.UnsafeBundleError, match=why), load(bundle.parent, **options) as model:
            model.predict(ROW)
    assert not written.exists()


@pytest.mark.parametrize("part", ["weights", "constants"])
def test_r57_those_pickles_are_real(bundle: Path, written: Path, part: str) -> None:
    """Whom one trusts may run code: that is what the signature is for."""
    key = SigningKey(os.urandom(32))
    put(bundle, "program.pt2", armed((bundle / "program.pt2").read_bytes(), part, Bomb(written)), key)
    with suppress(AiaasError), aiaas.load(bundle.parent, verify=[key.public]) as model:
        model.predict(ROW)
    assert written.exists()


# ---------------------------------------------------------------- R61: weights that were cut
@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The folder of a version of a registered architecture, which needs no signature; its weights are over a page."""
    aiaas.create(f"torch:{tmp_path / 'p'}", architecture="mlp", config={"features": 64, "classes": 10})
    folder = tmp_path / "p" / "1"
    assert (folder / WEIGHTS).stat().st_size > 2 * 4096
    return folder


@pytest.mark.parametrize("digests", ["stale digests", "right digests"])
@pytest.mark.parametrize("cut", ["1 byte", "a page", "half"])
def test_r61_weights_that_were_cut_are_refused(load: Any, plain: Path, cut: str, digests: str) -> None:
    whole = (plain / WEIGHTS).read_bytes()
    data = whole[: -{"1 byte": 1, "a page": 4096, "half": len(whole) // 2}[cut]]
    (plain / WEIGHTS).write_bytes(data)
    kind: type[AiaasError] = aiaas.IntegrityError
    if digests == "right digests":
        put(plain, WEIGHTS, data, None)
        kind = aiaas.BundleError
    with pytest.raises(kind, match=WEIGHTS), load(plain.parent) as model:
        model.info()


def with_header(weights: bytes, size: int) -> bytes:
    """The same weights with a header of so many bytes: JSON may be followed by blanks."""
    length = int.from_bytes(weights[:8], "little")
    return size.to_bytes(8, "little") + weights[8 : 8 + length].ljust(size) + weights[8 + length :]


@pytest.mark.parametrize("size", [100_000, 99_999, 100_001])
def test_r61_a_header_may_have_any_length_and_is_still_checked(load: Any, plain: Path, size: int) -> None:
    whole = (plain / WEIGHTS).read_bytes()
    x = np.ones((2, 64), np.float32)
    with load(plain.parent) as model:
        right = model.predict(x).array
    put(plain, WEIGHTS, with_header(whole, size), None)
    with load(plain.parent) as model:
        assert np.array_equal(model.predict(x).array, right)
    put(plain, WEIGHTS, with_header(whole, size)[:-1], None)
    with pytest.raises(aiaas.BundleError, match=WEIGHTS), load(plain.parent) as model:
        model.info()


# ---------------------------------------------------------------- R63: plugins that fail at import
FAILING = {
    "raises": "raise RuntimeError('no licence')",
    "exits": "import os; os._exit(3)",
    "sleeps": "import time; time.sleep(3600)",
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Installs a distribution aiaas-NAME whose module NAME_plugin serves the scheme NAME; gives its folder."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def install(name: str, code: str) -> Path:
        info = folder / f"aiaas_{name}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: aiaas-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[aiaas_sdk.backends]\n{name} = {name}_plugin\n")
        (folder / f"{name}_plugin.py").write_text(code)
        return folder

    yield install
    for name in [name for name in sys.modules if name.endswith("_plugin")]:
        del sys.modules[name]


def test_r63_a_plugin_that_fails_at_import_harms_nobody_else(install: Callable[[str, str], Path]) -> None:
    """In another process, which one of them would end and another stop."""
    for name, code in FAILING.items():
        folder = install(name, code)
    program = """
import aiaas_sdk as aiaas
for scheme in ("raises", "exits", "sleeps"):
    found = aiaas.available_backends()[scheme]
    assert (found.distribution, found.state) == (f"aiaas-{scheme}", "ready"), found
try:
    aiaas.load("raises:x")
except aiaas.PluginLoadError as error:
    assert "aiaas-raises" in str(error) and "no licence" in str(error), error
assert aiaas.available_backends()["raises"].state == "broken: RuntimeError: no licence"
assert aiaas.load("echo:?x=FP32[1]").predict([1.0]).array.tolist() == [1.0]
"""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    commands = (["-c", program], ["-m", "aiaas_sdk.cli", "--version"], ["-m", "aiaas_sdk.cli", "backends"])
    for command in commands:
        done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr[-2000:]
    for name in FAILING:
        assert f"aiaas-{name}" in done.stdout


# ---------------------------------------------------------------- R64: what registration runs
PROPERTIES = '''
import socket
from aiaas_sdk.backends.echo import EchoBackend
from aiaas_sdk.hookspecs import hookimpl

RAN = []


class Own(EchoBackend):
    @property
    def licence(self):
        RAN.append("licence")
        raise RuntimeError("no licence")

    @property
    def peer(self):
        RAN.append("peer")
        return socket.create_connection(("127.0.0.1", {port}), 5)


class Plugin:
    """An entry point may name an object, too, whose properties are its own affair."""

    @property
    def licence(self):
        RAN.append("licence")
        raise RuntimeError("no licence")

    @property
    def peer(self):
        RAN.append("peer")
        return socket.create_connection(("127.0.0.1", {port}), 5)

    @hookimpl
    def aiaas_backend(self, scheme):
        return Own


plugin = Plugin()


@hookimpl
def aiaas_backend(scheme):
    return Own
'''


@pytest.mark.parametrize("named", ["module", "object"])
def test_r64_registration_runs_no_property(load: Any, install: Callable[[str, str], Path], named: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        name = f"proper{named}"
        folder = install(name, PROPERTIES.replace("{port}", str(listening.getsockname()[1])))
        if named == "object":
            points = folder / f"aiaas_{name}-1.0.dist-info" / "entry_points.txt"
            points.write_text(f"[aiaas_sdk.backends]\n{name} = {name}_plugin:plugin\n")
        with load(f"{name}:?x=FP32[1]") as model:
            assert model.predict([1.0]).array.tolist() == [1.0]
        assert registry.available_backends()[name].state == "ready"
        assert sys.modules[f"{name}_plugin"].RAN == []
        with pytest.raises(TimeoutError):
            listening.accept()


# ---------------------------------------------------------------- R65: the true cause, and a second try
def test_r65_an_import_error_of_something_else_is_told_and_not_kept(
    load: Any, install: Callable[[str, str], Path]
) -> None:
    good = (
        "from aiaas_sdk.backends.echo import EchoBackend\nfrom aiaas_sdk.hookspecs import hookimpl\n\n"
        "@hookimpl\ndef aiaas_backend(scheme):\n    return EchoBackend\n"
    )
    folder = install("mended", "from helping import nothing_like_this\n" + good)
    (folder / "helping.py").write_text("import missing_library\n")
    with pytest.raises(aiaas.PluginLoadError) as caught, load("mended:") as model:
        model.info()
    assert "aiaas-mended" in str(caught.value)
    assert "No module named 'missing_library'" in str(caught.value)
    assert not isinstance(caught.value, aiaas.BackendNotInstalledError)  # it is there
    assert "pip install" not in str(caught.value)
    assert registry.available_backends()["mended"].state.startswith("broken: ModuleNotFoundError")
    (folder / "missing_library.py").write_text("")
    (folder / "helping.py").write_text("import missing_library\nnothing_like_this = 1\n# mended\n")
    for name in ("helping", "missing_library"):
        sys.modules.pop(name, None)
    with load("mended:?x=FP32[1]") as model:
        assert model.predict([1.0]).array.tolist() == [1.0]
    assert registry.available_backends()["mended"].state == "ready"
    for name in ("helping", "missing_library"):
        sys.modules.pop(name, None)


class _Guarded(BaseHTTPRequestHandler):
    """A model of the Open Inference Protocol for whoever has the key "right"."""

    def do_GET(self) -> None:
        fine = self.headers["authorization"] == "Bearer right"
        told: Any = {"error": "who are you"}
        if fine:
            told = {"name": "m", "versions": ["1"], "platform": "test", "inputs": [], "outputs": [], "extensions": []}
        body = json.dumps(told).encode()
        self.send_response(200 if fine else 401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def guarded() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Guarded) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(5)


@pytest.mark.parametrize("given", ["text", "variable", "settings"])
def test_r65_a_bad_credential_isnt_kept(
    load: Any, guarded: str, given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = f"{guarded}/v2/models/m"
    monkeypatch.setenv("AIAAS_HOME", str(tmp_path))

    def opened(key: str) -> str:
        options: dict[str, Any] = {"timeout": 5, "retry": None}
        if given == "text":
            options["api_key"] = key
        elif given == "variable":
            monkeypatch.setenv("GUARDED_KEY", key)
            options["api_key"] = aiaas.env("GUARDED_KEY")
        else:
            own = Path(os.environ["AIAAS_HOME"]) / "aiaas.toml"
            own.write_text(f'[credentials."{guarded}"]\napi_key = "{key}"\n')
            own.chmod(0o600)
        with load(address, **options) as model:
            return str(model.info().name)

    for _ in range(2):
        with pytest.raises(aiaas.AuthenticationError):
            opened("wrong")
        assert opened("right") == "m"


# ---------------------------------------------------------------- R66: pickle by another door
def zip_bomb() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("archive/data.pkl", b"\0" * 50_000_000)
    return made.getvalue()


def objects(bomb: Bomb) -> bytes:
    made = io.BytesIO()
    np.save(made, np.array([bomb], object), allow_pickle=True)
    return made.getvalue()


def checkpoint(bomb: Bomb) -> bytes:
    made = io.BytesIO()
    torch.save({"w": bomb}, made)
    return made.getvalue()


DOORS: dict[str, Callable[[Bomb], bytes]] = {
    "x.pt": checkpoint,
    "x.pkl": pickle.dumps,
    "x.npy": objects,
    "x.zip": lambda bomb: zip_bomb(),
}


@pytest.mark.parametrize("door", DOORS)
def test_r66_no_door_lets_a_pickle_in(load: Any, plain: Path, written: Path, tmp_path: Path, door: str) -> None:
    data = DOORS[door](Bomb(written))
    own = (plain / WEIGHTS).read_bytes()
    put(plain, WEIGHTS, data, None)  # in place of the weights
    with pytest.raises(aiaas.BundleError), load(plain.parent) as model:
        model.info()
    put(plain, WEIGHTS, own, None)
    put(plain, door, data, None)  # beside them
    with pytest.raises(aiaas.BundleError), load(plain.parent) as model:
        model.info()
    (tmp_path / door).write_bytes(data)  # and by itself
    with pytest.raises(AiaasError), load(f"torch:{tmp_path / door}") as model:
        model.info()
    assert not written.exists()


def test_r66_no_name_of_a_manifest_is_imported_or_followed(
    load: Any, plain: Path, written: Path, install: Callable[[str, str], Path], tmp_path: Path
) -> None:
    install("evil", f"open({str(written)!r}, 'w').close()\nclass Model: pass\n")
    put(plain, WEIGHTS, (plain / WEIGHTS).read_bytes(), None)
    whole = json.loads((plain / "model.json").read_bytes())
    (tmp_path / "outside").write_bytes((plain / WEIGHTS).read_bytes())
    config = whole["architecture"]["config"]
    for change in (
        {"architecture": {"name": "evil_plugin:Model", "config": config}},
        {"architecture": {"name": "evil_plugin.Model", "config": config}},
        {"architecture": {"name": "os:system", "config": {"command": f"touch {written}"}}},
        {"files": {"../outside": digest_of((tmp_path / "outside").read_bytes()), **whole["files"]}},
        {"files": {str(tmp_path / "outside"): digest_of((tmp_path / "outside").read_bytes()), **whole["files"]}},
    ):
        (plain / "model.json").write_text(json.dumps({**whole, **change}))
        with pytest.raises(aiaas.UnsafeBundleError), load(plain.parent) as model:
            model.info()
    (plain / "model.json").write_text(json.dumps(whole))
    (plain / WEIGHTS).unlink()
    (plain / WEIGHTS).symlink_to(tmp_path / "outside")
    with pytest.raises(aiaas.UnsafeBundleError), load(plain.parent) as model:
        model.info()
    assert not written.exists()
    assert "evil_plugin" not in sys.modules


def test_r66_a_class_given_by_name_in_settings_or_options_isnt_imported(load: Any, plain: Path) -> None:
    with pytest.raises(AiaasError), load(plain.parent, architecture="os:system") as model:
        model.info()
