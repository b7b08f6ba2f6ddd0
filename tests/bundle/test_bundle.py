"""Bundles: whole versions only, and nothing hostile gets further than a sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save as to_safetensors

from aiaas_sdk import bundle
from aiaas_sdk.bundle import Manifest, SigningKey, Trust, digest_of
from aiaas_sdk.errors import (
    AddressError,
    AiaasError,
    BundleError,
    IntegrityError,
    ModelNotFoundError,
    UnsafeBundleError,
)
from tests.stopwatch import Stopwatch

WEIGHTS = to_safetensors({"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, np.float32)})
NOBODY = Trust(frozenset())


def files(
    version: str, weights: bytes = WEIGHTS, program: bytes | None = None, key: SigningKey | None = None, **changes: Any
) -> dict[str, bytes]:
    beside = {"weights.safetensors": weights} | ({"program.pt2": program} if program is not None else {})
    facts: dict[str, Any] = {"name": "m", "version": version, "inputs": [], "outputs": []}
    facts["program"] = "program.pt2" if program is not None else None
    facts["files"] = {name: digest_of(data) for name, data in beside.items()}
    manifest = json.dumps({"format": 1, **facts, **changes}).encode()
    return {"model.json": manifest, **beside, **({"model.sig": key.sign(manifest)} if key else {})}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    def make(**changes: Any) -> Path:
        return bundle.write(tmp_path / "m", lambda version: files(version, **changes)).folder

    return make


def read(folder: Path, trust: Trust = NOBODY) -> bundle.Bundle:
    return bundle.read(bundle.locate(folder.parent, folder.name), trust)


def test_what_was_written_is_read(make: Callable[..., Path]) -> None:
    found = read(make())
    assert isinstance(found.manifest, Manifest)
    assert bytes(found.weights) == WEIGHTS


def test_versions_are_numbers_and_aliases_move(tmp_path: Path) -> None:
    path = tmp_path / "m"
    for number in (9, 10):
        bundle.write(path, files, number)
    assert bundle.versions(path) == ("9", "10")
    assert bundle.locate(path).version == "10"
    bundle.set_alias(path, "prod", "9")
    assert bundle.locate(path, "prod").version == "9"
    bundle.set_alias(path, "prod", "10")
    assert bundle.locate(path, "prod").version == "10"
    with pytest.raises(BundleError, match="has a version 9"):
        bundle.write(path, files, 9)
    with pytest.raises(ModelNotFoundError, match="it has 9, 10"):
        bundle.locate(path, "3")
    assert bundle.repository(tmp_path) == {"m": path}


@pytest.mark.parametrize("version", ["../x", "1/../1", "-1", "4" * 400, "\0", ""])
def test_what_is_no_version(make: Callable[..., Path], version: str) -> None:
    with pytest.raises(AddressError):
        bundle.locate(make().parent, version)


@pytest.mark.parametrize("cut", [1, 4096, len(WEIGHTS) // 2])
def test_cut_weights_fail_by_digest_and_by_their_header(make: Callable[..., Path], cut: int) -> None:
    folder = make()
    (folder / "weights.safetensors").write_bytes(WEIGHTS[: max(0, len(WEIGHTS) - cut)])
    with pytest.raises(IntegrityError, match="SHA-256"):
        read(folder)
    with pytest.raises(BundleError):
        read(make(weights=WEIGHTS[: max(0, len(WEIGHTS) - cut)]))


def header(entries: Any, body: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(shape: Any, offsets: Any, dtype: str = "U8") -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"1234567",
        (2**63).to_bytes(8, "little"),
        header(b"{"),
        header(b"\xff\xff"),
        header(b"[" * 200_000),
        header(b'{"a":1,"a":2}'),
        header(entry([2], [0, 2]), b"x"),
        header(entry([2], [0, 2]), b"xyz"),
        header(entry([2], [1, 3]), b"xyz"),
        header(entry([-1], [0, 1]), b"x"),
        header(entry([2**40, 2**40], [0, 1]), b"x"),
        header(entry([0, 2**62], [0, 1]), b"x"),
        header(entry([1] * 70, [0, 1]), b"x"),
        header(entry([1], [0, 1], "PY"), b"x"),
        header({**entry([1], [0, 1]), "b": entry([1], [0, 1])["a"]}, b"x"),
    ],
)
def test_weights_that_cannot_be_true_are_refused(make: Callable[..., Path], weights: bytes) -> None:
    with pytest.raises(BundleError):
        read(make(weights=weights))


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"format": 1, "format": 1}',
        b'{"format": NaN}',
        b'{"format": 999}',
        b" " * (2 << 20),
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_a_manifest_that_is_none_is_refused(make: Callable[..., Path], manifest: bytes) -> None:
    folder = make()
    (folder / "model.json").write_bytes(manifest)
    with pytest.raises(BundleError):
        read(folder)


@pytest.mark.parametrize(
    "changes",
    [{"format": 1.5}, {"files": {}}, {"files": {"weights.safetensors": "md5:1"}}, {"surprise": 1}, {"labels": [1]}],
)
def test_a_manifest_that_lies_is_refused(make: Callable[..., Path], changes: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        read(make(**changes))


@pytest.mark.parametrize("name", ["os:system", "builtins:eval", "x.__init__.__globals__", "..evil", "A", ""])
def test_an_architecture_is_a_registered_name_and_no_import_path(make: Callable[..., Path], name: str) -> None:
    with pytest.raises(UnsafeBundleError, match="registered name"):
        read(make(architecture={"name": name, "config": {}}))


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..\\x", "./x", "a\0b", "a/b"])
def test_a_file_is_a_plain_name(make: Callable[..., Path], name: str) -> None:
    with pytest.raises(UnsafeBundleError, match="plain file name"):
        read(make(files={name: "sha256:" + "0" * 64}))


def test_links_fifos_and_strangers_are_refused_at_once(make: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(WEIGHTS)
    for swap in (
        lambda p: p.symlink_to(tmp_path / "elsewhere"),
        os.mkfifo,
        lambda p: p.symlink_to("/dev/zero"),
        os.mkdir,
    ):
        folder = make()
        (folder / "weights.safetensors").unlink()
        swap(folder / "weights.safetensors")
        watch = Stopwatch()
        with pytest.raises(UnsafeBundleError):
            read(folder)
        assert watch.took() < 1
    folder = make()
    (folder / "extra.py").write_text("")
    with pytest.raises(IntegrityError, match=r"extra\.py"):
        read(folder)


@pytest.mark.parametrize("data", [b"\x80\x04.", b"\x93NUMPY\x01\x00", b"PK\x03\x04"])
def test_a_pickle_under_any_name_is_refused(make: Callable[..., Path], data: bytes) -> None:
    listed = {"weights.safetensors": digest_of(WEIGHTS), "notes.txt": digest_of(data)}
    folder = make(files=listed)
    (folder / "notes.txt").write_bytes(data)
    with pytest.raises(UnsafeBundleError, match="pickle"):
        read(folder)


def test_a_program_runs_only_for_a_trusted_signer(make: Callable[..., Path]) -> None:
    own, stranger = bundle.own_key(), SigningKey(os.urandom(32))
    with pytest.raises(UnsafeBundleError, match="nobody signed"):
        read(make(program=b"code"), Trust.of(True))
    with pytest.raises(UnsafeBundleError, match="whom you don't trust") as caught:
        read(make(program=b"code", key=stranger), Trust.of(True))
    assert stranger.public in str(caught.value)
    assert read(make(program=b"code", key=stranger), Trust.of([stranger.public])).program == b"code"
    assert read(make(program=b"code", key=own), Trust.of(True)).program == b"code"
    with pytest.raises(UnsafeBundleError):
        read(make(program=b"code", key=own), Trust.of(False))


def test_a_manifest_of_another_version_is_an_integrity_error(make: Callable[..., Path]) -> None:
    folder = make()
    folder.rename(folder.with_name("7"))
    with pytest.raises(IntegrityError, match="version 1"):
        read(folder.with_name("7"))


def test_a_signature_of_another_manifest_is_an_integrity_error(make: Callable[..., Path]) -> None:
    folder = make()
    (folder / "model.sig").write_bytes(bundle.own_key().sign(b"another"))
    with pytest.raises(IntegrityError, match="signature"):
        read(folder)


def test_the_key_is_the_users_alone_and_never_shown() -> None:
    key = bundle.own_key()
    assert bundle.own_key().public == key.public
    from aiaas_sdk.bundle.signing import home

    assert (home() / "signing.key").stat().st_mode & 0o077 == 0
    assert repr(key) == "SigningKey(***)"


def test_two_writers_get_two_numbers(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        written = [*threads.map(lambda _: bundle.write(tmp_path / "m", files).version, range(16))]
    assert sorted(map(int, written)) == [*range(1, 17)]
    for version in written:
        read(tmp_path / "m" / version)


def test_a_full_disk_leaves_the_old_version_and_no_rubbish(make: Callable[..., Path]) -> None:
    folder = make()

    def no_room(version: str) -> dict[str, bytes]:
        raise OSError(28, "No space left on device")

    with pytest.raises(BundleError, match="No space left"):
        bundle.write(folder.parent, no_room)
    assert [path.name for path in folder.parent.iterdir()] == ["1"]
    read(folder)


SAVER = """
import sys; sys.path.insert(0, sys.argv[2])
from pathlib import Path
from aiaas_sdk import bundle
from test_bundle import files
print("on", flush=True)
for _ in range(10_000):
    bundle.write(Path(sys.argv[1]), files)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_whole_versions_only(tmp_path: Path) -> None:
    path = tmp_path / "m"
    for turn in range(6):
        command = [sys.executable, "-c", SAVER, str(path), str(Path(__file__).parent)]
        saver = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert saver.stdout is not None
        saver.stdout.readline()
        time.sleep(0.05 + 0.013 * turn)
        saver.send_signal(signal.SIGKILL)
        saver.wait(10)
        saver.stdout.close()
        for version in bundle.versions(path):
            read(path / version)
    assert len(bundle.versions(path)) > 1


def test_every_refusal_is_one_of_ours(make: Callable[..., Path]) -> None:
    folder = make()
    data = bytearray((folder / "model.json").read_bytes())
    rng = np.random.default_rng(7)
    for _ in range(300):
        bent = bytearray(data)
        bent[rng.integers(0, len(bent))] = rng.integers(0, 256)
        (folder / "model.json").write_bytes(bent)
        try:
            read(folder)
        except AiaasError:
            continue
