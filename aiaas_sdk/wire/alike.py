"""Chunks of a stream that differ in their text alone.

A streamed answer is one JSON document after another, of which mostly nothing changes but a word. Where a chunk has the
bytes of the one before around a plain string, the string is all that has to be read.
"""

from __future__ import annotations

import re

__all__ = ["Alike"]

TRIES = 8
"""Chunks in a row that weren't alike, after which no more is looked for: some peers number each."""
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]+')  # a JSON string that is written as it is read, within one line
_KEY = re.compile(rb'"content":[ ]?"')


class Alike:
    """The bytes around the text of the chunk before."""

    def __init__(self) -> None:
        self._before = self._behind = b""
        self._tries = TRIES

    def text(self, data: bytes) -> str | None:
        """The text of a chunk that is otherwise the one before; None where it may be anything else."""
        before, behind = self._before, self._behind
        if not (before and data.startswith(before) and data.endswith(behind)):
            return None
        found = data[len(before) : len(data) - len(behind)]
        if len(before) + len(behind) + len(found) != len(data) or not _PLAIN.fullmatch(found):
            return None
        try:
            text = found.decode()
        except UnicodeDecodeError:
            return None  # who reads it in full says what is wrong
        self._tries = TRIES
        return text

    def learn(self, data: bytes, text: str) -> None:
        """Take a chunk for the pattern of the next ones: one event, of which all but its text says nothing new."""
        self._before = b""
        if not self._tries:
            return
        self._tries -= 1
        places = list(_KEY.finditer(data))
        if len(places) != 1:  # a string can't hold the key, since its quotes would be escaped
            return
        written = text.encode("utf-8", "replace")
        start = places[0].end()
        end = start + len(written)
        if data[start : end + 1] == written + b'"' and _PLAIN.fullmatch(written):
            self._before, self._behind = data[:start], data[end:]
