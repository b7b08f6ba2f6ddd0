"""Where a credential comes from: text or a variable, a file, a function."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache
from types import CoroutineType
from typing import Any, NamedTuple, Protocol, TypeAlias

from aiaas_sdk.articles import kind_of
from aiaas_sdk.records.hidden import Hidden

__all__ = ["Answer", "File", "Function", "Problem", "Source", "Text", "checked"]

MAX_BYTES = 16384
"""Bytes of a file that can be a credential; no server takes a longer header."""

Answer: TypeAlias = "str | tuple[str, float]"
"""What a function gives: the credential, or the credential and the seconds for which it is good."""


class Problem(NamedTuple):
    """Why a source gives nothing that can be sent: completes "the SOURCE ..."; never its value."""

    what: str
    hint: str


class Source(Protocol):
    """Where a secret's value comes from."""

    def value(self) -> Hidden | Problem:
        """What is known now."""

    def asked(self, stale: Hidden | None) -> Future[Problem | None] | None:
        """A future of the caller's own, set when `value` is good, and another than `stale` if there is one. Its result
        is the problem; it never fails."""


def checked(value: Hidden) -> Hidden | Problem:
    """The value without surrounding blanks, or why no header can carry it."""
    text = value.reveal().strip()
    if not text:
        return Problem("is empty", "Set it, or leave api_key out")
    if not text.isascii() or not text.isprintable() or text[0] in "'\"" or len(text) > MAX_BYTES:
        return Problem(
            "holds characters that no HTTP header can carry", "Give the bare key: ASCII, no quotes, no line breaks"
        )
    return Hidden(text)


class Text:
    """Text or a variable: looked at each time."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read

    def value(self) -> Hidden:
        return Hidden(self._read())

    def asked(self, stale: Hidden | None) -> None:
        return None


class File:
    """A file: looked at each time, read when it has changed, or when a peer refuses what it said."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._kept: tuple[Any, Hidden] | None = None

    def value(self) -> Hidden | Problem:
        try:
            kept, stamp = self._kept, _stamp(os.stat(self._path))
            if kept is None or kept[0] != stamp:
                kept = self._kept = self._read()
            return kept[1]
        except OSError as error:
            why = error.strerror or type(error).__name__
        except UnicodeDecodeError:
            why = "it isn't UTF-8"
        except ValueError as error:
            why = str(error)
        return Problem(f"of a credential can't be read: {why}", "Mend the file, or name another one")

    def _read(self) -> tuple[Any, Hidden]:
        with open(self._path, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES} bytes")
            if os.name == "posix" and status.st_mode & stat.S_IROTH:
                _warn_of_others(self._path)
            return _stamp(status), Hidden(file.read(MAX_BYTES).decode())

    def asked(self, stale: Hidden | None) -> None:
        if stale is not None:
            self._kept = None  # whatever the stamp says: some clocks tick every 4 ms, some every 2 s


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no file of bytes")  # a pipe could be read once, and would keep everyone waiting
    return status.st_mtime_ns, status.st_size, status.st_ino


@lru_cache(256)
def _warn_of_others(path: str) -> None:
    """Once for each file."""
    import logging

    logger = logging.getLogger("aiaas_sdk.secret")
    logger.warning("every user of this machine may read the credential in %s; chmod 600 keeps it to its owner", path)


class Function:
    """A function. Its answer is kept until a peer refuses it, or until the seconds are over that it named."""

    def __init__(self, function: Callable[[], Answer]) -> None:
        self._function = function
        self._kept: tuple[Hidden, float] | None = None
        self._begin()

    def _begin(self) -> None:
        """In a child process the thread that was at work is gone, and the lock may be held for ever."""
        self._process = os.getpid()
        self._guard = threading.Lock()
        self._waiting: list[Future[Problem | None]] = []  # not empty while the function is at work

    def value(self) -> Hidden | Problem:
        return self._kept[0] if self._kept else Problem("wasn't asked yet", "")

    def asked(self, stale: Hidden | None) -> Future[Problem | None] | None:
        if self._process != os.getpid():
            self._begin()
        with self._guard:
            kept = self._kept
            if kept is not None and kept[0] != stale and time.monotonic() < kept[1]:
                return None
            if not self._waiting:
                threading.Thread(target=self._ask, name="aiaas-secret", daemon=True).start()
            future: Future[Problem | None] = Future()
            self._waiting.append(future)
            return future

    def _ask(self) -> None:
        """In a thread of its own, which nobody has to wait for longer than a call may take."""
        answer = self._answer()
        with self._guard:
            if not isinstance(answer, Problem):
                self._kept = answer
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(answer if isinstance(answer, Problem) else None)

    def _answer(self) -> tuple[Hidden, float] | Problem:
        asked = time.monotonic()
        try:
            answer = self._function()
        except BaseException as error:  # its text isn't repeated: it may hold the credential
            return Problem(f"raised {type(error).__name__}, asked for a credential", "Call it by itself to see why")
        text, seconds = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, float("inf"))
        if not isinstance(text, str) or not isinstance(seconds, int | float) or not seconds > 0:
            return Problem(f"gave {_kind(answer)} for a credential", "A plain function gives text, or text and seconds")
        value = checked(Hidden(text))
        return value if isinstance(value, Problem) else (value, asked + seconds)


def _kind(answer: Any) -> str:
    """What a function gave, never its contents."""
    if type(answer) is CoroutineType:
        answer.close()  # else Python warns that it was never awaited
        return "a coroutine"
    return kind_of(answer)
