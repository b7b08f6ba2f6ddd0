"""From tokens to the text that may be shown: whole characters, up to a stop text, tool calls apart."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

__all__ = ["Speller", "Stops"]


class Speller:
    """Bytes in, text out. What could still become a character is kept back, and dropped if it never does."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, data: bytes) -> str:
        return self._decoder.decode(data)


class Stops:
    """Ends a text where one of the stop texts begins, however it is cut into pieces.

    `hit` is set then. The end of what has come that could be the beginning of a stop text is kept back until more
    comes.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False

    def add(self, piece: str) -> str:
        """What may be shown of the text so far and hasn't been."""
        if not self._stops or self.hit:
            return "" if self.hit else piece
        text = self._held + piece
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.hit, self._held = True, ""
            return text[: min(found)]
        kept = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def rest(self) -> str:
        """What was kept back, when no more comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text are the beginning of the stop text."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if stop.startswith(text[len(text) - size :]):
            return size
    return 0
