"""Strangers' servers as processes of their own: waited for, and gone at the end."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.testing import processes
from aiaas_sdk.testing.processes import answers, free_port, server_process

SERVER = """
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

begun = time.monotonic()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if time.monotonic() - begun > 0.3 else 503)
        self.end_headers()
        self.wfile.write(os.environ["WORD"].encode())


server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
if os.fork():  # a process of its own does the work, and wouldn't hear of the first one's end
    time.sleep(60)
server.serve_forever()
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the server here forks")


def command(tmp_path: Path, port: int) -> list[str | Path]:
    (tmp_path / "server.py").write_text(SERVER)
    return [sys.executable, "server.py", str(port)]


def test_a_server_is_there_while_the_block_lasts_and_no_process_of_it_longer(tmp_path: Path) -> None:
    port = free_port()
    ready = answers(f"http://127.0.0.1:{port}/")
    assert not ready()
    with server_process(command(tmp_path, port), tmp_path, ready, {"WORD": "hello"}):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as reply:
            assert reply.read() == b"hello"
        assert "503" in (tmp_path / "log.txt").read_text()  # it was asked before it was ready
    assert not ready()


def test_a_server_that_ends_is_told_with_what_it_printed(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "raise SystemExit('no room for the model')"]
    with (
        pytest.raises(aiaas.ModelNotReadyError, match=r"ended with status 1; it printed:\nno room for the model"),
        server_process(program, tmp_path, answers(f"http://127.0.0.1:{free_port()}/")),
    ):
        pytest.fail("it isn't ready")


def test_a_server_that_never_gets_ready_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STARTING", 0.3)
    program = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        pytest.raises(aiaas.ModelNotReadyError, match=r"isn't ready after 0\.3 s"),
        server_process(program, tmp_path, answers(f"http://127.0.0.1:{free_port()}/")),
    ):
        pytest.fail("it isn't ready")
