"""Files that strangers wrote, a disk that refuses, others at work meanwhile: D01 to D16, beside test_bundle.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk import bundle
from aiaas_sdk.architectures.mlp import MLP
from aiaas_sdk.bundle import SigningKey, digest_of, weights
from aiaas_sdk.errors import AiaasError, BundleError, IntegrityError, UnsafeBundleError
from tests.stopwatch import Stopwatch

torch = pytest.importorskip("torch")
X = np.ones((1, 4), np.float32)
WEIGHTS = "weights.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "m"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIAAS_HOME", str(folder.parent / "home"))
        aiaas.create(f"torch:{folder}", architecture="mlp", config={"features": 4, "classes": 3}).close()
    return folder


@pytest.fixture
def path(saved: Path, tmp_path: Path) -> Path:
    """A bundle with one version, which anybody may have written: nobody signed it."""
    shutil.copytree(saved, tmp_path / "m")
    (tmp_path / "m" / "1" / "model.sig").unlink(missing_ok=True)
    return tmp_path / "m"


def put(folder: Path, name: str, data: bytes) -> None:
    """A file of a version, and its digest put right."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "model.json").read_bytes())
    manifest["files"][name] = digest_of(data)
    (folder / "model.json").write_text(json.dumps(manifest))


def refused(address: Any, kind: type[AiaasError] = BundleError) -> str:
    watch = Stopwatch()
    with pytest.raises(kind) as caught, aiaas.load(address) as model:
        model.info()
    assert watch.took() < 1
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1500
    return str(caught.value)


# ---------------------------------------------------------------- the file of aliases (D08, D09)
ALIASES: dict[str, bytes] = {
    "a way out": b'{"prod": "../../x\\u001b[31m"}',
    "no version": b'{"prod": "' + b"9" * 100_000 + b'"}',
    "a number": b'{"prod": 1}',
    "deep": b"[" * 200_000,
    "digits": b'{"prod": ' + b"9" * 5000 + b"}",
    "twice": b'{"prod": "1", "prod": "2"}',
    "a list": b"[]",
    "large": b" " * (2 << 20) + b'{"prod": "1"}',
    "no text": b"\xff\xfe",
}


@pytest.mark.parametrize("data", ALIASES.values(), ids=ALIASES.keys())
def test_d09_aliases_that_are_none_are_refused(path: Path, data: bytes) -> None:
    (path / "aliases.json").write_bytes(data)
    assert "aliases.json" in refused(f"torch:{path}@prod")
    with aiaas.load(path) as model:  # who asks for none is served
        assert model.info().version == "1"


@pytest.mark.parametrize("kind", ["pipe", "link", "device", "itself", "folder"])
def test_d08_aliases_are_read_from_a_plain_file_only(path: Path, kind: str) -> None:
    file = path / "aliases.json"
    (path.parent / "elsewhere").write_text('{"prod": "1"}')
    make: dict[str, Callable[[], Any]] = {
        "pipe": lambda: os.mkfifo(file),
        "link": lambda: file.symlink_to(path.parent / "elsewhere"),
        "device": lambda: file.symlink_to("/dev/zero"),
        "itself": lambda: file.symlink_to(file),
        "folder": file.mkdir,
    }
    make[kind]()
    refused(f"torch:{path}@prod", UnsafeBundleError)


@pytest.mark.parametrize("name", ["model.json", "model.sig", WEIGHTS])
@pytest.mark.parametrize("kind", ["pipe", "device", "itself", "folder"])
def test_d08_so_is_each_file_of_a_version(path: Path, name: str, kind: str) -> None:
    file = path / "1" / name
    file.unlink(missing_ok=True)
    make: dict[str, Callable[[], Any]] = {
        "pipe": lambda: os.mkfifo(file),
        "device": lambda: file.symlink_to("/dev/zero"),
        "itself": lambda: file.symlink_to(file),
        "folder": file.mkdir,
    }
    make[kind]()
    refused(path, UnsafeBundleError)


# ---------------------------------------------------------------- weights (D01, D02), digests (D04)
def of(offsets: list[int], shape: list[int] | None = None) -> bytes:
    entry = {"a": {"dtype": "U8", "shape": [1] if shape is None else shape, "data_offsets": offsets}}
    head = json.dumps(entry).encode()
    return len(head).to_bytes(8, "little") + head + b"x"


@pytest.mark.parametrize(
    "data",
    [of([0, 2**62]), of([0, 2**62], [2**62]), of([2**62, 2**62 + 1]), of([-1, 0]), of([1, 0]), of([0, 10**400])],
    ids=["2^62", "2^62 of them", "begins past the end", "negative", "backwards", "400 digits"],
)
def test_d02_offsets_past_the_end_are_refused(path: Path, data: bytes) -> None:
    put(path / "1", WEIGHTS, data)
    assert WEIGHTS in refused(path)


def test_d01_a_header_of_101_mb_is_refused() -> None:
    size = 101_000_000
    with pytest.raises(BundleError, match="announces a header"):
        weights.check(bytearray(size.to_bytes(8, "little").ljust(size + 8)), WEIGHTS)


NO_MEMORY = """
import resource, sys
from pathlib import Path
from aiaas_sdk import bundle
from aiaas_sdk.errors import BundleError
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
try:
    bundle.read(bundle.locate(Path(sys.argv[1])), bundle.Trust.of(False))
except BundleError as error:
    print(error.message)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_d01_weights_for_which_there_is_no_memory_are_refused(path: Path) -> None:
    """A file may claim more than it has on the disk."""
    os.truncate(path / "1" / WEIGHTS, 1 << 40)
    command = [sys.executable, "-c", NO_MEMORY, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "for which there is no memory" in done.stdout, done.stderr[-2000:]


WRONG: dict[str, Callable[[str], Any]] = {
    "none": lambda right: None,
    "empty": lambda right: "",
    "short": lambda right: right[:-1],
    "long": lambda right: right + "0",
    "upper case": lambda right: "sha256:" + right[7:].upper(),
    "name in upper case": lambda right: right.replace("sha256", "SHA256"),
    "md5": lambda right: "md5:" + right[7:39],
    "sha1": lambda right: "sha1:" + right[7:47],
    "no name": lambda right: right[7:],
    "a line more": lambda right: right + "\n",
    "a number": lambda right: 7,
    "another": lambda right: "sha256:" + "0" * 64,
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_d04_a_digest_is_sha256_in_64_digits(path: Path, change: Callable[[str], Any]) -> None:
    file = path / "1" / "model.json"
    manifest = json.loads(file.read_bytes())
    manifest["files"][WEIGHTS] = change(manifest["files"][WEIGHTS])
    file.write_text(json.dumps(manifest))
    refused(path)


def test_d04_the_file_that_isnt_listed_or_isnt_there_is_named(path: Path) -> None:
    (path / "1" / ".hidden").write_text("")
    assert ".hidden" in refused(path, IntegrityError)
    (path / "1" / ".hidden").unlink()
    put(path / "1", "more", b"x")
    (path / "1" / "more").unlink()
    assert "more is missing" in refused(path)


def test_d05_a_signature_of_another_manifest_is_refused_whoever_is_trusted(path: Path) -> None:
    key = SigningKey(os.urandom(32))
    (path / "1" / "model.sig").write_bytes(key.sign(b"another manifest"))
    for verify in (True, False, [key.public]):
        with pytest.raises(IntegrityError, match="signature"), aiaas.load(path, verify=verify) as model:
            model.info()


# ---------------------------------------------------------------- places (D12)
PLACES = ["m@../../x", "m@1/../1", "m@-1", "m@" + "9" * 400, "m@\0", "m@", "", "x" * 5000, "a/" * 3000, "loop", "pipe"]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: repr(place[:12]))
def test_d12_a_place_that_is_none_is_told(
    load: Any, path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for address in (place, f"torch:{place}"):
        with (
            pytest.raises((aiaas.AddressError, BundleError, aiaas.ModelNotFoundError)) as caught,
            load(address) as model,
        ):
            model.info()
        assert len(str(caught.value)) < 7000
    if place in ("loop", "pipe", "x" * 5000):
        with pytest.raises(BundleError):
            aiaas.save(MLP(4, 2), tmp_path / place, example=X)


# ---------------------------------------------------------------- a disk that refuses (D13)
FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
import aiaas_sdk as aiaas
from aiaas_sdk import bundle
from aiaas_sdk.architectures.mlp import MLP

path, x = Path(sys.argv[1]), np.ones((1, 64), np.float32)
module = MLP(64, 64)
aiaas.save(module, path / "old", example=x)
bundle.set_alias(path / "old", "prod", "1")
before = sorted(path.rglob("*"))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
told = []
for limit, do in (
    (4096, lambda: aiaas.save(module, path / "old", example=x)),
    (4096, lambda: aiaas.save(module, path / "new", example=x)),
    (4096, lambda: aiaas.create(f"torch:{path / 'made'}", architecture="mlp", config={"features": 64, "classes": 64})),
    (5, lambda: bundle.set_alias(path / "old", "next", "1")),
):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        do()
    except aiaas.BundleError as error:
        told.append("File too large" in error.message and isinstance(error.__cause__, OSError))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert sorted(path.rglob("*")) == before, sorted(path.rglob("*"))
assert bundle.aliases(path / "old") == {"prod": "1"}
with aiaas.load(f"torch:{path / 'old'}@prod") as model:
    model.predict(x)
print(told)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are POSIX's")
def test_d13_a_file_that_may_not_become_so_large_leaves_all_as_it_was(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == str([True] * 4), done.stderr[-3000:]


# ---------------------------------------------------------------- others at work (D06, D07, D15, D16)
class Constant(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Gives its one number, whatever it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: Any) -> Any:
        return 0 * x + self.value


@pytest.fixture
def constants(tmp_path: Path) -> Callable[[int], None]:
    """Saves the version N of a bundle, which gives N."""
    aiaas.architecture("hostile-constant")(Constant)

    def save(number: int) -> None:
        module = Constant()
        module.value.data.fill_(number)
        aiaas.save(module, tmp_path / "c", example=X, architecture="hostile-constant", version=number)

    return save


@pytest.fixture
def meanwhile() -> Iterator[Callable[[Callable[[int], None]], None]]:
    """Does something again and again, a thousand times at most, until the test ends."""
    ended, threads = threading.Event(), list[threading.Thread]()

    def start(do: Callable[[int], None]) -> None:
        def again() -> None:
            for turn in range(1000):
                if ended.is_set():
                    return
                do(turn)

        threads.append(threading.Thread(target=again))
        threads[-1].start()

    yield start
    ended.set()
    for thread in threads:
        thread.join()


def said(address: str) -> tuple[str, float]:
    with aiaas.load(address) as model:
        prediction = model.predict(X)
        return prediction.version or "", float(prediction.array[0, 0])


def test_d15_d16_what_is_loaded_is_one_whole_version_whoever_saves_and_moves_aliases(
    tmp_path: Path, constants: Callable[[int], None], meanwhile: Any
) -> None:
    for number in (1, 2):
        constants(number)
    bundle.set_alias(tmp_path / "c", "prod", "1")
    meanwhile(lambda turn: bundle.set_alias(tmp_path / "c", "prod", str(1 + turn % 2)))
    meanwhile(lambda turn: constants(turn + 3))
    found = [said(f"torch:{tmp_path / 'c'}{end}") for _ in range(60) for end in ("", "@prod")]
    assert all(float(version) == value for version, value in found)
    assert {version for version, _ in found[1::2]} == {"1", "2"}
    assert found[-2][1] > 2


def test_d06_what_was_checked_is_what_is_loaded(
    tmp_path: Path, constants: Callable[[int], None], meanwhile: Any
) -> None:
    constants(1)
    file = tmp_path / "c" / "1" / WEIGHTS
    good = file.read_bytes()
    evil = good[:-4] + np.float32(666).tobytes()

    def swap(turn: int) -> None:
        (tmp_path / "aside").write_bytes(evil if turn % 2 else good)
        os.replace(tmp_path / "aside", file)

    meanwhile(swap)
    values, refusals = set(), 0
    for _ in range(100):
        try:
            values.add(said(f"torch:{tmp_path / 'c'}")[1])
        except IntegrityError:
            refusals += 1
    assert values <= {1.0}
    assert refusals


def test_d07_an_open_model_stays_what_it_was_whatever_becomes_of_its_files(
    tmp_path: Path, constants: Callable[[int], None]
) -> None:
    constants(1)
    with aiaas.load(tmp_path / "c") as model:
        model.info()
        os.truncate(tmp_path / "c" / "1" / WEIGHTS, 0)
        assert model.predict(X).array[0, 0] == 1
        shutil.rmtree(tmp_path / "c")
        assert model.predict(X).array[0, 0] == 1
