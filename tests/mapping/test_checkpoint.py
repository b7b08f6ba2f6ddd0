"""A `map` that was ended goes on where it stopped."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

import aiaas_sdk as aiaas
from aiaas_sdk.mapping.journal import MAGIC, START
from tests.stopwatch import unhurried

ROOT = Path(__file__).parent.parent.parent
FAILS = {37.0, 60.0}


def rows(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32).reshape(count, 1)


def values(found: Any) -> list[float]:
    return [answer["y"].item() for answer in found]


def doubled(count: int) -> list[float]:
    return [2.0 * row for row in range(count)]


def asked(peer: Any) -> list[float]:
    """The rows that were asked since the last time, in order."""
    found = sorted(row for call in peer.asked for row in call)
    peer.asked.clear()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers"


# ---------------------------------------------------------------- going on
@pytest.mark.parametrize(("first", "second"), [(8, 8), (8, 3), (3, 100)])
def test_what_was_answered_is_not_asked_again(load: Any, peer: Any, path: Path, first: int, second: int) -> None:
    found = load(peer.url).map(rows(100), batch_size=first, concurrency=3, checkpoint=path)
    given = [next(found)["y"].item() for _ in range(20)]
    found.close()
    assert given == doubled(20)
    time.sleep(0.05)
    before = asked(peer)
    assert set(range(20)) <= set(before)
    assert values(load(peer.url).map(rows(100), batch_size=second, checkpoint=path)) == doubled(100)
    again = asked(peer)
    assert not set(range(20)) & set(again)
    assert set(before) | set(again) == set(range(100))
    assert len(again) == len(set(again))


def test_a_run_that_was_whole_gives_everything_without_a_call(load: Any, peer: Any, path: Path) -> None:
    model = load(peer.url)
    whole = list(model.map(rows(50), batch_size=8, checkpoint=str(path)))
    asked(peer)
    again = list(model.map(rows(50), batch_size=5, checkpoint=path))
    assert peer.asked == []
    assert values(again) == values(whole) == doubled(50)
    facts = [(a.model, a.version, a.backend, a.attempts, a.request_id, a.timing) for a in whole]
    assert [(a.model, a.version, a.backend, a.attempts, a.request_id, a.timing) for a in again] == facts
    assert pickle.loads(pickle.dumps(again[3]))["y"].item() == 6
    assert values(model.map(rows(53), checkpoint=path)) == doubled(53)  # a source that grew
    assert asked(peer) == [50, 51, 52]


def test_errors_are_not_kept(load: Any, peer: Any, path: Path) -> None:
    peer.refuse = lambda rows: 500 if FAILS & set(rows) else None
    model = load(peer.url)
    found = list(model.map(rows(100), batch_size=8, on_error="return", checkpoint=path))
    assert [answer.row for answer in found if isinstance(answer, aiaas.AiaasError)] == [37, 60]
    asked(peer)
    assert len(list(model.map(rows(100), on_error="skip", checkpoint=path))) == 98
    assert asked(peer) == []
    peer.refuse = lambda rows: None
    assert values(model.map(rows(100), checkpoint=path)) == doubled(100)
    assert asked(peer) == [37, 60]


def test_the_first_error_ends_a_run_and_the_next_one_goes_on(load: Any, peer: Any, path: Path) -> None:
    peer.refuse = lambda rows: 500 if 37.0 in rows else None
    model, seen = load(peer.url), []
    found = model.map(rows(100), batch_size=8, checkpoint=path)
    with pytest.raises(aiaas.ModelError, match="row 37"):
        seen.extend(answer["y"].item() for answer in found)
    assert seen == doubled(37)
    time.sleep(0.1)
    before = asked(peer)
    peer.refuse = lambda rows: None
    assert values(model.map(rows(100), batch_size=8, checkpoint=path)) == doubled(100)
    assert not set(range(37)) & set(asked(peer))
    assert set(range(37)) <= set(before)


def test_awaited_rows_go_on_too(peer: Any, path: Path) -> None:
    async def source() -> AsyncIterator[np.ndarray]:
        for row in rows(60):
            await asyncio.sleep(0)
            yield row

    async def main() -> None:
        async with aiaas.load_async(peer.url) as model:
            given = 0
            found = model.map(source(), batch_size=4, checkpoint=path)
            async for _ in found:
                given += 1
                if given == 30:
                    break
            await found.aclose()  # type: ignore[attr-defined]
            asked(peer)
            answers = [answer["y"].item() async for answer in model.map(source(), batch_size=7, checkpoint=path)]
            assert answers == doubled(60)
            assert not set(range(30)) & set(asked(peer))

    asyncio.run(main())


# ---------------------------------------------------------------- what is kept
KINDS: dict[str, Any] = {
    "BOOL": np.array([[True, False], [False, True]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT64": np.array([[-(2**63), 2**63 - 1]], np.int64),
    "FP16": np.array([[0.5, np.inf, np.nan]], np.float16),
    "FP32": np.array([[1e-45, -0.0, np.nan]], np.float32),
    "FP64": np.array([[5e-324, np.pi]], np.float64),
    "BF16": np.array([[1.0, -2.5, np.inf]], np.float32),
    "BYTES": np.array([[b"", b"\x00\xff", "täxt".encode()]], object),
}


@pytest.mark.parametrize("datatype", KINDS)
def test_each_datatype_comes_back_as_it_was(load: Any, path: Path, datatype: str) -> None:
    x = np.concatenate([KINDS[datatype]] * 3)
    model = load(f"echo:?x={datatype}[-1,-1]")
    first = list(model.map(x, batch_size=2, checkpoint=path))
    calls = model.stats().calls
    again = list(model.map(x, batch_size=3, checkpoint=path))
    assert model.stats().calls == calls
    for one, other, given in zip(first, again, x, strict=True):
        assert one["x"].dtype == other["x"].dtype
        assert one["x"].tolist() == other["x"].tolist() or np.array_equal(one["x"], other["x"], equal_nan=True)
        assert np.array_equal(other["x"], given, equal_nan=given.dtype.kind == "f")
        other["x"][...] = other["x"]  # as any answer, it can be written to


def test_the_shapes_of_rows_may_differ(load: Any, path: Path) -> None:
    ragged = [np.full(size, size, np.float32) for size in (2, 2, 5, 0, 2)]
    model = load("echo:?x=FP32[-1,-1]")
    for _ in range(2):
        assert [a.array.shape for a in model.map(ragged, checkpoint=path)] == [(2,), (2,), (5,), (0,), (2,)]
    assert model.stats().calls == 4


def test_several_inputs_and_numbers_for_rows(load: Any, path: Path) -> None:
    columns = {"a": np.arange(10), "b": np.arange(10) / 2}
    model = load("echo:?a=INT64[-1]&b=FP64[-1]")
    for _ in range(2):
        assert [(a["a"], a["b"]) for a in model.map(columns, batch_size=4, checkpoint=path)] == [
            (n, n / 2) for n in range(10)
        ]
    assert model.stats().calls == 3


def test_torch_rows_give_torch_answers(load: Any, path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = load("echo:?x=BF16[-1,3]")
    x = torch.arange(30, dtype=torch.bfloat16).reshape(10, 3)
    for _ in range(2):
        found = [answer["x"] for answer in model.map(x, batch_size=4, checkpoint=path)]
        assert torch.equal(torch.stack(found), x)
    assert model.stats().calls == 3
    numbers = [answer["x"] for answer in model.map(x.float().numpy(), checkpoint=path)]
    assert np.array_equal(np.stack(numbers), x.float().numpy())


class Thing(BaseModel):
    x: float


class Other(BaseModel):
    y: float


def test_records_go_on_too(load: Any, peer: Any, path: Path) -> None:
    things = [Thing(x=number) for number in range(30)]
    for _ in range(2):
        found = list(load(peer.url, input=Thing, output=Other).map(things, batch_size=4, checkpoint=path))
        assert found == [Other(y=2 * number) for number in range(30)]
    assert sorted(row for call in peer.asked for row in call) == [float(number) for number in range(30)]


def test_progress_counts_what_was_kept(
    load: Any, peer: Any, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load(peer.url)
    list(model.map(rows(10), checkpoint=path))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    list(model.map(rows(10), checkpoint=path, progress=True))
    assert "10 of 10 rows, 0 rows/s" in capsys.readouterr().err


# ---------------------------------------------------------------- what isn't the same
def left(path: Path, load: Any, peer: Any, message: str, source: Any = None, **options: Any) -> None:
    """The run is refused, and the file is as it was."""
    before = path.read_bytes()
    with pytest.raises(aiaas.ConfigError, match=message):
        list(load(options.pop("url", peer.url)).map(rows(20) if source is None else source, checkpoint=path, **options))
    assert path.read_bytes() == before


def test_another_model_is_refused(load: Any, peer: Any, path: Path) -> None:
    list(load(peer.url).map(rows(20), checkpoint=path))
    left(path, load, peer, 'address "http.*double" then, "echo:', url="echo:?x=FP32[-1,1]")
    peer.version = "2"
    left(path, load, peer, 'version "1" then, "2" now')


def test_another_signature_is_refused(load: Any, peer: Any, path: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    for features in (2, 3):
        aiaas.create(
            f"torch:{tmp_path / str(features) / 'm'}", architecture="mlp", config={"features": features, "classes": 2}
        )
    (tmp_path / "m").symlink_to(tmp_path / "2" / "m")
    with load(str(tmp_path / "m")) as model:
        list(model.map(np.zeros((5, 2), np.float32), checkpoint=path))
    (tmp_path / "m").unlink()
    (tmp_path / "m").symlink_to(tmp_path / "3" / "m")
    with load(str(tmp_path / "m")) as model, pytest.raises(aiaas.ConfigError) as caught:
        list(model.map(np.zeros((5, 3), np.float32), checkpoint=path))
    assert "FP32 [-1, 2]" in str(caught.value)
    assert "FP32 [-1, 3]" in str(caught.value)
    assert "digest" in str(caught.value)


def test_other_rows_are_refused_by_name(load: Any, peer: Any, path: Path) -> None:
    model = load(peer.url)
    list(model.map(rows(20), batch_size=4, checkpoint=path))
    other = rows(20)
    other[7] = 70
    before, seen = path.read_bytes(), []
    asked(peer)
    found = model.map(other, batch_size=3, checkpoint=path, on_error="skip")
    with pytest.raises(aiaas.ConfigError, match="row 7") as caught:
        seen.extend(answer["y"].item() for answer in found)
    assert caught.value.row == 7
    assert len(seen) >= 4
    assert seen == doubled(len(seen))
    assert path.read_bytes() == before
    left(path, load, peer, "row 0", rows(20)[::-1])
    left(path, load, peer, "row 0", [[0.0, 0.0]])  # no row of this model at all
    assert asked(peer) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x" * 100, "no checkpoint of map"),
        (b"PK\x03\x04", "no checkpoint of map"),
        (MAGIC + b"\x02\x00\x00\x00" + b"x" * 50, "has format 2; this version knows 1"),
    ],
)
def test_a_file_of_something_else_is_left_alone(load: Any, peer: Any, path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    left(path, load, peer, message)


def test_what_can_not_be_a_file_is_told(load: Any, peer: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place, message in (
        (tmp_path, "directory"),
        (tmp_path / "not there" / "answers", "No such file"),
        (tmp_path / "pipe", "no plain file"),
    ):
        with pytest.raises(aiaas.ConfigError, match=message):
            list(load(peer.url).map(rows(2), checkpoint=place))


def test_two_runs_do_not_share_a_file(load: Any, peer: Any, path: Path) -> None:
    model = load(peer.url)
    first = model.map(rows(50), batch_size=1, checkpoint=path)
    next(first)
    with pytest.raises(aiaas.ConfigError, match="in use by another run"):
        list(model.map(rows(50), checkpoint=path))
    script = "import sys, aiaas_sdk as a; list(a.load(sys.argv[1]).map([[0.0]], checkpoint=sys.argv[2]))"
    done = subprocess.run(
        [sys.executable, "-c", script, peer.url, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "in use by another run" in done.stderr
    assert values(first) == doubled(50)[1:]
    assert values(model.map(rows(50), checkpoint=path)) == doubled(50)


FULL = """
import resource, sys, numpy as np
import aiaas_sdk as aiaas

model, path = aiaas.load(sys.argv[1]), sys.argv[2]
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
try:
    list(model.map(np.arange(200, dtype=np.float32).reshape(200, 1), batch_size=4, on_error="skip", checkpoint=path))
except aiaas.ConfigError as error:
    print(error)
"""


def test_a_full_disk_ends_the_run_whatever_becomes_of_errors(peer: Any, path: Path) -> None:
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", FULL, peer.url, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert f"the checkpoint {path} can't be written: File too large" in done.stdout, done.stderr
    before = asked(peer)
    with aiaas.load(peer.url) as model:
        assert values(model.map(rows(200), batch_size=4, checkpoint=path)) == doubled(200)
    assert 200 - len(before) <= len(asked(peer)) < 190  # what was written is good


# ---------------------------------------------------------------- an end at any moment
@pytest.mark.slow
def test_it_may_end_after_any_byte(load: Any, path: Path) -> None:
    x = rows(12)
    address = "echo:?x=FP32[-1,1]"
    list(load(address).map(x, batch_size=4, checkpoint=path))
    whole = path.read_bytes()
    model = load(address)
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        calls = model.stats().calls
        assert [answer["x"].item() for answer in model.map(x, batch_size=4, checkpoint=path)] == x.ravel().tolist()
        assert path.read_bytes()[: len(START)] == START
        assert model.stats().calls - calls <= 3
        calls = model.stats().calls
        list(model.map(x, checkpoint=path))
        assert model.stats().calls == calls


@pytest.mark.parametrize("damage", ["zeros", "flipped", "garbage behind"])
def test_a_tail_that_is_no_record_is_cut_off(
    load: Any, path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    x, address = rows(12), "echo:?x=FP32[-1,1]"
    list(load(address).map(x, batch_size=4, checkpoint=path))
    data = bytearray(path.read_bytes())
    if damage == "zeros":
        data[-50:] = bytes(50)
    elif damage == "flipped":
        data[-5] ^= 1
    else:
        data += bytes(1000)
    path.write_bytes(data)
    model = load(address)
    for calls in (0 if damage == "garbage behind" else 1, 0):
        before = model.stats().calls
        assert [answer["x"].item() for answer in model.map(x, batch_size=4, checkpoint=path)] == x.ravel().tolist()
        assert model.stats().calls - before == calls
    list(model.map(rows(13)[12:], checkpoint=path.with_name("other")))
    told = [record.getMessage() for record in caplog.records]
    assert [str(path) in message for message in told] == [True] * (2 if damage == "garbage behind" else 1)


KILLED = """
import asyncio, sys, numpy as np
import aiaas_sdk as aiaas

face, url, path, count = sys.argv[1:]
rows = (np.array([number], np.float32) for number in range(int(count)))
options = dict(batch_size=3, concurrency=4, checkpoint=path)

def tell(answer):
    print(answer["y"].item(), flush=True)

if face == "sync":
    for answer in aiaas.load(url).map(rows, **options):
        tell(answer)
else:
    async def main():
        async for answer in aiaas.load_async(url).map(rows, **options):
            tell(answer)
    asyncio.run(main())
print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_run_that_is_killed_at_any_moment_goes_on(peer: Any, path: Path, face: str) -> None:
    count, chance = 400, random.Random(face)
    peer.delay = 0.01
    seen: set[float] = set()
    command = [sys.executable, "-c", KILLED, face, peer.url, str(path), str(count)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for calls in (*(chance.randrange(25) for _ in range(5)), None):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        if calls is not None:
            wait_for(lambda: len(peer.asked) >= calls or process.poll() is not None)  # noqa: B023
            time.sleep(chance.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
        lines = process.communicate(timeout=60)[0].splitlines()
        wait_for(lambda: peer.now == 0)
        given = [float(line) for line in lines if line.endswith(".0")]
        assert given == doubled(count)[: len(given)]
        assert not seen & set(asked(peer)), "a row whose answer had been given was asked again"
        seen |= {value / 2 for value in given}
    assert lines[-1] == "done"
    assert given == doubled(count)


def wait_for(there: Any) -> None:
    end = time.monotonic() + 30
    while not there():
        assert time.monotonic() < end
        time.sleep(0.002)


LEFT = """
import asyncio, sys, time
import aiaas_sdk as aiaas

face, url, path = sys.argv[1:]
options = dict(batch_size=1, concurrency=4, checkpoint=path)
rows = ([float(number)] for number in range(1000))
model = (aiaas.load if face == "sync" else aiaas.load_async)(url)
answers = None

async def main():
    global answers
    answers = model.map(rows, **options)
    print((await anext(answers))["y"].item())

if face == "sync":
    answers = model.map(rows, **options)
    print(next(answers)["y"].item())
else:
    asyncio.run(main())
print(time.time(), flush=True)
"""


@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_script_ends_at_once_with_a_half_done_run(peer: Any, path: Path, face: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", LEFT, face, peer.url, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    ended = time.time()
    assert (done.returncode, unhurried(done.stderr)) == (0, "")
    assert ended - float(done.stdout.split()[1]) < 5
    with aiaas.load(peer.url) as model:
        assert values(model.map(rows(20), checkpoint=path)) == doubled(20)


SLOW_DISK = """
import time
from aiaas_sdk.mapping.journal import Journal

def write(self, parts, quick=Journal._write, sleep=time.sleep):
    quick(self, parts)
    sleep(0.3)

Journal._write = write
"""
LEFT_ON_A_SLOW_DISK = """
import slow_disk, sys
import aiaas_sdk as aiaas

model = aiaas.load("echo:?x=FP32[-1,1]")
answers = model.map(([float(number)] for number in range(1000)), batch_size=1, concurrency=4, checkpoint=sys.argv[1])
print(next(answers)["x"].item())
"""


def test_a_slow_disk_holds_the_end_of_a_script_up_and_no_longer(path: Path) -> None:
    """A thread that is stopped within a write, as daemons are at exit, would keep the file's lock for ever."""
    path.with_name("slow_disk.py").write_text(SLOW_DISK)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", LEFT_ON_A_SLOW_DISK, str(path)],
        env={**os.environ, "PYTHONPATH": f"{path.parent}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, unhurried(done.stderr), done.stdout) == (0, "", "0.0\n")


GROWN = """
import resource, sys, numpy as np
import aiaas_sdk as aiaas

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

model = aiaas.load("echo:?x=FP32[-1,1024]")
rows = (np.full(1024, number, np.float32) for number in range(40))
list(model.map(rows, batch_size=16, checkpoint=sys.argv[2]))
before = peak()
for number, answer in enumerate(
    model.map((np.full(1024, number, np.float32) for number in range(40_000)), batch_size=16, checkpoint=sys.argv[1])
):
    assert answer["x"][5] == number
print(peak() - before, model.stats().calls)
"""


@pytest.mark.slow
def test_a_large_file_takes_little_memory(path: Path) -> None:
    pytest.importorskip("resource")
    command = [sys.executable, "-c", GROWN, str(path), str(path.with_name("small"))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for calls in (3 + 2500, 3):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        grown, made = done.stdout.split()
        assert int(made) in (calls, calls - 3)
        assert path.stat().st_size > 160_000_000
        assert float(grown) < 40  # MiB
