"""Several models in less memory than all of them take."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.server.hosting import Hosting
from aiaas_sdk.server.serving import Serving
from tests.server.bundles import ask, meanwhile, save
from tests.server.conftest import Client
from tests.stopwatch import Stopwatch

SIZE = 100_000
"""Parameters of a model, 4 bytes each."""
ONE = 500_000
"""Bytes: room for one model, and not for two."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        save(tmp_path / "models" / name, size=SIZE)
    return tmp_path / "models"


def loaded(client: Client) -> list[str]:
    rows = client("POST", "/v2/repository/index", {"ready": True}).document
    return [row["name"] for row in rows]


def test_models_take_turns_in_the_memory_that_there_is(folder: Path, serving: Any) -> None:
    client = serving(str(folder), memory=2 * ONE)
    assert client("GET", "/v2/health/ready").status == 200
    for name in ("a", "b", "c", "a", "c", "b", "b"):
        assert client("GET", f"/v2/models/{name}/ready").status == 200
        assert ask(client, name).document["outputs"][0]["data"] == [1.0]
        assert name in loaded(client)
        assert len(loaded(client)) <= 2
    assert ask(client, "a").status == 200
    assert loaded(client) == ["a", "b"]  # c was used the longest ago


def test_what_is_in_use_is_not_closed(folder: Path, serving: Any) -> None:
    client = serving(str(folder), memory=ONE)
    begun = time.monotonic()
    with meanwhile(client, "a", seconds=0.6) as answers:
        assert ask(client, "b").status == 200  # it waits for its turn
        assert time.monotonic() - begun > 0.55
    assert answers[0].status == 200


def test_who_cant_wait_for_room_is_told_so_in_time(folder: Path, serving: Any) -> None:
    client = serving(str(folder), memory=ONE)
    with meanwhile(client, "a", seconds=1.0):
        watch = Stopwatch()
        assert ask(client, "b", timeout=200).status == 504
        assert watch.took() < 0.6
    assert ask(client, "b").status == 200


async def test_a_model_in_use_keeps_its_callers_for_a_while(folder: Path) -> None:
    hosting = Hosting([str(folder)], Serving(memory=ONE))
    async with hosting.named("a").held():
        waiting = asyncio.ensure_future(_call(hosting, "b"))
        await asyncio.sleep(0.2)
        assert (hosting.named("a").loaded, hosting.named("b").loaded) == ({"1"}, set())
    await waiting
    assert (hosting.named("a").loaded, hosting.named("b").loaded) == (set(), {"1"})
    await hosting.close()


@pytest.mark.slow
async def test_a_model_that_is_never_idle_lets_others_have_their_turn(folder: Path) -> None:
    hosting = Hosting([str(folder)], Serving(memory=ONE))
    ended = asyncio.Event()
    calls = 0

    async def busy(after: float) -> None:
        nonlocal calls
        await asyncio.sleep(after)
        while not ended.is_set():
            async with hosting.named("a").held():
                calls += 1
                await asyncio.sleep(0.2)

    crowd = [asyncio.ensure_future(busy(after)) for after in (0.0, 0.1)]  # one of them holds it always
    await asyncio.sleep(0.3)
    async with asyncio.timeout(8):
        await _call(hosting, "b")
    before = calls
    await asyncio.sleep(0.8)
    assert calls > before  # and the first has its own again
    ended.set()
    await asyncio.gather(*crowd)
    await hosting.close()


async def _call(hosting: Hosting, name: str) -> None:
    async with hosting.named(name).held():
        await asyncio.sleep(0.01)


def test_a_model_that_can_never_fit_is_told_at_the_start(folder: Path) -> None:
    with (
        pytest.raises(aiaas.ConfigError, match=r"model '[abc]' takes 40\d{4} bytes.*may take 300000"),
        serve_in_thread([str(folder)], memory=300_000),
    ):
        pass


async def test_a_new_version_makes_the_old_one_give_room(folder: Path) -> None:
    hosting = Hosting([str(folder / "a")], Serving(memory=ONE))
    await hosting.open()
    save(folder / "a", size=SIZE)
    await hosting.look()
    async with hosting.named("a").held() as held:
        assert held.info.version == "2"
    assert hosting.memory.used < ONE
    await hosting.close()


async def test_callers_share_one_opening_and_may_leave_it(folder: Path) -> None:
    hosting = Hosting([str(folder)], Serving(memory=ONE))
    hosted = hosting.named("a")

    async def call(seconds: float | None) -> None:
        async with hosted.held(None, seconds):
            await asyncio.sleep(0.01)

    outcomes = await asyncio.gather(*map(call, (None, 0.0001, None, 30.0)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), aiaas.DeadlineExceededError, type(None), type(None)]
    [opened] = hosted._shelf.opened.values()
    assert (opened.users, opened.idle) == (0, True)
    await hosting.close()
    assert hosting.memory.used == 0
