"""The pytest plugin: real runs of pytest, in processes and folders of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiaas_sdk.server import serve_in_thread

APP = '''
import functools
import aiaas_sdk as aiaas

@functools.cache
def model():
    """What many applications have: one model for the process, loaded by whoever comes first."""
    return aiaas.load("digits", timeout=20)

def doubled(values):
    return [2 * value for value in model().predict(values)["x"].ravel().tolist()]
'''
CONFTEST = '''
import os
import pytest

@pytest.fixture(autouse=True)
def address(monkeypatch):
    """Where the model is, where there is one."""
    if url := os.environ.get("URL"):
        monkeypatch.setenv("AIAAS_MODEL_DIGITS", f"{url}/v2/models/e")
'''
TESTS = """
import numpy as np
import pytest
from app import doubled

pytestmark = pytest.mark.usefixtures("aiaas_recording", "aiaas_no_network")

@pytest.mark.parametrize("name", ["one", "a/b c"])
def test_doubled(name):
    assert doubled(np.ones((1, 3), np.float32)) == [2, 2, 2]

class TestMore:
    def test_again(self):
        assert doubled(np.full((1, 3), 5, np.float32)) == [10, 10, 10]
"""


class Project:
    """A folder with an application and its tests, and a way to run these."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        self.write("app.py", APP)
        self.write("tests/conftest.py", CONFTEST)
        self.write("tests/test_app.py", TESTS)
        self.write("pytest.ini", "[pytest]\npythonpath = .\naddopts = --strict-config -p no:cacheprovider\n")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def configure(self, *settings: str) -> None:
        with (self.folder / "pytest.ini").open("a") as file:
            file.write("\n".join(settings) + "\n")

    def run(self, *arguments: str, status: int = 0, url: str | None = None) -> str:
        """What pytest prints, its exit status checked; `url` is where the server is."""
        environment = self.environment | ({"URL": url} if url else {})
        command = [sys.executable, "-W", "error", "-m", "pytest", "-ra", *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    @property
    def files(self) -> dict[str, str]:
        found = sorted((self.folder / "tests" / "recordings").rglob("*.jsonl"))
        return {path.relative_to(self.folder / "tests" / "recordings").as_posix(): path.read_text() for path in found}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def url() -> Iterator[str]:
    with serve_in_thread(["e=echo:?x=FP32[-1,3]"]) as url:
        yield url


# ---------------------------------------------------------------- record, then replay for ever
@pytest.mark.slow
def test_recorded_once_and_replayed_without_server_network_and_settings(project: Project) -> None:
    with serve_in_thread(["e=echo:?x=FP32[-1,3]"]) as url:
        project.run("--aiaas=record", url=url)
    assert [re.sub(r"-[0-9a-f]{8}", "-#", name) for name in project.files] == [
        "test_app/TestMore.test_again.jsonl",
        "test_app/test_doubled_a_b_c_-#.jsonl",
        "test_app/test_doubled_one_-#.jsonl",
    ]
    assert "3 passed" in project.run()
    assert "3 passed" in project.run("--aiaas=replay", "--aiaas-strict")
    assert "1 passed" in project.run("-k", "again")  # alone, though the model was opened by another test
    assert "error" in project.run("--aiaas=live", status=1).lower()  # there is no server


@pytest.mark.slow
def test_a_changed_input_fails_with_the_difference(project: Project, url: str) -> None:
    project.run("--aiaas=record", url=url)
    project.write("tests/test_app.py", TESTS.replace("np.full((1, 3), 5", "np.full((1, 3), 7.5"))
    out = project.run(status=1)
    assert "tests/recordings/test_app/TestMore.test_again.jsonl has no call like this: predict of digits" in out
    assert "The nearest is line 3: input 'x' differs in 3 of 3 elements, the first at [0, 0]" in out
    assert re.search(r"first at \[0, 0\]: .*7\.5.* here, .*5\.0.* recorded", out)


@pytest.mark.slow
def test_recording_again_leaves_the_files_of_failing_tests_and_changes_no_others(project: Project, url: str) -> None:
    project.run("--aiaas=record", url=url)
    first = project.files
    project.run("--aiaas=record", url=url)
    assert project.files == first
    changed = TESTS.replace("np.full((1, 3), 5", "np.full((1, 3), 7").replace("np.ones(", "2 * np.ones(")
    project.write("tests/test_app.py", changed.replace("[2, 2, 2]", "[4, 4, 4]"))
    project.run("--aiaas=record", status=1, url=url)
    second = project.files
    assert [name for name in first if second[name] == first[name]] == ["test_app/TestMore.test_again.jsonl"]


@pytest.mark.slow
def test_async_tests_fixtures_and_unittest_are_recorded(project: Project, url: str) -> None:
    tests = """
    import unittest
    import numpy as np
    import pytest
    import aiaas_sdk as aiaas

    X = np.ones((1, 3), np.float32)

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.fixture
    def model(aiaas_recording, aiaas_no_network):
        with aiaas.load("digits") as model:
            yield model

    def test_a_fixture(model):
        assert model.predict(X)["x"].tolist() == [[1, 1, 1]]

    @pytest.mark.anyio
    async def test_awaited(aiaas_recording, aiaas_no_network):
        async with aiaas.load_async("digits") as model:
            assert len([row async for row in model.map(np.ones((9, 3), np.float32), batch_size=2)]) == 9

    @pytest.mark.usefixtures("aiaas_recording")
    class Old(unittest.TestCase):
        def test_old(self):
            self.assertEqual(aiaas.load("digits").predict(X)["x"].sum(), 3)

    def test_no_model(aiaas_recording):
        assert aiaas_recording.path.name == "test_no_model.jsonl"
    """
    project.write("tests/test_app.py", tests)
    project.run("--aiaas=record", url=url)
    assert [name.partition("/")[2] for name in project.files] == [
        "Old.test_old.jsonl",
        "test_a_fixture.jsonl",
        "test_awaited.jsonl",
    ]
    assert "4 passed" in project.run()


SPEAKING = """
    import os
    import aiaas_sdk as aiaas
    import pytest

    pytestmark = pytest.mark.usefixtures("aiaas_recording", "aiaas_no_network")
    QUESTION = [{"role": "system", "content": "My key is hunter2."}, {"role": "user", "content": "Tell me a story."}]

    @pytest.fixture
    def model(aiaas_recording, monkeypatch):
        if url := os.environ.get("URL"):
            monkeypatch.setenv("AIAAS_MODEL_WRITER", f"openai+{url}/v1#e")
        with aiaas.load("writer", api_key="secret-abc", timeout=20) as model:
            yield model

    def test_told(model):
        assert model.generate(QUESTION, temperature=0.5).text == "Tell me a story."

    def test_streamed(model):
        with model.stream(QUESTION) as stream:
            assert [delta.text for delta in stream] == ["Tell", " me", " a", " story."]
            assert stream.result().usage.output_tokens == 4

    def test_left(model):
        for delta in model.stream(QUESTION):
            assert delta.text == "Tell"
            break

    def test_embedded(model):
        assert model.embed(["a", "b"]).array.shape == (2, 26)

    @pytest.mark.anyio
    async def test_awaited(aiaas_recording, model):
        async with aiaas.load_async("writer") as other, other.stream("Hello you") as stream:
            assert [delta.text async for delta in stream] == ["Hello", " you"]

    @pytest.fixture
    def anyio_backend():
        return "asyncio"
"""


@pytest.mark.slow
def test_what_a_language_model_says_is_recorded_and_replayed(project: Project) -> None:
    project.write("tests/test_app.py", SPEAKING)
    with serve_in_thread(["e=echo:"]) as url:
        project.run("--aiaas=record", url=url)
    assert len(project.files) == 5
    assert not [text for text in project.files.values() if "secret-abc" in text]
    assert "5 passed" in project.run("--aiaas-strict")
    project.write("tests/test_app.py", SPEAKING.replace("Tell me a story", "Tell me a tale"))
    out = project.run(status=1)
    assert "test_told.jsonl has no call like this: generate of writer with 2 messages, temperature 0.5" in out
    assert "The nearest is line 3: message 1 differs at character 10. Record it again" in out
    assert "message 1 differs at character 10: 'tale.' here, 'story.' recorded" in out
    reading_on = SPEAKING.replace('assert delta.text == "Tell"', "pass").replace("            break\n", "")
    swallowed = reading_on.replace("for delta in model.stream(QUESTION):", "for delta in quietly(model):").replace(
        "    @pytest.mark.anyio",
        """
    def quietly(model):
        try:
            yield from model.stream(QUESTION)
        except aiaas.AiaasError:
            pass

    @pytest.mark.anyio""",
    )
    project.write("tests/test_app.py", swallowed)
    out = project.run(status=1)
    assert "5 passed, 1 error" in out
    assert "test_left.jsonl line 3 is a stream that was left after 1 delta, and more of it was asked for" in out


# ---------------------------------------------------------------- what must not go by unseen
@pytest.mark.slow
def test_a_miss_that_the_application_swallows_fails_the_test(project: Project, url: str) -> None:
    tests = """
    import numpy as np
    import aiaas_sdk as aiaas

    def test_it(aiaas_recording):
        try:
            aiaas.load("digits").predict(np.full((1, 3), 1, np.float32))
        except aiaas.AiaasError:
            pass
    """
    project.write("tests/test_app.py", tests)
    project.run("--aiaas=record", url=url)
    assert "1 passed" in project.run()
    project.write("tests/test_app.py", tests.replace("(1, 3), 1", "(1, 3), 2"))
    out = project.run(status=1)
    assert "the test passed, and a call of it wasn't recorded" in out
    assert "differs in 3 of 3 elements" in out


@pytest.mark.slow
def test_what_is_not_used_is_listed_and_fails_where_it_is_asked_for(project: Project, url: str) -> None:
    project.run("--aiaas=record", url=url)
    project.write(
        "tests/test_app.py",
        TESTS.replace("assert doubled(np.full", "doubled(np.ones((1, 3), np.float32)) if 0 else len(np.full").replace(
            "== [10, 10, 10]", ""
        ),
    )
    out = project.run()
    assert "recorded calls that no test asked for" in out
    assert "tests/recordings/test_app/TestMore.test_again.jsonl line 3: predict of digits with x FP32 [1, 3]" in out
    assert "recorded calls weren't asked for" in project.run("--aiaas-strict", status=1)
    project.configure("aiaas_strict = true")
    project.run(status=1)


@pytest.mark.slow
def test_a_test_without_its_recording_is_told_how_to_make_it(project: Project) -> None:
    out = project.run(status=1)
    assert "It is empty or isn't there. Record it again" in out


@pytest.mark.slow
def test_a_broken_recording_is_told_with_its_line(project: Project, url: str) -> None:
    project.run("--aiaas=record", url=url)
    path = project.folder / "tests" / "recordings" / "test_app" / "TestMore.test_again.jsonl"
    path.write_text(path.read_text() + "<<<<<<< HEAD\n")
    assert "TestMore.test_again.jsonl line 4 is no JSON" in project.run(status=1)


@pytest.mark.slow
def test_the_scripted_model_and_a_call_too_many(project: Project) -> None:
    tests = """
    import numpy as np
    import aiaas_sdk as aiaas

    def test_scripted(aiaas_scripted, monkeypatch):
        monkeypatch.setenv("AIAAS_MODEL_OTHER", aiaas_scripted.address)
        aiaas_scripted.answer([4.0])
        assert aiaas.load("other").predict([1.0]).array.tolist() == [4]
        assert aiaas_scripted.calls[0].inputs["input"].tolist() == [1]

    def test_swallowed(aiaas_scripted):
        try:
            aiaas.load(aiaas_scripted.address).predict([1.0])
        except aiaas.AiaasError:
            pass
    """
    project.write("tests/test_app.py", tests)
    out = project.run(status=1)
    assert "2 passed, 1 error" in out
    assert "was given 0 answers, and call 1 came: predict of scripted:" in out


# ---------------------------------------------------------------- the network
@pytest.mark.slow
def test_the_network_is_off_by_fixture_or_for_the_whole_run_and_on_while_recording(project: Project) -> None:
    tests = """
    import socket
    import pytest
    import aiaas_sdk as aiaas

    FAR = ("192.0.2.7", 9)
    error = None
    with socket.socket() as sock:  # while the module is imported
        sock.setblocking(False)
        try:
            sock.connect(FAR)
        except Exception as caught:
            error = caught

    def test_fixture(aiaas_no_network):
        with pytest.raises(aiaas.PrivacyError, match="switched off"), socket.socket() as sock:
            sock.setblocking(False)
            sock.connect(FAR)

    def test_whole_run():
        assert isinstance(error, aiaas.PrivacyError)

    def test_as_it_was_otherwise():
        assert "connect" not in vars(socket.socket)
    """
    project.write("tests/test_app.py", tests)
    out = project.run(status=1)
    assert "FAILED tests/test_app.py::test_whole_run" in out
    assert "1 failed, 2 passed" in out
    project.configure("aiaas_no_network = true")
    out = project.run(status=1)
    assert "FAILED tests/test_app.py::test_as_it_was_otherwise" in out
    assert "1 failed, 2 passed" in out
    project.configure("aiaas_allow_hosts = 192.0.2.7 model.example")
    assert "3 failed" in project.run(status=1)
    project.write("tests/test_app.py", tests.replace("def test_fixture(aiaas_no_network)", "def none()"))
    assert "1 failed, 1 passed" in project.run("--aiaas=record", status=1)


# ---------------------------------------------------------------- a guest of every run of pytest
@pytest.mark.slow
def test_it_costs_a_run_that_does_not_use_it_nothing(project: Project) -> None:
    tests = """
    import sys

    def test_it():
        heavy = {"numpy", "httpx", "pydantic", "torch"} & set(sys.modules)
        ours = {name for name in sys.modules if name.startswith("aiaas_sdk.")}
        assert (heavy, ours) == (set(), {"aiaas_sdk._version", "aiaas_sdk.testing", "aiaas_sdk.testing.plugin"})
    """
    project.write("tests/test_app.py", tests)
    project.run("-p", "no:hypothesispytest")
    assert "--aiaas" in project.run("--help")
    assert "aiaas_recording" in project.run("--fixtures", "-q")
    project.run("-p", "no:aiaas", "-p", "no:hypothesispytest", status=1)  # it isn't even loaded


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--aiaas=rekord"], ["-o", "aiaas_mode=rekord"]])
def test_a_mode_that_there_is_not_is_refused(project: Project, arguments: list[str]) -> None:
    project.run(*arguments, status=4)


@pytest.mark.slow
def test_the_mode_may_stand_in_the_settings(project: Project, url: str) -> None:
    project.configure("aiaas_mode = record")
    project.run(url=url)
    assert len(project.files) == 3
    assert "3 passed" in project.run("--aiaas=replay")
    assert all(json.loads(line) for text in project.files.values() for line in text.splitlines())
