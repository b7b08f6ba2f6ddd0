"""Calls of tools, from pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from aiaas_sdk.records.language import ToolCall

__all__ = ["ToolPieces"]


class ToolPieces:
    """Calls of tools, put together from pieces.

    A piece belongs to the call of its index, unless its id says that a new one begins there; without an index to
    the call of its id, or else to the last one.
    """

    def __init__(self) -> None:
        self._calls: list[dict[str, Any]] = []
        self._at: dict[Any, dict[str, Any]] = {}

    def add(self, pieces: Any) -> None:
        for piece in pieces if isinstance(pieces, list) else ():
            if isinstance(piece, Mapping):
                self._take(piece)

    def _take(self, piece: Mapping[str, Any]) -> None:
        function = piece.get("function")
        function = function if isinstance(function, Mapping) else {}
        index, told = piece.get("index"), piece.get("id")
        index = index if isinstance(index, int | str) else None
        name, arguments = function.get("name"), function.get("arguments")
        call = self._at.get(index) if index is not None else self._known(told)
        fresh = isinstance(told, str) and told != "" and call is not None and call["id"] not in ("", told)
        if call is None or fresh:
            call = {"id": "", "name": "", "arguments": ""}
            self._calls.append(call)
        if index is not None:
            self._at[index] = call
        if isinstance(told, str):
            call["id"] = call["id"] or told
        if isinstance(name, str):
            call["name"] = call["name"] or name
        if arguments is not None:
            call["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)

    def _known(self, told: Any) -> dict[str, Any] | None:
        if isinstance(told, str) and told:
            return next((call for call in self._calls if call["id"] == told), None)
        return self._calls[-1] if self._calls else None

    def calls(self) -> tuple[ToolCall, ...]:
        """As they are now."""
        return tuple(
            ToolCall(call["id"] or f"call_{place}", call["name"], _object(call["arguments"]))
            for place, call in enumerate(self._calls)
        )


def _object(text: str) -> Mapping[str, Any] | str:
    """Arguments as an object; what is none stays text, for the tool to refuse."""
    try:
        found = from_json(text or "{}")
    except ValueError:
        return text
    return found if isinstance(found, dict) else text
