"""Calls of tools in what a model says: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, one or a list."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from aiaas_sdk.records.language import ToolCall

__all__ = ["OPEN", "calls_in"]

OPEN = "<tool_call>"
_BLOCK = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


def calls_in(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """The text without its calls, and the calls; a block that holds none stays text.

    Blanks behind the calls go with them.
    """
    calls: list[ToolCall] = []

    def taken(block: re.Match[str]) -> str:
        found = _parsed(block[1])
        calls.extend(found)
        return "" if found else block[0]

    rest = _BLOCK.sub(taken, text)
    before = text.find(OPEN)
    if calls and not rest[before:].strip():
        rest = rest[:before]
    return rest, tuple(calls)


def _parsed(text: str) -> list[ToolCall]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    entries = found if isinstance(found, list) else [found]
    if not entries or not all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries):
        return []
    return [ToolCall(f"call_{uuid.uuid4().hex[:24]}", entry["name"], _arguments(entry)) for entry in entries]


def _arguments(entry: dict[str, Any]) -> dict[str, Any] | str:
    given = entry.get("arguments", entry.get("parameters", {}))
    return given if isinstance(given, dict | str) else json.dumps(given)
