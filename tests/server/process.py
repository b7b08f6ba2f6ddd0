"""A server as a process of its own, with one kept connection to it."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
from collections.abc import Mapping

PROGRAM = """
import sys
from aiaas_sdk.server import serve
numbers = {"max_body": int(sys.argv[1]), "queue": int(sys.argv[2])}
serve(sys.argv[3:], port=0, page=False, announce=lambda url, names: print(url, flush=True), **numbers)
"""
MODELS = ("any=echo:", "one=echo:?x=FP32[-1,3]", "pair=echo:?x=FP32[-1,3]&s=BYTES[-1]")
MIB = 1 << 20


class Server:
    """The process; its models are `targets`, and whatever is installed here is installed there.

    Args:
        patience: seconds of silence after which a TimeoutError comes.
    """

    def __init__(self, *targets: str, max_body: int = 1 << 30, queue: int = 256, patience: float = 5.0) -> None:
        numbers = (str(max_body), str(queue))
        command = [sys.executable, "-W", "error", "-c", PROGRAM, *numbers, *(targets or MODELS)]
        there = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=there)
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, self.process.communicate(timeout=10)[1]
        self.port, self.patience = int(line.rpartition(":")[2]), patience
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience)

    def ask(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        self.connection.request("POST", path, body, dict(headers))
        reply = self.connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()

    def memory(self) -> float:
        """The most MiB of it that have lain in memory."""
        return self._status("VmHWM")

    def resident(self) -> float:
        """MiB of it that lie in memory."""
        return self._status("VmRSS")

    def _status(self, name: str) -> float:
        with open(f"/proc/{self.process.pid}/status") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=self.patience)

    def send(self, data: bytes) -> bytes:
        """Bytes on a connection of their own that says it is done, and all that comes until the server closes it."""
        with self.connect() as stream:
            came = b""
            with contextlib.suppress(ConnectionError):
                stream.sendall(data)
                with contextlib.suppress(OSError):  # it was closed over there
                    stream.shutdown(socket.SHUT_WR)
                while piece := stream.recv(65536):
                    came += piece
            return came

    def close(self) -> None:
        self.connection.close()
        self.process.terminate()
        try:
            self.process.communicate(timeout=10)
        finally:
            self.process.kill()
