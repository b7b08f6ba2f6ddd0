"""What a model thinks, where it stands in its text between tags."""

from __future__ import annotations

__all__ = ["THINK", "Thinking"]

THINK, UNTHINK = "<think>", "</think>"


class Thinking:
    """Parts streamed text into thought and answer by the tags, wherever these are cut.

    Blanks around the thought, and line ends after it, belong to neither.
    """

    def __init__(self) -> None:
        self._held, self._state = "", "before"
        self._begun = False

    def feed(self, text: str) -> tuple[str, str]:
        """The answer's and the thought's part of what can be told now."""
        if self._state == "answer":
            return text, ""
        self._held += text
        if self._state == "before":
            begun = self._held.lstrip()
            if begun.startswith(THINK):
                self._state, self._held = "within", begun[len(THINK) :]
            elif THINK.startswith(begun):
                return "", ""
            else:
                self._state = "answer"
        thought = self._thought() if self._state == "within" else ""
        if self._state == "behind":
            self._held = self._held.lstrip("\n")
            self._state = "answer" if self._held else "behind"
        return (self._rest(), thought) if self._state == "answer" else ("", thought)

    def _thought(self) -> str:
        """What is thought for sure; blanks and the beginning of a tag are held back."""
        if not self._begun:
            self._held = self._held.lstrip()
        thought, found, rest = self._held.partition(UNTHINK)
        if found:
            self._state, self._held = "behind", rest
            return thought.rstrip()
        begun = next((n for n in range(len(UNTHINK) - 1, 0, -1) if thought.endswith(UNTHINK[:n])), 0)
        told = thought[: len(thought) - begun].rstrip()
        self._held, self._begun = thought[len(told) :], self._begun or told != ""
        return told

    def end(self) -> tuple[str, str]:
        """What was held back."""
        return ("", self._rest().rstrip()) if self._state == "within" else (self._rest(), "")

    def _rest(self) -> str:
        held, self._held = self._held, ""
        return held
