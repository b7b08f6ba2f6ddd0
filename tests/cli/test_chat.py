"""`aiaas chat`: from a pipe in this process, and on a terminal in one of its own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aiaas_sdk.cli.app import app
from aiaas_sdk.server import serve_in_thread

AIAAS = Path(sys.executable).with_name("aiaas")


def run(*arguments: str, code: int = 0, given: str | bytes | None = None) -> Any:
    result = CliRunner().invoke(app, ["chat", *arguments], input=given)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


# ---------------------------------------------------------------- a pipe
def test_all_of_stdin_is_one_message() -> None:
    assert run("echo:", given="hello\nbig world\n").stdout == "hello\nbig world\n"
    assert run("echo:", "--stop", "big", given="hello big world\n").stdout == "hello \n"
    assert run("echo:", "--max-tokens", "2", "--seed", "1", given="hello big world").stdout == "hello big\n"


def test_an_answer_as_a_document() -> None:
    found = json.loads(run("echo:", "--json", "--max-tokens", "1", given="hello world\n").stdout)
    assert found == {
        "model": "echo",
        "version": "1",
        "backend": "echo",
        "text": "hello",
        "reasoning": None,
        "finish_reason": "length",
        "input_tokens": 2,
        "output_tokens": 1,
    }


def test_thoughts_are_shown_where_they_are_asked_for(talker: str) -> None:
    with serve_in_thread([f"talker={talker}"]) as url:
        address = f"openai+{url}/v1#talker"
        result = run(address, given="think:hm yes")
        assert (result.stdout, result.stderr) == ("yes \n", "")
        result = run(address, "--reasoning", given="think:hm yes")
        assert (result.stdout, result.stderr) == ("yes \n", "hm")
        assert json.loads(run(address, "--json", given="think:hm yes").stdout)["reasoning"] == "hm"


@pytest.mark.parametrize(
    ("arguments", "given", "code", "words"),
    [
        (["echo:", "--temperature", "9"], "x", 2, "temperature is 9.0; it is from 0 to 2"),
        (["echo:"], "", 2, "stdin holds no message"),
        (["echo:"], b"\xff\xfe", 2, "UTF-8"),
        (["torch:nowhere"], "x", 3, "nowhere"),
        (["openai+http://127.0.0.1:9/v1#x"], "x", 4, "can't connect"),
        (["scripted:nobody"], "x", 2, "no script"),
    ],
)
def test_an_error_is_one_or_two_lines_and_a_code(arguments: list[str], given: Any, code: int, words: str) -> None:
    result = run(*arguments, code=code, given=given)
    assert words in result.stderr
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) <= 2
    assert json.loads(run(*arguments, "--json", code=code, given=given).stdout)["error"]["exit_code"] == code


def test_a_model_that_cant_chat_says_what_it_can() -> None:
    with serve_in_thread(["one=echo:?x=FP32[-1,3]"]) as url:
        result = run(f"{url}/v2/models/one", code=2, given="x")
    assert "one can't chat" in result.stderr
    assert "It can explain, predict" in result.stderr


# ---------------------------------------------------------------- a terminal
class Peer(BaseHTTPRequestHandler):
    """Answers with the roles of the messages that it was given; "slow" begins and goes on much later, "bad" fails."""

    ended = threading.Event()

    def do_GET(self) -> None:
        self.answer(404, "application/json", b"{}")

    def do_POST(self) -> None:
        messages = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"]
        last = messages[-1]["content"]
        if last == "bad":
            self.answer(500, "application/json", b'{"error":"in no mood"}')
            return
        roles = "".join(message["role"][0] for message in messages)
        text = {"slow": "begun", "red": "\x1b[31mred\x07"}.get(last, f"<{roles}>")
        chunk = json.dumps({"choices": [{"delta": {"content": text}}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b"data: " + chunk + b"\n\n")
        self.wfile.flush()
        if last == "slow":
            self.ended.wait(20)
        self.wfile.write(b"data: [DONE]\n\n")

    def answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # it was left
            super().handle()


@pytest.fixture
def peer() -> Iterator[str]:
    kind = type("Own", (Peer,), {"ended": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"openai+http://127.0.0.1:{server.server_port}/v1#x"
    kind.ended.set()
    server.shutdown()
    thread.join()
    server.server_close()


class Terminal:
    """`aiaas chat` on a terminal of its own."""

    def __init__(self, *arguments: str, folder: Path) -> None:
        self.master, slave = os.openpty()
        environment = {**os.environ, "TERM": "dumb"}
        self.process = subprocess.Popen(
            [str(AIAAS), "chat", *arguments], stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment
        )
        os.close(slave)
        self.seen = ""

    def wait_for(self, text: str, seconds: float = 30.0) -> str:
        """What has been shown up to this text, which is then behind us."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no {text!r} came after {self.seen!r}"
            try:
                piece = os.read(self.master, 65536)
            except OSError:  # Linux's word for the end of a terminal
                piece = b""
            assert piece, f"it ended without {text!r}: {self.seen!r}"
            self.seen += piece.decode()
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupt(self, text: str) -> None:
        """Ctrl-C, until this is shown: readline doesn't see one in the moment between its prompt and its waiting."""
        for _ in range(20):
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(AssertionError):
                self.wait_for(text, 1.0)
                return
        pytest.fail(f"Ctrl-C brought no {text!r}: {self.seen!r}")

    def end(self) -> int:
        code = self.process.wait(20)
        os.close(self.master)
        return code

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)
            os.close(self.master)


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="terminals and signals")


@pytest.mark.slow
def test_a_conversation_goes_on_until_it_is_ended(peer: str, tmp_path: Path) -> None:
    with Terminal(peer, "--system", "be brief", folder=tmp_path) as terminal:
        terminal.wait_for("> ")
        for roles in ("<su>", "<suau>", "<suauau>"):
            terminal.type("hello\n")
            terminal.wait_for(roles)
            terminal.wait_for("> ")
        terminal.type("\n")  # nothing is no message
        terminal.wait_for("> ")
        terminal.type("/quit\n")
        assert terminal.end() == 0


@pytest.mark.slow
def test_ctrl_c_stops_the_answer_and_not_the_program(peer: str, tmp_path: Path) -> None:
    with Terminal(peer, folder=tmp_path) as terminal:
        terminal.wait_for("> ")
        terminal.interrupt("Ctrl-D or /quit ends")  # nothing runs
        terminal.wait_for("> ")
        terminal.type("slow\n")
        terminal.wait_for("begun")
        terminal.interrupt("stopped")
        terminal.wait_for("> ")
        terminal.type("hello\n")
        terminal.wait_for("<uau>")  # what had come of the answer is part of the conversation
        terminal.wait_for("> ")
        terminal.type("\x04")
        assert terminal.end() == 0


@pytest.mark.slow
def test_an_error_ends_an_answer_and_nothing_more(peer: str, tmp_path: Path) -> None:
    with Terminal(peer, folder=tmp_path) as terminal:
        terminal.wait_for("> ")
        terminal.type("bad\n")
        terminal.wait_for("aiaas: the server answered 500")
        terminal.wait_for("in no mood")
        terminal.wait_for("> ")
        terminal.type("hello\n")
        terminal.wait_for("<u>")  # what failed was never asked
        terminal.wait_for("> ")
        terminal.type("red\n")
        terminal.wait_for("red")
        shown = terminal.wait_for("red") + terminal.wait_for("> ")
        assert "\x1b" not in shown
        assert "\x07" not in shown
        terminal.type("\x04")
        assert terminal.end() == 0


@pytest.mark.slow
def test_ctrl_c_ends_what_reads_a_pipe(peer: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [str(AIAAS), "chat", peer],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("slow")
    process.stdin.close()
    assert process.stdout.read(5) == "begun"
    process.send_signal(signal.SIGINT)
    process.stdin = None
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "\n", "aiaas: interrupted\n")
