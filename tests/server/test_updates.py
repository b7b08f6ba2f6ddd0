"""Versions that come, go, fail and die while the server runs."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from aiaas_sdk.bundle import set_alias
from aiaas_sdk.server.hosting import Hosted, Hosting
from aiaas_sdk.server.serving import Serving
from tests.server.bundles import ask, meanwhile, save, until
from tests.server.conftest import Client

WATCH = 0.05


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of bundles with one, `m`, in one version."""
    save(tmp_path / "models" / "m")
    return tmp_path / "models"


@pytest.fixture
def start(folder: Path, serving: Callable[..., Client]) -> Callable[..., Client]:
    return lambda *targets, **options: serving(*(targets or (str(folder),)), watch=WATCH, **options)


def served(client: Client, path: str = "m") -> str:
    """The version that answers, whose answer must be its own."""
    answer = ask(client, path)
    assert answer.status == 200, answer.body
    document = answer.document
    assert document["outputs"][0]["data"] == [float(document["model_version"])]
    return str(document["model_version"])


def index(client: Client) -> dict[str, tuple[str, str | None]]:
    rows = client("POST", "/v2/repository/index").document
    return {f"{row['name']}@{row.get('version')}": (row["state"], row.get("reason")) for row in rows}


def spoiled(folder: Path) -> bytes:
    """Make the next version of a bundle, with damaged weights, in one step; its good weights."""
    aside = folder.parent.parent / "aside"
    shutil.copytree(folder, aside / folder.name, dirs_exist_ok=True) if folder.exists() else None
    version = save(aside / folder.name)
    weights = aside / folder.name / version / "weights.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    if folder.exists():
        (aside / folder.name / version).rename(folder / version)
    else:
        (aside / folder.name).rename(folder)
    return good


# ---------------------------------------------------------------- new versions
@pytest.mark.slow
def test_no_request_is_lost_while_versions_change(folder: Path, start: Any) -> None:
    client = start()
    ended = threading.Event()
    seen: list[list[int]] = []
    failures: list[BaseException] = []

    def call() -> None:
        mine, found = Client(client.url), list[int]()
        seen.append(found)
        try:
            while not ended.is_set():
                found.append(int(served(mine)))
        except BaseException as error:
            failures.append(error)
        finally:
            mine.connection.close()

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for expected in range(2, 7):
        assert save(folder / "m") == str(expected)
        until(lambda expected=expected: served(client) == str(expected))  # type: ignore[misc]
    ended.set()
    for thread in threads:
        thread.join()
    assert not failures
    for found in seen:
        assert found == sorted(found)  # nobody goes back to an old version
        assert found[-1] >= 5
        assert len(found) > 20
    states = index(client)
    assert states["m@6"] == ("READY", None)
    assert states["m@1"] == ("UNAVAILABLE", "opened when asked for")  # it gave its memory back


def test_a_call_in_flight_ends_on_the_version_that_it_began_with(folder: Path, start: Any) -> None:
    client = start()
    for seconds in (1.0, 5.0, 25.0):  # so long that a new version is there before its end, also on a slow machine
        before = served(client)
        with meanwhile(client, seconds=seconds) as answers:
            new = save(folder / "m")
            until(lambda new=new: index(client).get(f"m@{new}") == ("READY", None))
            assert served(client) == new
            under_way = not answers
        if under_way:
            break
    assert under_way
    assert answers[0].status == 200
    assert answers[0].document["model_version"] == before
    assert answers[0].document["outputs"][0]["data"] == [float(before)]


async def test_a_version_is_closed_after_its_last_call(folder: Path) -> None:
    hosting = Hosting([str(folder)])
    await hosting.open()
    hosted = hosting.named("m")
    async with hosted.held() as held:
        save(folder / "m")
        await hosting.look()
        assert hosted.info is not None
        assert hosted.info.version == "2"
        assert (held.info.version, await held.model.ready()) == ("1", True)
        old = held.model
    await _turns()
    with pytest.raises(Exception, match="closed"):
        await old.ready()
    await hosting.close()


async def _turns() -> None:
    import asyncio

    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("target", ["{}/m", "m=torch:{}/m", "torch:{}/m"])
def test_a_bundle_of_its_own_is_watched_too(folder: Path, start: Any, target: str) -> None:
    client = start(target.format(folder))
    save(folder / "m")
    until(lambda: served(client) == "2")
    assert client("GET", "/v2/models/m").document["versions"] == ["1", "2"]


def test_a_pinned_version_stays(folder: Path, start: Any) -> None:
    client = start(f"torch:{folder}/m@1")
    save(folder / "m")
    time.sleep(4 * WATCH)
    assert served(client) == "1"
    assert ask(client, "m/versions/2").status == 404


def test_without_watching_nothing_changes(folder: Path, serving: Any) -> None:
    client = serving(str(folder), watch=None)
    save(folder / "m")
    time.sleep(0.2)
    assert served(client) == "1"


# ---------------------------------------------------------------- versions that can't be opened
def test_a_broken_version_leaves_the_old_one_serving(
    folder: Path, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "aiaas_sdk.server")
    client = start()
    spoiled(folder / "m")
    until(lambda: index(client).get("m@2", ("", ""))[0] == "UNAVAILABLE")
    time.sleep(6 * WATCH)
    assert index(client)["m@1"] == ("READY", None)
    reason = index(client)["m@2"][1]
    assert reason
    assert str(folder) not in reason
    assert served(client) == "1"
    assert client("GET", "/v2/health/ready").status == 200
    assert client("GET", "/v2/models/m").document["versions"] == ["1"]
    assert ask(client, "m/versions/2").status == 503
    told = [record.getMessage() for record in caplog.records if "can't be opened" in record.getMessage()]
    assert len(told) == 1  # not at each look
    assert "version 2" in told[0]
    assert "SHA-256" in told[0]
    save(folder / "m")
    until(lambda: served(client) == "3")


def test_a_version_that_was_mended_is_tried_again(folder: Path, start: Any) -> None:
    client = start()
    good = spoiled(folder / "m")
    until(lambda: index(client).get("m@2", ("", ""))[0] == "UNAVAILABLE")
    (folder / "m" / "2" / "weights.safetensors").write_bytes(good)
    until(lambda: served(client) == "2")
    assert index(client)["m@2"] == ("READY", None)


def test_a_version_that_is_copied_file_by_file_is_served_when_it_is_whole(folder: Path, start: Any) -> None:
    client = start()
    save(folder.parent / "aside" / "m")
    save(folder.parent / "aside" / "m")
    source, target = folder.parent / "aside" / "m" / "2", folder / "m" / "2"
    target.mkdir()
    for file in sorted(source.iterdir()):
        time.sleep(2 * WATCH)
        assert served(client) == "1"
        shutil.copy(file, target / file.name)
    until(lambda: served(client) == "2")


# ---------------------------------------------------------------- aliases and versions by URL
def test_an_alias_that_moves_is_followed(folder: Path, start: Any) -> None:
    save(folder / "m")
    set_alias(folder / "m", "prod", "2")
    client = start(f"m=torch:{folder}/m@prod")
    assert served(client) == "2"
    set_alias(folder / "m", "prod", "1")
    until(lambda: served(client) == "1")
    save(folder / "m")
    time.sleep(4 * WATCH)
    assert served(client) == "1"  # the newest isn't what the alias means
    assert served(client, "m/versions/prod") == "1"


def test_versions_and_aliases_have_urls(folder: Path, start: Any) -> None:
    save(folder / "m")
    set_alias(folder / "m", "stable", "1")
    client = start()
    assert served(client) == "2"
    assert served(client, "m/versions/1") == "1"
    assert served(client, "m/versions/2") == "2"
    assert served(client, "m/versions/stable") == "1"
    set_alias(folder / "m", "stable", "2")
    until(lambda: served(client, "m/versions/stable") == "2")
    assert client("GET", "/v2/models/m/versions/stable").status == 200
    for unknown in ("3", "canary", "01", "..", "%2e%2e", "1%2f..%2f2", "aliases.json"):
        answer = ask(client, f"m/versions/{unknown}")
        assert answer.status == 404, unknown
        assert str(folder) not in answer.error


@pytest.mark.slow
def test_old_versions_are_closed_when_others_are_asked_for(folder: Path, start: Any) -> None:
    for _ in range(4):
        save(folder / "m")
    client = start()
    for version in "1234":
        assert served(client, f"m/versions/{version}") == version
    ready = [name for name, (state, _) in index(client).items() if state == "READY"]
    assert ready == ["m@3", "m@4", "m@5"]


# ---------------------------------------------------------------- models that come and versions that go
def test_a_new_model_of_the_folder_is_served(folder: Path, start: Any) -> None:
    client = start()
    save(folder / "new")
    until(lambda: "new@1" in index(client) and index(client)["new@1"][0] == "READY")
    assert served(client, "new") == "1"
    assert sorted(client("GET", "/v2/models").document["models"]) == ["m", "new"]


def test_a_new_model_that_is_broken_harms_nobody(folder: Path, start: Any) -> None:
    client = start()
    spoiled(folder / "bad")
    until(lambda: index(client).get("bad@1", ("", ""))[0] == "UNAVAILABLE")
    assert client("GET", "/v2/health/ready").status == 200
    assert client("GET", "/v2/models/bad/ready").status == 503
    assert ask(client, "bad").status == 503
    assert served(client) == "1"


def test_a_new_model_whose_name_cant_be_served_is_told_in_the_log_once(
    folder: Path, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = start()
    save(folder / "stats")
    save(folder / "new")
    until(lambda: "new@1" in index(client))
    save(folder / "m")  # two further looks
    until(lambda: served(client) == "2")
    save(folder / "m")
    until(lambda: served(client) == "3")
    assert sorted(client("GET", "/v2/models").document["models"]) == ["m", "new"]
    told = [record.getMessage() for record in caplog.records if "'stats'" in record.getMessage()]
    assert len(told) == 1
    assert "can't be the name of a served model" in told[0]


def test_a_version_that_was_taken_away_gives_way_to_the_one_before(folder: Path, start: Any) -> None:
    save(folder / "m")
    client = start()
    assert served(client) == "2"
    shutil.rmtree(folder / "m" / "2")
    until(lambda: served(client) == "1")
    assert list(index(client)) == ["m@1"]


def test_a_model_whose_files_vanish_is_served_on(folder: Path, start: Any) -> None:
    client = start()
    shutil.rmtree(folder)
    until(lambda: index(client)["m@1"][1] is not None)
    assert index(client)["m@1"][0] == "READY"
    assert "gone" in (index(client)["m@1"][1] or "")
    assert served(client) == "1"
    save(folder / "m")
    save(folder / "m")
    until(lambda: served(client) == "2")


def test_the_server_leaves_nothing_in_the_folder(folder: Path, start: Any) -> None:
    before = sorted(folder.rglob("*"))
    client = start()
    assert served(client) == "1"
    time.sleep(3 * WATCH)
    assert sorted(folder.rglob("*")) == before


# ---------------------------------------------------------------- loading and unloading
def test_an_unloaded_model_isnt_there_until_it_is_loaded(folder: Path, start: Any) -> None:
    client = start(management=True)
    with meanwhile(client, seconds=0.6) as answers:
        assert client("POST", "/v2/repository/models/m/unload").status == 200
        assert not answers  # it waits for nobody
        assert ask(client).status == 404
        assert client("GET", "/v2/models/m").status == 404
        assert client("GET", "/v2/models/m/ready").status == 404
        assert client("GET", "/v2/health/ready").status == 200
        assert index(client)["m@1"] == ("UNAVAILABLE", "unloaded")
    assert answers[0].status == 200  # what ran was finished
    save(folder / "m")
    time.sleep(4 * WATCH)
    assert ask(client).status == 404  # a new version doesn't undo it
    assert client("POST", "/v2/repository/models/m/load").status == 200
    assert served(client) == "2"


def test_a_stream_in_flight_is_finished(talker: str, serving: Any) -> None:
    client = serving(talker, management=True, watch=WATCH)
    chat = {"model": "talker", "messages": [{"role": "user", "content": "one wait:0.5 two"}]}
    with closing(Client(client.url).connection) as stream:
        stream.request("POST", "/v1/chat/completions", json.dumps({**chat, "stream": True}))
        reply = stream.getresponse()
        assert b"role" in reply.read(200)
        assert client("POST", "/v2/repository/models/talker/unload").status == 200
        assert client("POST", "/v1/chat/completions", chat).status == 404
        rest = reply.read()
        assert b"two" in rest
        assert rest.endswith(b"data: [DONE]\n\n")
    assert client("POST", "/v2/repository/models/talker/load").status == 200
    assert client("POST", "/v1/chat/completions", chat).status == 200


def test_a_load_takes_up_what_is_there_now(folder: Path, serving: Any) -> None:
    client = serving(str(folder), watch=None, management=True)
    save(folder / "m")
    save(folder / "new")
    assert client("POST", "/v2/repository/models/m/load").status == 200
    assert served(client) == "2"
    assert ask(client, "new").status == 404
    assert client("POST", "/v2/repository/models/new/load").status == 200
    assert served(client, "new") == "1"
    assert client("POST", "/v2/repository/models/other/load").status == 404


def test_a_load_that_fails_says_why_and_changes_nothing(folder: Path, serving: Any) -> None:
    client = serving(str(folder), watch=None, management=True)
    spoiled(folder / "m")
    answer = client("POST", "/v2/repository/models/m/load")
    assert answer.status == 503
    assert str(folder) not in answer.error
    assert served(client) == "1"


# ---------------------------------------------------------------- models that die
@pytest.mark.parametrize("failure", [1, 2])
def test_a_model_that_dies_is_opened_anew(
    folder: Path, start: Any, failure: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiaas_sdk.server.shelf.FIRST_PAUSE", 1.0)
    save(folder / "other")
    client = start()
    assert ask(client, failure=failure).status == 500
    assert client("GET", "/v2/models/m/ready").status == 503
    assert client("GET", "/v2/health/ready").status == 503
    assert client("GET", "/v2/health/live").status == 200
    refused = ask(client)
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert index(client)["m@1"][0] == "UNAVAILABLE"
    assert served(client, "other") == "1"
    until(lambda: client("GET", "/v2/models/m/ready").status == 200)
    assert served(client) == "1"
    assert client("GET", "/v2/health/ready").status == 200


def test_a_model_that_only_raises_stays_open(folder: Path, start: Any) -> None:
    client = start()
    assert ask(client, failure=3).status == 500
    assert client("GET", "/v2/models/m/ready").status == 200
    assert served(client) == "1"


async def test_a_model_that_dies_again_and_again_is_opened_less_often(folder: Path) -> None:
    hosted = Hosted("m", f"torch:{folder}/m", {}, Serving())
    pauses = []
    for _ in range(3):
        async with hosted.held() as held:
            pass
        with pytest.raises(MemoryError):
            async with hosted.held() as held:
                raise MemoryError
        pauses.append(hosted._shelf.failures["1"].pause)
        hosted._shelf.failures["1"].again = 0.0
        del held
    assert pauses == [0.5, 1.0, 2.0]
    await hosted.close()
