"""Faults that an attack on a running server found: odd folders, memory at the start, races of unloading."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from aiaas_sdk.errors import AddressError
from aiaas_sdk.server.hosting import Hosting
from aiaas_sdk.server.serving import Serving
from tests.server.bundles import save
from tests.server.conftest import Client

LISTS = (
    ("GET", "/v2/models"),
    ("GET", "/v1/models"),
    ("POST", "/v2/repository/index"),
    ("GET", "/v2/models/stats"),
    ("GET", "/metrics"),
    ("GET", "/overview"),
    ("GET", "/openapi.json"),
)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are text")
def test_a_folder_whose_name_is_no_text_spoils_no_list(tmp_path: Path, serving: Callable[..., Client]) -> None:
    folder = tmp_path / "models"
    save(folder / "good")
    ask = serving(str(folder), watch=0.05)
    odd = os.fsencode(folder) + b"/b\xffd"
    shutil.copytree(os.fsencode(folder / "good"), odd)
    save(folder / "later")
    end = time.monotonic() + 10
    while "later" not in ask("GET", "/v2/models").document["models"] and time.monotonic() < end:
        time.sleep(0.05)
    assert ask("GET", "/v2/models").document["models"] == ["good", "later"]
    for method, path in LISTS:
        assert ask(method, path).status == 200, path
    with pytest.raises(AddressError, match="can't be the name"):
        Hosting([str(folder)], Serving())


def test_no_path_is_told_where_a_model_is_gone(
    tmp_path: Path, serving: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address can be written in many ways, and the one that is hidden isn't the one in the message."""
    save(tmp_path / "secret" / "place")
    monkeypatch.chdir(tmp_path)
    ask = serving("z=torch:./secret/../secret//place/", watch=None, management=True)
    shutil.rmtree(tmp_path / "secret")
    answer = ask("POST", "/v2/repository/models/z/load")
    assert answer.status == 404
    assert "secret" not in answer.error


async def test_the_start_keeps_to_the_memory_that_there_is(tmp_path: Path) -> None:
    """Several are opened at once, and none of them is there yet to make room for the others."""
    for name in "abcd":
        save(tmp_path / name, size=100_000)  # 400 kB each
    hosting = Hosting([str(tmp_path)], Serving(memory=500_000))
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, hosting.memory.used)
            await asyncio.sleep(0)

    watching = asyncio.ensure_future(watch())
    try:
        await hosting.open()
        assert all(hosted.info is not None for hosted in hosting.models.values())
        assert 400_000 <= most <= 500_000
    finally:
        watching.cancel()
        await hosting.close()


@pytest.mark.parametrize("asked", [True, False])
async def test_a_model_that_is_unloaded_while_it_is_opened_is_closed(tmp_path: Path, asked: bool) -> None:
    """It was opened for a call that may still be answered, or for the start; nobody gets it after that."""
    save(tmp_path / "one")
    hosting = Hosting([str(tmp_path)], Serving())
    one = hosting.models["one"]
    try:
        opening = asyncio.ensure_future(one.entered(None) if asked else one.opened())
        await asyncio.sleep(0)
        await one.unload()
        opened = await opening
        if asked:
            opened.leave()  # type: ignore[union-attr]
        assert not one.loaded
        assert hosting.memory.used == 0
        await one.load()
        assert one.loaded == {"1"}
    finally:
        await hosting.close()


async def test_what_is_known_of_versions_goes_with_their_files(tmp_path: Path) -> None:
    """A model that is trained each hour has thousands of them in a year."""
    save(tmp_path / "one")
    hosting = Hosting([str(tmp_path)], Serving())
    one = hosting.models["one"]
    try:
        await hosting.open()
        for version in range(2, 6):
            save(tmp_path / "one")
            broken = tmp_path / "one" / str(10 * version)
            broken.mkdir()
            await one.look()
            shutil.rmtree(broken)
            shutil.rmtree(tmp_path / "one" / str(version - 1))
        for _ in range(2):  # the last version that could be opened is served until now
            await one.look()
        assert one.loaded == {"5"}
        assert [key for key in one._shelf.infos if key is not None] == ["5"]
        assert not one._shelf.failures
        assert not one._shelf._last
        assert not one._reported
    finally:
        await hosting.close()


async def test_asking_whether_a_version_is_ready_opens_it_once(tmp_path: Path) -> None:
    """A GET that no limit counts could have versions opened and closed for ever."""
    for _ in range(2):
        save(tmp_path / "one")
    hosting = Hosting([str(tmp_path)], Serving())
    one = hosting.models["one"]
    try:
        await hosting.open()
        assert await one.ready("1")
        assert one.loaded == {"1", "2"}
        one._shelf.retire("1")
        assert await one.ready("1")
        assert one.loaded == {"2"}
        async with one.held("1") as held:
            assert held.info.version == "1"
    finally:
        await hosting.close()
