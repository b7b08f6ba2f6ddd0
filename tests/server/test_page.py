"""The page at `/`: how it is given, and in a real Chromium what a person can do with it."""

# ruff: noqa: RUF001  (the page has typographic quotes)

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.testing import Script

ROOT = Path(__file__).parent.parent.parent
HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
browsed = [pytest.mark.slow, pytest.mark.peer]
NASTY = "<img src=x onerror=document.title='taken'>"
ONE = [[0.4, 0.32], [0.52, 0.2], [0.52, 0.8]]
Browse = Callable[..., Any]


# ---------------------------------------------------------------- how it is given
def test_a_browser_gets_the_page_and_anybody_else_a_sign_of_life(echo: Any) -> None:
    page = echo("GET", "/", headers=HTML)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"<title>" in page.body
    for headers in ({}, {"accept": "*/*"}, {"accept": "application/json"}):
        told = echo("GET", "/", headers=headers)
        assert (told.status, told.document) == (200, {"status": "alive"})
    assert echo("HEAD", "/", headers=HTML).status == 200
    assert page.headers["vary"] == "accept"


def test_the_page_may_load_nothing_from_elsewhere_and_run_nothing_inline(echo: Any) -> None:
    page = echo("GET", "/", headers=HTML)
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["form-action"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' data: blob:"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    for sign in (b"<style", b"style=", b"onclick", b"http:", b"https:"):
        assert sign not in page.body
    assert b'src="/' not in page.body  # relative: a proxy may have a prefix
    assert b'href="/' not in page.body


def test_files_are_kept_and_asked_for_again(echo: Any) -> None:
    page = echo("GET", "/", headers=HTML)
    for path in ("/", "/page/app.js", "/page/style.css", "/page/icon.svg"):
        found = echo("GET", path, headers=HTML)
        assert found.status == 200
        assert found.headers["cache-control"] == "no-cache"
        for known in (found.headers["etag"], f'W/{found.headers["etag"]}, "other"', "*"):
            again = echo("GET", path, headers={**HTML, "if-none-match": known})
            assert (again.status, again.body) == (304, b"")
            assert again.headers["etag"] == found.headers["etag"]
        assert echo("GET", path, headers={**HTML, "if-none-match": '"other"'}).status == 200
    assert echo("GET", "/page/app.js").headers["content-type"].startswith("text/javascript")
    assert page.headers["etag"] != echo("GET", "/page/app.js").headers["etag"]


@pytest.mark.parametrize("path", ["/page/", "/page/none.js", "/page/..%2fpage.py", "/page/../page.py", "/page//app.js"])
def test_only_the_pages_own_files_are_there(echo: Any, path: str) -> None:
    assert echo("GET", path).status == 404


def test_every_file_that_the_page_names_is_there(echo: Any) -> None:
    folder = ROOT / "aiaas_sdk" / "server" / "static"
    named = set(re.findall(r'(?:href|src)="page/([^"]+)"', (folder / "index.html").read_text()))
    for script in folder.glob("*.js"):
        named |= set(re.findall(r'from "\./([^"]+)"', script.read_text()))
    assert "app.js" in named
    assert named | {"index.html"} == {file.name for file in folder.iterdir()}
    for name in named:
        assert echo("GET", f"/page/{name}").status == 200


def test_without_a_page_there_is_none(serving: Any) -> None:
    client = serving("echo:", page=False)
    for path in ("/", "/page/app.js", "/overview"):
        assert client("GET", path, headers=HTML).status == 404
    assert client("GET", "/").document == {"status": "alive"}


def test_the_overview_tells_what_is_served(serving: Any) -> None:
    client = serving("pair=echo:?x=FP32[-1,3]&s=BYTES[-1]", "far=openai+http://127.0.0.1:9/v1#x", retry=None)
    end = time.monotonic() + 10
    while (far := client("GET", "/overview").document["models"][1])["state"] == "LOADING" and time.monotonic() < end:
        time.sleep(0.05)
    found = client("GET", "/overview")
    assert found.headers["cache-control"] == "no-store"
    pair = found.document["models"][0]
    assert (pair["name"], pair["state"], pair["version"]) == ("pair", "READY", "1")
    assert pair["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
    assert pair["verbs"] == ["embed", "explain", "generate", "predict", "stream"]
    assert (far["state"], "reached" in far["reason"]) == ("UNAVAILABLE", True)
    assert "127.0.0.1:9" not in far["reason"]


def test_the_overview_shows_a_key_its_own_models_and_nobody_any(serving: Any, tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text(_key_file("secret", 'models = ["b*"]'))
    client = serving("alpha=echo:", "beta=echo:", api_keys=tmp_path / "keys.toml")
    found = client("GET", "/overview", headers={"authorization": "Bearer secret"})
    assert [model["name"] for model in found.document["models"]] == ["beta"]
    assert client("GET", "/overview").status == 401
    assert client("GET", "/", headers=HTML).status == client("GET", "/page/app.js").status == 200


def _key_file(key: str, facts: str = "") -> str:
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f'[keys.me]\nsha256 = "{digest}"\ncreated = 2026-01-01T00:00:00Z\n{facts}\n'


# ---------------------------------------------------------------- the browser
@pytest.fixture(scope="module")
def browser(peer_python: Callable[[str], Path]) -> Iterator[subprocess.Popen[str]]:
    """A Chromium that does what browsing.py knows, for all tests of the module."""
    with (ROOT / ".peers" / "chromium.lock").open("w") as lock:
        python = peer_python("browser")
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = subprocess.run([str(ROOT / "scripts" / "browser.sh")], capture_output=True, text=True)
    assert made.returncode == 0, f"scripts/browser.sh:\n{made.stderr[-4000:]}"
    script = Path(__file__).with_name("browsing.py")
    command = [str(python), str(script), made.stdout.strip().splitlines()[-1]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def browse(browser: Any) -> Browse:
    """Does a flow of browsing.py; whatever the browser complains of fails the test, but for what is expected."""

    def perform(
        flow: str, url: str, *, expected: str = "", screen: dict[str, Any] | None = None, **arguments: Any
    ) -> Any:
        asked = {"flow": flow, "url": url, "arguments": arguments, "context": screen or {}}
        browser.stdin.write(json.dumps(asked) + "\n")
        browser.stdin.flush()
        told = json.loads(browser.stdout.readline())
        assert "error" not in told, told["error"]
        assert [trouble for trouble in told["troubles"] if not expected or expected not in trouble] == []
        return told["value"]

    return perform


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles: `digits` (a CNN that reads printed digits), `flowers` (a table, two versions), and one full of HTML."""
    import torch

    from aiaas_sdk.architectures.mlp import MLP

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(3)
    aiaas.save(_reader(), folder / "digits", example=np.zeros((1, 1, 28, 28), np.float32), labels=list("0123456789"))
    columns = ["sepal length", "sepal width", "petal length", "petal width"]
    for names in (["setosa", "versicolor", "virginica"], ["a", "b", "c"]):
        example = np.zeros((1, 4), np.float32)
        aiaas.save(MLP(4, 3), folder / "flowers", example=example, labels=names, metadata={"columns": columns})
    texts = [f"<script>document.title='taken'</script>{NASTY}", "<b>bold</b>"]
    facts = {"columns": [NASTY, "<i>x</i>"], "note": NASTY}
    aiaas.save(MLP(2, 2), folder / NASTY, example=np.zeros((1, 2), np.float32), labels=texts, metadata=facts)
    return folder


def _reader() -> Any:
    """A CNN trained for some seconds on digits of Pillow's own font, moved, turned and thickened."""
    import torch
    from PIL import Image, ImageDraw, ImageFont
    from torch import nn

    from aiaas_sdk.architectures.cnn import CNN

    rng = np.random.default_rng(0)
    images, digits = np.zeros((1500, 1, 28, 28), np.float32), np.arange(1500) % 10
    fonts = [ImageFont.load_default(size) for size in (22, 25, 28)]
    for place, digit in enumerate(digits):
        image = Image.new("L", (28, 28))
        at = tuple(14 + rng.uniform(-2.5, 2.5, 2))
        thick = int(rng.integers(0, 2))
        ImageDraw.Draw(image).text(at, str(digit), 255, fonts[place % 3], anchor="mm", stroke_width=thick)
        images[place, 0] = np.asarray(image.rotate(rng.uniform(-12, 12)), np.float32) / 255
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for each other, twenty times as long on a busy machine
    module = CNN(filters=(8, 16), hidden=32)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    x, y = torch.from_numpy(images), torch.from_numpy(digits)
    for _ in range(4):
        for rows in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
            optimizer.step()
    torch.set_num_threads(threads)
    return module.eval()


SERVED = (
    "assistant=echo:",
    "person=echo:?age=INT64[-1]&name=BYTES[-1,1]&member=BOOL[-1]",
)


@pytest.fixture(scope="module")
def url(models: Path, talker: str) -> Iterator[str]:
    with serve_in_thread([str(models), *SERVED, f"talker={talker}"], watch=None) as url:
        yield url


def performed(code: dict[str, str], **environment: str) -> tuple[str, str | None]:
    """What the copied Python prints, and what the copied command prints, where there is a curl."""
    surroundings = {**os.environ, **environment}
    ran = subprocess.run([sys.executable, "-c", code["Python"]], capture_output=True, text=True, env=surroundings)
    assert (ran.returncode, ran.stderr) == (0, "")
    if shutil.which("curl") is None:
        return ran.stdout, None
    curl = subprocess.run(["sh", "-c", code["curl"]], capture_output=True, text=True, env=surroundings)
    assert (curl.returncode, curl.stderr) == (0, "")
    return ran.stdout, curl.stdout


# ---------------------------------------------------------------- what a person does
class TestBrowsed:
    pytestmark = browsed

    def test_a_digit_is_drawn_and_read(self, browse: Browse, url: str) -> None:
        told = browse("draws", url, name="digits", points=ONE)
        assert told["bars"][0][0] == "1"
        lengths = [length for _, length, _ in told["bars"]]
        assert lengths[0] == max(lengths) > 0
        assert sorted(label for label, *_ in told["bars"]) == list("0123456789")
        assert "ms" in told["timing"]
        assert told["shown"] == told["Python"]
        printed, answered = performed(told)
        assert printed.splitlines()[-1].startswith("[[('1', ")
        percent = float(printed.rpartition("('1', ")[2].partition(")")[0])
        assert told["bars"][0][2] == f"{100 * percent:.1f} %"
        if answered is not None:
            [output] = json.loads(answered)["outputs"]
            assert int(np.argmax(output["data"])) == 1

    def test_a_picture_in_colour_is_sent_as_the_model_wants_it(self, browse: Browse, url: str, tmp_path: Path) -> None:
        from PIL import Image

        Image.new("RGB", (128, 96), (250, 128, 3)).save(tmp_path / "plain.png")
        for shape, places in (("-1,3,24,32", (0, 768, 1536)), ("-1,24,32,3", (0, 1, 2))):
            with serve_in_thread([f"rgb=echo:?image=UINT8[{shape}]"]) as own:
                told = browse("chooses", own, name="rgb", file=str(tmp_path / "plain.png"))
                assert told["sent"].endswith(": red, green, blue, from 0 (black) to 255 (white).")
                printed, answered = performed(told)
            assert printed.startswith("image [[[[")
            if answered is not None:
                pixels = json.loads(answered)["outputs"][0]["data"]
                assert [pixels[place] for place in places] == [250, 128, 3]

    def test_a_table_is_a_form(self, browse: Browse, url: str) -> None:
        values = {"sepal length": "5.1", "sepal width": "3.5", "petal length": "1.4", "petal width": "2e-1"}
        told = browse("fills", url, name="flowers", values=values, wrong=["petal length", "1,4"])
        assert "“petal length” is a number, and “1,4” isn’t one" in told["refused"]
        assert told["invalid"] == "true"
        assert {"a", "b", "c"} <= set(told["answer"].split())
        assert "[5.1, 3.5, 1.4, 0.2]" in told["Python"]
        printed, answered = performed(told)
        if answered is not None:
            expected = json.loads(answered)["outputs"][0]["data"]
            assert f"{expected[0]:.4f}"[:5] in printed

    def test_several_columns_of_any_kind_are_a_form(self, browse: Browse, url: str) -> None:
        values = {"age": "9007199254740993", "name": "Ada \"the\" 'first' ‹é›"}
        told = browse("fills", url, name="person", values=values, wrong=["age", "1.5"])
        assert "“age” is a whole number" in told["refused"]
        assert "9007199254740993" in told["answer"]
        printed, answered = performed(told)
        assert "9007199254740993" in printed
        if answered is not None:
            assert [values["name"]] in [output["data"] for output in json.loads(answered)["outputs"]]

    def test_anything_else_is_json(self, browse: Browse, url: str) -> None:
        whole = '[{"name": "x", "datatype": "INT64", "shape": [2], "data": [9007199254740993, 2]}]'
        texts = ["", "[{", "{}", '[{"name": "x"}]', whole, whole.replace("[2]", "[3]")]
        told = browse("edits", url, name="assistant", texts=texts, expected="status of 400")
        assert "input FP32 [1, 3]" in told[0]
        assert "This isn’t JSON" in told[1]
        assert "Inputs are a list" in told[2]
        assert "“datatype”" in told[3]
        assert "9007199254740993" in told[4]
        assert "The request doesn’t fit the model" in told[5]

    def test_a_chat_streams(self, browse: Browse, url: str) -> None:
        told = browse("chats", url, name="talker", said=["think:hm hello", "and again"])
        assert "What it thought before" in told["answers"][0]
        assert told["answers"][0].endswith("hello")
        assert told["answers"][1].endswith("and again")
        assert "First text" in told["status"]
        assert '"content": "think:hm hello"' in told["Python"]
        printed, answered = performed(told)
        assert printed.strip() == "and again"
        assert answered is None or answered.endswith("data: [DONE]\n\n")

    def test_a_scripted_model_streams_its_pieces(self, browse: Browse) -> None:
        script = Script()
        script.stream(["It ", "rai", "ns."], input_tokens=4, output_tokens=3)
        script.stream(["Still"], then=aiaas.StreamInterruptedError("the peer hung up"))
        with serve_in_thread([f"weather={script.address}"]) as own:
            told = browse("chats", own, name="weather", said=["How is it?", "And now?"])
        assert told["answers"][0].endswith("It rains.")
        assert "Still" in told["answers"][1]
        assert "hung up" in told["answers"][1]
        assert [message.text for message in script.calls[1].chat.messages] == ["How is it?", "It rains.", "And now?"]

    def test_an_answer_is_stopped_and_the_talk_goes_on(self, browse: Browse, url: str) -> None:
        told = browse("stops", url, name="talker", said="forever")
        assert told["streamed"]
        assert told["grew"] == 0
        assert told["next"] == "and on"

    @pytest.mark.parametrize(
        ("said", "status", "words"),
        [("busy", 429, ["Too many requests", "Try again in 3 seconds"]), ("fail", 500, ["The model failed"])],
    )
    def test_what_fails_says_so_and_what_to_do(
        self, browse: Browse, url: str, said: str, status: int, words: list[str]
    ) -> None:
        told = browse("chats", url, name="talker", said=[said], expected=f"status of {status}")
        for word in words:
            assert word in told["answers"][0]

    def test_texts_are_embedded_and_compared(self, browse: Browse, url: str) -> None:
        told = browse("embeds", url, name="assistant", texts="rain\ntrain\n")
        assert "2 × 26 numbers" in told["answer"]
        assert "0.894" in told["answer"]
        printed, answered = performed(told)
        assert printed.startswith("(2, 26)")
        assert answered is None or len(json.loads(answered)["data"]) == 2

    def test_everything_is_done_without_a_pointer(self, browse: Browse, url: str) -> None:
        told = browse("keyboard", url)
        assert told["skip"] == "Skip to the model"
        assert told["unseen"] == []
        assert told["first"] == "1"
        assert told["tab"] == "curl true"
        assert "Choose a picture" in told["seen"]

    def test_versions_are_chosen(self, browse: Browse, url: str) -> None:
        told = browse("versions", url, name="flowers", other="1")
        assert told["timing"].endswith("1")
        assert "/versions/1" in told["Python"]
        printed, _ = performed(told)
        assert "'setosa'" in printed

    def test_a_picture_is_chosen_and_one_that_is_none_is_told(self, browse: Browse, url: str, tmp_path: Path) -> None:
        from PIL import Image

        image = Image.new("L", (280, 280))
        image.paste(255, (128, 50, 160, 230))
        image.save(tmp_path / "one.png")
        told = browse("chooses", url, name="digits", file=str(tmp_path / "one.png"))
        assert told["likeliest"] == "1"
        assert told["sent"] == "Sent as FP32 [1, 1, 28, 28]: grey, from 0 (black) to 1 (white)."
        assert "('1', " in performed(told)[0]

    # ------------------------------------------------------------ what isn't well
    def test_a_model_that_isnt_there_yet_says_why(self, browse: Browse) -> None:
        with serve_in_thread(["far=openai+http://127.0.0.1:9/v1#x", "echo:"], retry=None) as own:
            told = browse("waits", own, name="far")
        assert "The model isn’t available" in told
        assert "can't be reached" in told
        assert "127.0.0.1:9" not in told

    def test_a_version_that_failed_is_told_while_the_old_one_serves(
        self, browse: Browse, models: Path, tmp_path: Path, serving: Any
    ) -> None:
        shutil.copytree(models / "flowers", tmp_path / "flowers")
        client = serving(str(tmp_path / "flowers"), watch=0.1)
        shutil.copytree(tmp_path / "flowers" / "2", tmp_path / "3")
        (tmp_path / "3" / "weights.safetensors").write_bytes(b"none")
        (tmp_path / "3").rename(tmp_path / "flowers" / "3")
        end = time.monotonic() + 20
        while not client("GET", "/overview").document["models"][0]["failures"] and time.monotonic() < end:
            time.sleep(0.1)
        told = browse("versions", client.url, name="flowers", other="1")
        assert "Version 3 couldn’t be loaded" in told["cautions"][0]
        assert "Version 2 goes on serving" in told["cautions"][0]
        assert str(tmp_path) not in told["cautions"][0]

    def test_a_network_that_is_gone_is_told_until_it_is_back(self, browse: Browse, url: str) -> None:
        told = browse("loses", url, name="person", expected="ERR_INTERNET_DISCONNECTED")
        assert "The server doesn’t answer" in told["trouble"]
        assert "goes on trying" in told["banner"]

    def test_a_key_is_asked_for_and_kept_nowhere(self, browse: Browse, tmp_path: Path) -> None:
        key = "aiaas_" + "k" * 43
        (tmp_path / "keys.toml").write_text(_key_file(key))
        with serve_in_thread(["echo:?x=FP32[-1,3]"], api_keys=tmp_path / "keys.toml") as own:
            told = browse("unlocks", own, key=key, expected="status of 401")
            assert told["kept"] == ["", "{}", "{}", f"{own}/"]
            assert not told["held"]
            assert key not in told["Python"] + told["curl"]
            printed, answered = performed(told, AIAAS_API_KEY=key)
        assert printed.startswith("x [[")
        assert answered is None or "outputs" in json.loads(answered)

    def test_words_of_a_model_are_never_html(self, browse: Browse, url: str) -> None:
        told = browse("attacked", url, name=NASTY, said=NASTY)
        assert NASTY in told["labels"][0] + told["labels"][1]
        assert told["fields"] == [NASTY, "<i>x</i>"]
        assert told["title"] == "talker · models"
        assert told["foreign"] == 0
        assert told["answer"] == NASTY

    # ------------------------------------------------------------ where it is looked at
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_everything_can_be_read(self, browse: Browse, url: str, scheme: str) -> None:
        names = ["digits", "flowers", "person", "assistant", "talker"]
        count, faint = browse("contrast", url, names=names, screen={"color_scheme": scheme})
        assert count > 150
        assert faint == []

    def test_it_fits_a_phone(self, browse: Browse, url: str) -> None:
        screen = {"viewport": {"width": 320, "height": 640}, "has_touch": True, "reduced_motion": "reduce"}
        told = browse("draws", url, name="digits", points=ONE, screen=screen)
        assert told["overflow"] == 0
        assert told["bars"][0][0] == "1"

    def test_it_works_below_a_prefix(self, browse: Browse, models: Path) -> None:
        with _below("/models/here", [str(models / "digits"), "assistant=echo:"]) as own:
            told = browse("draws", own, name="digits", points=ONE)
            assert f"{own}/v2/models/digits" in told["Python"]
            assert "('1', " in performed(told)[0]


@contextlib.contextmanager
def _below(prefix: str, targets: list[str]) -> Iterator[str]:
    """A server whose paths begin with a prefix, as a proxy gives it to the world."""
    import socket

    import uvicorn

    from aiaas_sdk.server import create_app

    app = create_app(targets)

    async def passed(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            assert scope["path"].startswith(f"{prefix}/")
            path = scope["path"].removeprefix(prefix)
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await app(scope, receive, send)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(passed, log_config=None, lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}{prefix}"
        finally:
            server.should_exit = True
            thread.join()
